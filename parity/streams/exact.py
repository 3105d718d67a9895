"""What do ``log``, ``log1p``, ``sin`` and ``cos`` of the C library give, for whole arrays of float64?

Producers call libm once per value. NumPy's own loops are not libm on CPUs with AVX-512. :mod:`math` always calls libm.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np


def _mapped(function: Callable[[float], float]) -> Callable[[np.ndarray], np.ndarray]:
    def apply(values: np.ndarray) -> np.ndarray:
        return np.fromiter(map(function, values.tolist()), np.float64, len(values))

    return apply


log = _mapped(math.log)
log1p = _mapped(math.log1p)
sin = _mapped(math.sin)
cos = _mapped(math.cos)
