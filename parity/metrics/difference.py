"""Element-wise differences."""

from __future__ import annotations

import numpy as np


def max_abs(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Return the largest absolute difference of any element."""
    return float(np.max(np.abs(reference - candidate)))


def unequal_share(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Return the share of elements that differ, 0 to 1."""
    return float(np.mean(reference != candidate))
