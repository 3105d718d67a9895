"""Which groups of operations run faster as one?

One module a pattern. Each takes the operations in order and replaces those that match by fewer, whose result stays
within what the profile allows; nothing is fused across a value that somebody asked for.
"""

from __future__ import annotations

from parity.mil.events import Rewrite


def rewrite(profile: str) -> Rewrite | None:
    """Return the rewriting for a profile, or None where nothing may be fused."""
    return None
