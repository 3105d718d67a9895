"""How much memory would a program take, judged by what stands in its file?

Weights are counted twice: as stored, and as they are when each is expanded to the type that the program computes with
(palettes and quantized weights become float16 before they are multiplied). Intermediate values are counted where most
of them are alive at once, each from the operation that makes it to the last one that reads it.

Left out: what the framework itself takes, its own copies of weights in another layout, buffers that a compute unit
plans beside these, and what fused operations never write. So a component needs more than its stored weights; how much
more, only a measurement says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from parity import mil
from parity.mil import values
from parity.mil.graph import Graph, build


@dataclass(frozen=True)
class Estimate:
    """Bytes of one model, or of the halves of one.

    Attributes
    ----------
    stored : int
        Weight files, as they lie on the disk.
    expanded : int
        The same weights in the types that the program declares for them.
    alive : int
        Largest sum of inputs, outputs and intermediate values that are needed at one time.
    flexible : bool
        Shapes are not all fixed: what varies is counted at its default, or as one.
    """

    stored: int
    expanded: int
    alive: int
    flexible: bool = False

    @property
    def least(self) -> int:
        """Weights as stored, and values."""
        return self.stored + self.alive

    @property
    def most(self) -> int:
        """Weights expanded, and values."""
        return max(self.stored, self.expanded) + self.alive

    def beside(self, other: Estimate) -> Estimate:
        """Return both loaded, run one after the other."""
        return Estimate(
            self.stored + other.stored,
            self.expanded + other.expanded,
            max(self.alive, other.alive),
            self.flexible or other.flexible,
        )


def estimate(path: Path | str) -> Estimate:
    """Return what a model's default function takes.

    Parameters
    ----------
    path : path
        ``.mlpackage`` or ``.mlmodelc`` with an ML Program.

    Raises
    ------
    MissingError, FormatError, UnsupportedError
        No such model; damaged; no ML Program.
    """
    model = mil.load(path)
    program = model.program
    name = model.default_function
    graph = build(program.functions[name], f"{path}: {name}")
    stored = sum(model.weights.path(name).stat().st_size for name in model.weights.names())
    for feature in model.function().inputs:
        if feature.name in graph.types and feature.shape:
            graph.types[feature.name] = _default(graph.types[feature.name], feature.shape)
    flexible = any(None in kind.shape for kind in graph.types.values() if isinstance(kind, values.TensorType))
    return Estimate(stored, _weights(graph), _alive(graph), flexible)


def _default(kind: values.Type, shape: tuple[int, ...]) -> values.Type:
    """Return a type whose free sizes are those that the description gives as default."""
    if isinstance(kind, values.TensorType) and None in kind.shape and len(kind.shape) == len(shape):
        return values.TensorType(kind.dtype, shape)
    return kind


def _weights(graph: Graph) -> int:
    """Return the size of constants, and of compressed ones after their expansion."""
    expanded = {name for node in graph.nodes if node.type.startswith("constexpr_") for name in node.outputs}
    compressed = {name for node in graph.nodes if node.type.startswith("constexpr_") for name in node.dependencies()}
    own = sum(_bytes(graph, name) for name in (graph.constants.keys() - compressed) | expanded)
    return own + sum(_weights(block) for node in graph.nodes for block in node.blocks)


def _alive(graph: Graph) -> int:
    """Return the largest number of bytes that values of a block take at one time, nested blocks included."""
    last = {name: place for place, node in enumerate(graph.nodes) for name in node.dependencies()}
    held = {name: _bytes(graph, name) for name in graph.inputs}
    kept = {*graph.outputs, *graph.inputs}
    most = sum(held.values())
    for place, node in enumerate(graph.nodes):
        if node.type.startswith("constexpr_"):
            continue
        held |= {name: _bytes(graph, name) for name in node.outputs}
        inside = max((_alive(block) for block in node.blocks), default=0)
        most = max(most, sum(held.values()) + inside)
        for name in {*node.dependencies(), *node.outputs}:
            if name in held and name not in kept and last.get(name, place) <= place:
                del held[name]
    return most


def _bytes(graph: Graph, name: str) -> int:
    kind = graph.types.get(name)
    if not isinstance(kind, values.TensorType):
        return 0
    return math.ceil(math.prod(size for size in kind.shape if size is not None) * kind.dtype.bits / 8)
