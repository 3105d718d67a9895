"""Which numerics can the reference runtime compute with? By name, so that asking imports no torch."""

from __future__ import annotations

PROFILES: tuple[str, ...] = ("declared", "float32", "float16-accumulate", "float16-sequential")
"""Names of the numerics profiles."""
