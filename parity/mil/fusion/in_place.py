"""May this elementwise operation write into its input's memory?

It may when nobody reads that memory afterwards, under any name: views share memory, so names are grouped by the value
whose memory they show. Only memory that an operation on a short list made is taken (never inputs, constants, states,
lists or values that somebody asked for), and only where shape and carrier of input and result agree. Results are the
same to the bit; what is saved is a buffer and its way through the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from parity.mil.fusion.match import View
from parity.mil.graph import Node
from parity.mil.operators import Context
from parity.mil.values import TensorType

_MAKERS = frozenset({"conv", "linear", "matmul", "layer_norm", "softmax", "fused_attention", "fused_group_norm"})
_FRESH = _MAKERS | {"add", "sub", "mul", "silu", "gelu", "relu"}
_VIEWS = frozenset({"reshape", "transpose", "expand_dims", "squeeze"})


def _silu(context: Context, x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.silu(x, inplace=True)


def _relu(context: Context, x: torch.Tensor) -> torch.Tensor:
    return x.relu_()


def _binary(compute: Callable[..., torch.Tensor], target: str) -> Callable[..., torch.Tensor]:
    def apply(context: Context, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return compute(x, y, out=x if target == "x" else y)

    return apply


_UNARY: dict[str, Callable[..., torch.Tensor]] = {"silu": _silu, "relu": _relu}
_BINARY: dict[str, Any] = {"add": torch.add, "sub": torch.sub, "mul": torch.mul}


class _Memory:
    """Which names show the same memory, when it is last read, and what must not be touched."""

    def __init__(self, view: View, wanted: frozenset[str]) -> None:
        self.view = view
        self.group: dict[str, str] = {}
        self.last: dict[str, int] = {}
        self.kept: set[str] = set()
        for index, node in enumerate(view.nodes):
            read = [name for name in node.dependencies() if name not in view.fixed]
            for name in read:
                self.last[self.of(name)] = index
            shared = {self.of(name) for name in read}
            if node.blocks or not self._plain([*read, *node.outputs]):
                self.kept |= shared | set(node.outputs)
            elif node.operator.aliases:
                if node.type not in _VIEWS or len(shared) != 1:
                    self.kept |= shared | set(node.outputs)
                else:
                    self.group.update(dict.fromkeys(node.outputs, next(iter(shared))))
        self.kept |= {self.of(name) for name in wanted}
        made = {name for node in view.nodes if node.type in _FRESH for name in node.outputs}
        self.kept |= {self.of(name) for node in view.nodes for name in node.dependencies()} - made

    def _plain(self, names: list[str]) -> bool:
        return all(isinstance(self.view.graph.types.get(name), TensorType) or name.startswith("%") for name in names)

    def of(self, name: str) -> str:
        """Return the value whose memory a name shows."""
        while name in self.group:
            name = self.group[name]
        return name

    def free_after(self, name: str, index: int) -> bool:
        """Tell whether the memory of a name may be overwritten by the operation at ``index``."""
        owner = self.of(name)
        return owner not in self.kept and self.last.get(owner) == index

    def hand_over(self, name: str, result: str) -> None:
        """Let ``result`` show the memory of ``name`` from now on."""
        owner = self.of(name)
        if result in self.kept:
            self.kept.add(owner)
        self.last[owner] = max(self.last.get(result, -1), self.last[owner])
        self.group[result] = owner


def rewrite(view: View, wanted: frozenset[str]) -> None:
    """Let operations of ``view`` write into inputs that die with them."""
    memory = _Memory(view, wanted)
    for index, node in enumerate(view.nodes):
        if node.type in _UNARY and _fits(view, node, "x") and memory.free_after(node.inputs["x"][0], index):
            function = _UNARY[node.type]
            parameter = "x"
        elif node.type in _BINARY and (found := _operand(view, memory, node, index)):
            parameter = found
            function = _binary(_BINARY[node.type], parameter)
        else:
            continue
        memory.hand_over(node.inputs[parameter][0], node.outputs[0])
        operator = replace(node.operator, function=function)
        view.nodes[index] = replace(node, operator=operator)


def _operand(view: View, memory: _Memory, node: Node, index: int) -> str:
    for parameter, other in (("x", "y"), ("y", "x")):
        name, partner = node.inputs[parameter][0], node.inputs[other][0]
        separate = partner in view.fixed or memory.of(partner) != memory.of(name)
        if separate and _fits(view, node, parameter) and memory.free_after(name, index):
            return parameter
    return ""


def _fits(view: View, node: Node, parameter: str) -> bool:
    name, result = node.inputs[parameter][0], node.outputs[0]
    shape = view.shape(name)
    floats = view.dtype(name) in ("fp16", "fp32") and view.dtype(result) in ("fp16", "fp32")
    return name not in view.fixed and floats and shape is not None and None not in shape and shape == view.shape(result)
