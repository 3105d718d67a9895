"""How many representable numbers lie between two floats? (ulp: unit in the last place)

A bound in ulp speaks about rounding and nothing else: it holds at every magnitude, and means the same in each dtype.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from parity.metrics.metric import Metric, Takes


def distances(reference: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """Return how many steps of ``nextafter`` lead from one finite float to the other, element by element.

    Parameters
    ----------
    reference, candidate : numpy.ndarray
        The same dtype: float16, float32 or float64.

    Returns
    -------
    numpy.ndarray
        uint64; 0 between -0 and 0.
    """
    a, b = _ordered(reference), _ordered(candidate)
    # unsigned subtraction is exact where the difference of two int64 would not fit
    return np.where(a > b, a.view(np.uint64) - b.view(np.uint64), b.view(np.uint64) - a.view(np.uint64))


def max_ulp(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Return the largest distance of any element in units in the last place."""
    return float(distances(reference, candidate).max())


def quantile_ulp(reference: np.ndarray, candidate: np.ndarray, *, q: float) -> float:
    """Return the least distance in ulp that a share ``q`` of the elements does not exceed."""
    return float(np.quantile(distances(reference, candidate), q, method="inverted_cdf"))


def _ordered(array: np.ndarray) -> np.ndarray:
    """Map floats to int64 that count representable numbers from zero: neighbours differ by one."""
    bits = np.ascontiguousarray(array).view(f"i{array.itemsize}").astype(np.int64)
    magnitude = bits & ((1 << (8 * array.itemsize - 1)) - 1)
    return np.where(bits < 0, -magnitude, magnitude)


METRICS = (
    Metric(
        name="max_ulp",
        unit="ulp",
        higher_is_better=False,
        symmetric=True,
        takes=Takes.FLOATS,
        least=0.0,
        most=2.0**64,
        equal="0",
        worst="the largest number against its negative: 63,486 ulp in float16, 4.3e9 in float32, 1.8e19 in float64",
        convention="largest number of nextafter steps between two elements; -0 equals 0",
        function=max_ulp,
    ),
    Metric(
        name="ulp_p99",
        unit="ulp",
        higher_is_better=False,
        symmetric=True,
        takes=Takes.FLOATS,
        least=0.0,
        most=2.0**64,
        equal="0; so has a difference in less than 1 % of the elements",
        worst="that of max_ulp",
        convention="least number of nextafter steps that 99 % of the elements do not exceed; -0 equals 0",
        function=partial(quantile_ulp, q=0.99),
    ),
)
