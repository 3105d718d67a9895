"""What do libm's ``log``, ``sin`` and ``cos`` and a fused multiply-add give, for whole arrays of float64?

Producers call the C library once per value. :mod:`math` does that too, by construction, but slowly. NumPy's loops are
fast and on some CPUs not the C library: with AVX-512 its ``log`` differs in the last bit of 0.3 % to 21 % of values, by
release. So each function is taken from NumPy if it agrees with :mod:`math` on some thousand arguments, and otherwise
from :mod:`parity.streams.logarithm` or, value by value, from :mod:`math`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

from parity.streams.logarithm import Logarithm

_PROBES = 4096


def _mapped(function: Callable[[float], float]) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    def apply(values: np.ndarray, out: np.ndarray) -> np.ndarray:
        out[...] = np.fromiter(map(function, values.tolist()), np.float64, len(values))
        return out

    return apply


@functools.cache
def _chosen(name: str, low: float, high: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """NumPy's function where it equals :mod:`math`'s on a grid of probes, :mod:`math`'s elsewhere."""
    fast, mapped = getattr(np, name), _mapped(getattr(math, name))
    probes = low + (high - low) * ((np.arange(1, _PROBES + 1) * 0.6180339887498949) % 1.0)  # golden-ratio sequence
    return fast if np.array_equal(fast(probes), mapped(probes, np.empty_like(probes))) else mapped


def sin(values: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Write libm's sine of angles in [0, 2 pi] to ``out``, and return it."""
    return _chosen("sin", 0.0, 2 * math.pi)(values, out)


def cos(values: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Write libm's cosine of angles in [0, 2 pi] to ``out``, and return it."""
    return _chosen("cos", 0.0, 2 * math.pi)(values, out)


def log1p(values: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Write libm's log(1 + x) of values in (-1, 0] to ``out``, and return it."""
    return _chosen("log1p", -1.0, 0.0)(values, out)


def logarithm() -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return a function of values in (0, 1] and an output array that gives libm's logarithm.

    It may hold scratch memory, so that each stream makes its own.
    """
    function = _chosen("log", 0.0, 1.0)
    return function if function is np.log else Logarithm()


def _two_sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Knuth's sum and its error, together exact."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _halves(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Veltkamp's split of 53 bits into 26 and 27."""
    scaled = a * 134217729.0
    high = scaled - (scaled - a)
    return high, a - high


def _two_product(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Dekker's product and its error, together exact."""
    product = a * b
    a1, a2 = _halves(a)
    b1, b2 = _halves(b)
    return product, ((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2


def fma(a: np.ndarray, b: np.ndarray | float, c: np.ndarray | float) -> np.ndarray:
    """Return a * b + c in float64, rounded once.

    Exact sums and products, the last but one rounded to odd (Boldo and Melquiond, "Emulation of FMA and correctly
    rounded sums", IEEE Transactions on Computers 57, 2008). Neither overflow nor underflow may occur on the way.
    """
    product, rest = _two_product(a, np.asarray(b, np.float64))
    high, low = _two_sum(np.asarray(c, np.float64), rest)
    total, error = _two_sum(product, high)
    tail, lost = _two_sum(low, error)
    even = (tail.view(np.int64) & 1) == 0
    toward = np.where(lost > 0, np.inf, -np.inf)
    tail = np.where((lost != 0) & even, np.nextafter(tail, toward), tail)
    return total + tail
