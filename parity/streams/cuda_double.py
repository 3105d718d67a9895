"""What are CUDA's ``log`` and ``sincospi`` in float64? torch's CUDA normals in float64 are made with them.

Both are software, in the bitcode library ``libdevice.10.bc`` that comes with CUDA: polynomials evaluated by fused
multiply-adds. One step is hardware, an approximate reciprocal (:mod:`parity.streams.cuda_reciprocal`), which a cubic
step of Newton's method refines. 100 million logarithms from one NVIDIA H100 80GB HBM3 are the same bit for bit.
"""

from __future__ import annotations

import numpy as np

from parity.streams.cuda_reciprocal import reciprocal
from parity.streams.exact import fma


def _table(*bits: int) -> tuple[float, ...]:
    return tuple(np.array(bits, np.uint64).view(np.float64).tolist())


# (log((1 + z) / (1 - z)) - 2 z) / (2 z)**3 in (2 z)**2
_LOG = _table(
    *(0x3EB1380B3AE80F1E, 0x3ED0EE258B7A8B04, 0x3EF3B2669F02676F, 0x3F1745CBA9AB0956),
    *(0x3F3C71C72D1B5154, 0x3F624924923BE72D, 0x3F8999999999A3C4, 0x3FB5555555555554),
)
_LN2, _LN2_LOW = _table(0x3FE62E42FEFA39EF, 0x3C7ABC9E3B39803F)
_COS = _table(
    *(0xBDA8FF8320FD8164, 0x3E21EEA7C1EF8528, 0xBE927E4F8E06E6D9, 0x3EFA01A019DDBCE9),
    *(0xBF56C16C16C15D47, 0x3FA5555555555551, 0xBFE0000000000000, 0x3FF0000000000000),
)
_SIN = _table(
    *(0x3DE5DB65F9785EBA, 0xBE5AE5F12CB0D246, 0x3EC71DE369ACE392, 0xBF2A01A019DB62A1),
    *(0x3F81111111110818, 0xBFC5555555555554, 0x0000000000000000),
)
_PI, _PI_LOW = _table(0x400921FB54442D18, 0x3CA1A62633145C07)
_SQRT_2 = 0x3FF6A09F  # high word: mantissas from here on are halved


def log(values: np.ndarray) -> np.ndarray:
    """Return the logarithm of positive, normal float64."""
    bits = values.view(np.int64)
    mantissa = bits & ((1 << 52) - 1) | 1023 << 52
    halved = (mantissa >> 32) >= _SQRT_2
    exponent = ((bits >> 52) - 1023 + halved).astype(np.float64)
    m = (mantissa - (halved.astype(np.int64) << 52)).view(np.float64)
    f, g = m - 1.0, m + 1.0
    inverse = reciprocal(g)
    error = fma(-g, inverse, 1.0)
    inverse = fma(fma(error, error, error), inverse, inverse)
    u = f * inverse
    u = u + u
    square = u * u
    residual = inverse * fma(-u, f, 2.0 * (f - u))
    low = fma(_polynomial(_LOG, square) * square, u, residual)
    high = fma(exponent, _LN2, u)
    low = fma(exponent, _LN2_LOW, low - (fma(-exponent, _LN2, high) - u))
    return high + low


def sine_cosine_pi(turns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return sine and cosine of pi times positive float64 up to 2."""
    quadrant = np.floor(turns + turns + 0.5)  # ties away from zero
    rest = fma(-quadrant, 0.5, turns)
    angle = fma(rest, _PI, rest * _PI_LOW)
    square = angle * angle
    cosine = _polynomial(_COS, square)
    sine = fma(_polynomial(_SIN, square), angle, angle)
    odd = quadrant % 2 == 1
    sine, cosine = np.where(odd, cosine, sine), np.where(odd, -sine, cosine)
    negative = quadrant % 4 >= 2
    return np.where(negative, -sine, sine), np.where(negative, -cosine, cosine)


def _polynomial(coefficients: tuple[float, ...], x: np.ndarray) -> np.ndarray:
    result = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        result = fma(result, x, coefficient)
    return result
