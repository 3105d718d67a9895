"""What do all plans of a session share, and what does a callback learn?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from parity.mil.blobs import Weights
from parity.mil.constants import Budget, Constants
from parity.mil.graph import Graph, Node

Rewrite = Callable[[Graph, list[Node], frozenset[str], frozenset[str], Constants], list[Node]]
"""``rewrite(graph, nodes, wanted, constant, constants) -> nodes``: faster operations for the same wanted values."""


@dataclass(frozen=True, slots=True)
class Event:
    """What a callback learns after each operation.

    Attributes
    ----------
    name, type : str
        The operation and its operator; fused ones have the type of their pattern, e.g. ``fused_attention``.
    covers : tuple of str
        Names of the operations that ran; more than one when fused.
    outputs : dict of str to value
        Results by name: torch tensors (float32 for all floating-point types), lists or strings. Not to be written to,
        and to be copied if kept: later operations may reuse the memory.
    seconds : float
        Wall-clock time.
    """

    name: str
    type: str
    covers: tuple[str, ...]
    outputs: Mapping[str, Any]
    seconds: float


@dataclass(slots=True)
class Options:
    """What all plans of a session share."""

    profile: str
    weights: Weights
    budget: Budget
    seed: int = 0
    rewrite: Rewrite | None = None
    generators: dict[str, Any] = field(default_factory=dict)
    callback: Callable[[Event], None] | None = None
    stopped: Exception | None = None  # what the callback raised; passes every block around the operation unchanged
    nested: dict[str, Any] = field(default_factory=dict)  # values inside blocks that somebody asked for

    def tell(self, event: Event) -> None:
        """Call the callback, if there is one."""
        if self.callback is None:
            return
        try:
            self.callback(event)
        except Exception as error:
            self.stopped = error
            raise
