"""Where do values inside nested blocks (branches, loops) live, and who has to run for them to be seen?

A value inside a block exists each time the block runs. Asked for by name, it is what the last run of its block gave: in
a loop the last iteration, in a condition the branch that was taken. A callback sees every run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from parity.mil import values
from parity.mil.graph import Graph, Node


def types(graph: Graph) -> dict[str, values.Type]:
    """Return names and types of the values inside a graph's nested blocks; an outer block's name comes first."""
    found: dict[str, values.Type] = {}
    for node in graph.nodes:
        for block in node.blocks:
            for name, declared in (*block.types.items(), *types(block).items()):
                if not name.startswith("%"):
                    found.setdefault(name, declared)
    return found


def _names(node: Node) -> Iterator[str]:
    for block in node.blocks:
        yield from block.types
        for inner in block.nodes:
            yield from _names(inner)


def holders(graph: Graph, asked: Collection[str]) -> tuple[str, ...]:
    """Return a result of each operation of ``graph`` whose blocks hold any of the ``asked`` values."""
    if not asked:
        return ()
    return tuple(node.outputs[0] for node in graph.nodes if node.outputs and not set(asked).isdisjoint(_names(node)))
