"""What is a metric, and what must it declare so that its number means the same everywhere?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np

Function = Callable[[np.ndarray, np.ndarray], float]
"""``function(reference, candidate)`` on arrays of equal shape that were checked; returns the metric's value."""


class Takes(str, Enum):
    """Which arrays a metric compares, and in which arithmetic."""

    REAL = "real numbers of any dtype, converted to float64 before anything is computed"
    PICTURE = "8-bit RGB pictures (…, height, width, 3), converted to float64"
    FLOATS = "both float16, both float32 or both float64, in that dtype"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A way to reduce two arrays of equal shape to one number.

    Attributes
    ----------
    name : str
        Name in tolerance tables and reports.
    unit : str
        Unit of the value, empty for pure numbers.
    higher_is_better : bool
        Direction; a bound is a minimum if true, else a maximum.
    symmetric : bool
        Whether swapping reference and candidate gives the same value.
    takes : Takes
        Which arrays, and in which arithmetic they are compared.
    least, most : float
        Ends of the range of values, both included; a bound outside is refused when a table is read.
    equal : str
        The value of equal arrays.
    worst : str
        What the other end means, or what approaches it.
    convention : str
        One sentence that another implementation needs to get the same number.
    function : callable
        See :data:`Function`.
    smallest : int
        Least height and width of pictures in pixels; smaller ones are refused.
    defects : str
        For a formula of another project that is kept as it is: what is wrong with it.
    prepare : callable
        Raises if the metric cannot be computed here (a library or weights are missing); called when a table names it.
    """

    name: str
    unit: str = ""
    higher_is_better: bool
    symmetric: bool
    takes: Takes
    least: float
    most: float
    equal: str
    worst: str
    convention: str
    function: Function
    smallest: int = 1
    defects: str = ""
    prepare: Callable[[], object] = lambda: None

    @property
    def images(self) -> bool:
        """Whether arguments must be uint8 pictures."""
        return self.takes is Takes.PICTURE

    def passes(self, value: float, bound: float) -> bool:
        """Return whether a value satisfies a bound; NaN never does."""
        return bool(value >= bound if self.higher_is_better else value <= bound)

    def allows(self, bound: float) -> bool:
        """Return whether a bound is a value that the metric can take; NaN is none."""
        return not math.isnan(bound) and self.least <= bound <= self.most

    @property
    def range(self) -> str:
        """The legal bounds as text, e.g. ``0 dB to infinity``."""
        return f"{self._end(self.least)} to {self._end(self.most)}"

    def format(self, value: float) -> str:
        """Return the value with its unit, short enough for a table."""
        digits = f"{value:.2f}" if self.unit == "dB" else f"{value:.3g}"
        return f"{digits} {self.unit}".rstrip()

    def _end(self, value: float) -> str:
        if math.isinf(value):
            return "infinity" if value > 0 else "-infinity"
        return f"{value:g} {self.unit}".rstrip()
