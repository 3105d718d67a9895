"""How does a row of numbers look in one line of a terminal?"""

from __future__ import annotations

import math
from collections.abc import Sequence

_STEPS = "▁▂▃▄▅▆▇█"
_PLAIN = ".:-=+*#@"  # for a terminal that has no blocks
_MISSING = " "


def sparkline(values: Sequence[float], *, width: int = 40, plain: bool = False) -> str:
    """Return the last ``width`` values as blocks between their smallest and largest; equal ones lie in the middle.

    >>> sparkline([1, 2, 3, 2, float("nan"), 8])
    '▁▂▃▂ █'
    >>> sparkline([5, 5])
    '▄▄'
    """
    shown = list(values)[-width:]
    finite = [value for value in shown if math.isfinite(value)]
    if not finite:
        return _MISSING * len(shown)
    low, span = min(finite), max(finite) - min(finite)
    steps = _PLAIN if plain else _STEPS

    def step(value: float) -> str:
        if not math.isfinite(value):
            return _MISSING
        place = (len(steps) - 1) // 2 if span == 0 else round((value - low) / span * (len(steps) - 1))
        return steps[place]

    return "".join(map(step, shown))
