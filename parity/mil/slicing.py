"""Which operations are needed for the values that somebody wants?

Asking for a value runs what it depends on and nothing else. Values that are given cut the graph: with them one runs
from, up to and between any points of a program, without changing it.
"""

from __future__ import annotations

from collections.abc import Iterable

from parity.mil import values
from parity.mil.graph import Graph, Node

_WRITES = frozenset({"coreml_update_state", "write_state"})
_RANDOM = frozenset({"random_uniform", "random_normal", "random_bernoulli", "random_categorical"})


def needed(graph: Graph, wanted: Iterable[str], given: frozenset[str], *, all_states: bool) -> list[Node]:
    """Return the operations that ``wanted`` values need when the ``given`` ones are known.

    Writing a state counts as needed when a needed operation reads that state later, or always with ``all_states``.
    """
    live = set(wanted) - given
    states: set[str] = set()
    kept = []
    for node in reversed(graph.nodes):
        names = set(node.dependencies())
        touched = {name for name in names if isinstance(graph.types.get(name), values.StateType)}
        writes = bool(touched) and (node.type in _WRITES or bool(node.blocks))
        if not (live.intersection(node.outputs) or (writes and (all_states or touched & states))):
            continue
        kept.append(node)
        live.difference_update(node.outputs)
        live.update(names - given)
        states |= touched
    return kept[::-1]


def foldable(node: Node) -> bool:
    """Tell whether an operation on constants gives a constant."""
    return not node.blocks and node.type not in _RANDOM | _WRITES and len(node.outputs) > 0
