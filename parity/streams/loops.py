"""Which compiled loops do the streams use in this process? None, until :mod:`parity.streams.acceleration` has them."""

from __future__ import annotations

from typing import Any

_used: Any = None


def compiled() -> Any:
    """Return the module of compiled loops, or None while they are not used."""
    return _used


def use(module: Any) -> None:
    """Use a module of compiled loops from now on, or none."""
    global _used
    _used = module
