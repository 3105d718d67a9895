"""Which groups of operations run faster as one?

One module a pattern. Each finds its pattern in the operations of a plan and replaces it by fewer operations whose
result stays within what the profile allows; nothing is fused across a value that somebody asked for. Profile
``float16-accumulate`` fuses nothing: it exists to show what rounding at every step does. ``float16-sequential`` fuses
group norms alone: the runtime that it equals computes them in float32.
"""

from __future__ import annotations

from parity.mil.constants import Constants
from parity.mil.events import Rewrite
from parity.mil.graph import Graph, Node


def rewrite(profile: str) -> Rewrite | None:
    """Return the rewriting for a profile, or None where nothing may be fused."""
    if profile == "float16-accumulate":
        return None
    rounded = profile != "float32"

    def apply(
        graph: Graph, nodes: list[Node], wanted: frozenset[str], fixed: frozenset[str], constants: Constants
    ) -> list[Node]:
        from parity.mil.fusion import attention, group_norm, in_place, prepack, split_attention
        from parity.mil.fusion.match import View

        view = View(graph, nodes, wanted=wanted, fixed=fixed, constants=constants)
        if profile != "float16-sequential":
            attention.rewrite(view, rounded=rounded)
            split_attention.rewrite(view, rounded=rounded)
            prepack.rewrite(view)
        group_norm.rewrite(view, rounded=rounded)
        in_place.rewrite(view, wanted)
        return view.nodes

    return apply
