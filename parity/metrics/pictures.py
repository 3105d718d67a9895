"""How do metrics of one picture deal with several?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def pairs(reference: np.ndarray, candidate: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Give the pictures of two arrays (…, height, width, 3) pair by pair, each (height, width, 3)."""
    single = reference.shape[-3:]
    return zip(reference.reshape(-1, *single), candidate.reshape(-1, *single), strict=True)
