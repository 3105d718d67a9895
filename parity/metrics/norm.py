"""How large is a tensor? Root mean square and length, without squares that overflow or vanish in float64."""

from __future__ import annotations

import math

import numpy as np


def length(array: np.ndarray) -> float:
    """Return the Euclidean length of all elements (float64); infinity where one is infinite."""
    largest = float(np.max(np.abs(array)))
    if largest == 0.0 or math.isinf(largest):
        return largest
    return largest * float(np.linalg.norm((array / largest).ravel()))


def decibel(signal: float, noise: float) -> float:
    """Return ``20 log10(signal / noise)`` for amplitudes: infinity without noise, -infinity without signal."""
    if noise == 0.0:
        return math.inf
    if signal == 0.0 or math.isinf(noise):
        return -math.inf
    return 20.0 * (math.log10(signal) - math.log10(noise))
