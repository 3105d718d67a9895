"""The tables of NumPy's ziggurat for the normal distribution: 256 layers of equal area under exp(-x**2 / 2).

They follow from the two numbers that define the layers, and are made once, when first needed, in float64 with correctly
rounded logarithms and exponentials. One entry of NumPy's is one unit in the last place above the rounded value. Proved
by test: the streams that use them equal NumPy's. Source: Marsaglia and Tsang, "The Ziggurat Method for Generating
Random Variables" (2000), and NumPy's ``ziggurat_constants.h``.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

EDGE = 3.6541528853610088
"""Where the tail begins."""

INVERSE_EDGE = 0.27366123732975827203338247596
_AREA = 0.004928673233974652
_LAYERS = 256


class Tables(NamedTuple):
    """For each layer: the mantissas that are certainly inside, the width of one mantissa step, the height."""

    inside: np.ndarray
    width: np.ndarray
    height: np.ndarray


@functools.cache
def tables64() -> Tables:
    """The tables for float64, whose mantissas have 52 bits."""
    from decimal import Context, Decimal  # loaded when first needed

    exact = Context(prec=40)
    x, height = [0.0] * _LAYERS, [1.0] * _LAYERS
    x[-1] = EDGE
    for i in range(_LAYERS - 1, 0, -1):
        height[i] = float(exact.exp(Decimal(-0.5 * x[i] * x[i])))
        if i == 38:
            height[i] = math.nextafter(height[i], 1.0)
        if i > 1:
            x[i - 1] = math.sqrt(-2.0 * float(exact.ln(Decimal(_AREA / x[i] + height[i]))))
    base = _AREA / height[-1]
    inside = [math.floor(EDGE / base * 2.0**52), 0] + [round(x[i - 1] / x[i] * 2.0**52) for i in range(2, _LAYERS)]
    width = [base * 2.0**-52] + [value * 2.0**-52 for value in x[1:]]
    return Tables(np.array(inside, np.uint64), np.array(width), np.array(height))


@functools.cache
def tables32() -> Tables:
    """The tables for float32, whose mantissas have 23 bits."""
    wide = tables64()
    return Tables(
        ((wide.inside + np.uint64(1 << 28)) >> np.uint64(29)).astype(np.uint32),
        (wide.width * 2.0**29).astype(np.float32),
        wide.height.astype(np.float32),
    )
