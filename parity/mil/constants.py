"""Which values of a program do not depend on its inputs, and when do they take memory?

Weights and immediate constants become torch values when an operation first needs them. Operations whose inputs are all
constant (decompression of weights, casts, reordering for the processor) are computed once and count as constants too.
Results are kept while they fit a budget of bytes; what does not fit is made again at each use, slower but small.

Pages of the weight file that were converted to float32 are given back to the system: they would count as memory of the
process, and the file is still there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from parity.mil import values
from parity.mil.blobs import Weights
from parity.mil.graph import Graph
from parity.mil.operators import CARRIERS, python_value

_FREE = 1 << 12  # bytes; values up to here are kept whatever the budget


class Budget:
    """Bytes that kept constants may still take."""

    def __init__(self, limit: int | None) -> None:
        self.left = limit

    def take(self, size: int) -> bool:
        """Reserve ``size`` bytes; False when they are not there."""
        if self.left is None or size <= _FREE:
            return True
        if size > self.left:
            return False
        self.left -= size
        return True


def carried(value: Any, dtype: str) -> Any:
    """Turn a decoded constant into what operators take: tensors in the carrier of ``dtype``, lists, strings."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        carrier = getattr(torch, CARRIERS.get(dtype, "float32"))
        if value.dtype in (np.uint16, np.uint32, np.uint64):  # torch has these types but hardly any kernels
            value = value.astype(np.int64)
        elif not value.flags.c_contiguous or not value.flags.writeable:
            value = value.copy()
        return torch.from_numpy(value).to(carrier)
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list):
        return [carried(item, dtype) for item in value]
    return value


def _bytes(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, (list, tuple)):
        return sum(_bytes(item) for item in value)
    return 0


class Constants:
    """Constants of one block and, by ``outer``, of the blocks around it.

    Parameters
    ----------
    graph : Graph
        Whose ``Value`` messages to decode.
    weights : Weights
        The model's weight files.
    budget : Budget
        Shared by all blocks of a session.
    outer : Constants, optional
        Those of the enclosing block.
    """

    def __init__(self, graph: Graph, weights: Weights, *, budget: Budget, outer: Constants | None = None) -> None:
        self.graph = graph
        self.weights = weights
        self.budget = budget
        self.outer = outer
        self._folded: dict[str, Callable[[], Any]] = {}
        self._kept: dict[str, Any] = {}

    def fold(self, name: str, compute: Callable[[], Any]) -> None:
        """Let ``name`` be a constant that ``compute`` makes."""
        self._folded.setdefault(name, compute)

    def value(self, name: str) -> Any:
        """Return a constant as operators take it."""
        return self.resolve(name)[0]

    def resolve(self, name: str, *, keep: bool = True) -> tuple[Any, bool]:
        """Return a constant and whether it is kept, so that the caller may keep a reference to it too.

        ``keep=False`` is for values that only go into another constant.
        """
        if name in self._kept:
            return self._kept[name], True
        if name in self._folded:
            value = self._folded[name]()
        elif name in self.graph.constants:
            value = self._decode(name)
        else:
            assert self.outer is not None
            return self.outer.resolve(name, keep=keep)
        kept = keep and self.budget.take(_bytes(value))
        if kept:
            self._kept[name] = value
        return value, kept

    def array(self, name: str) -> Any:
        """Return a constant of the file as NumPy or Python value, undecoded weights as views."""
        if name not in self.graph.constants:
            return self.outer.array(name) if self.outer is not None else None
        return values.decode(self.graph.constants[name], f"{self.graph.where}: value {name!r}", self.weights)

    def python(self, name: str) -> Any:
        """Return a constant as Python numbers, strings and tuples."""
        owner: Constants | None = self
        while owner is not None and name not in owner._folded and name not in owner.graph.constants:
            owner = owner.outer
        if owner is not None and name not in owner._folded:
            return python_value(owner.array(name))
        return python_value(self.value(name))

    def _decode(self, name: str) -> Any:
        message = self.graph.constants[name]
        declared = self.graph.types[name]
        while isinstance(declared, values.ListType):
            declared = declared.element
        dtype = declared.dtype.name if isinstance(declared, values.TensorType) else ""
        value = carried(self.array(name), dtype)
        if message.WhichOneof("value") == "blobFileValue" and dtype == "fp16":
            self.weights.file(message.blobFileValue.fileName).release(message.blobFileValue.offset)
        return value
