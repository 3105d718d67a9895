"""The loops that numba compiles: Mersenne words, torch's Box-Muller in float32, NumPy's polar method.

Imported by :mod:`parity.streams.acceleration` alone, which checks that they give the same bits before they are used.

Box-Muller is written as plain float32 arithmetic and compiled with the ``contract`` flag: LLVM then fuses products and
sums where GCC did in torch's wheels. No language guarantees that; it was compared over all 2**24 radii and angles
(``make slow`` does so), and a sample is compared on every machine. Casts keep integers at 32 bits, without which LLVM
does not vectorise.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

_F, _I, _U = np.float32, np.int32, np.uint32
_STEPS, _SQRT_HALF, _MANTISSA = _I(1 << 24), _I(0x3F3504F3), _I(0x7FFFFF)
_I1, _I2, _I4, _I23, _I24, _EVEN = _I(1), _I(2), _I(4), _I(23), _I(24), _I(~1)
_LOW24 = _U(0xFFFFFF)
_PIECE = 2048  # normals made with cosines, or with sines, at a time
_TURN = _F(_F(2 * math.pi) * _F(2.0**-24))

_integers: Any = njit(cache=True, error_model="numpy", nogil=True)
_contracted: Any = njit(cache=True, error_model="numpy", nogil=True, fastmath={"contract"})


@_integers
def _piece(old: np.ndarray, following: np.ndarray, lag: np.ndarray, out: np.ndarray) -> None:
    for k in range(len(out)):
        low = following[k]
        y = _U((old[k] & _U(0x80000000)) | (low & _U(0x7FFFFFFF)))
        out[k] = lag[k] ^ _U(y >> _U(1)) ^ _U(_U(low & _U(1)) * _U(0x9908B0DF))


@_integers
def twist(raw: np.ndarray, start: int, stop: int) -> None:
    """Make raw words ``start`` to ``stop`` from those before them; 227 at a time do not depend on one another."""
    for k in range(start, stop, 227):
        end = min(k + 227, stop)
        _piece(raw[k - 624 : end - 624], raw[k - 623 : end - 623], raw[k - 227 : end - 227], raw[k:end])


@_integers
def temper(raw: np.ndarray, out: np.ndarray) -> None:
    """Temper raw words."""
    for k in range(len(raw)):
        y = raw[k]
        y = _U(y ^ _U(y >> _U(11)))
        y = _U(y ^ _U(_U(y << _U(7)) & _U(0x9D2C5680)))
        y = _U(y ^ _U(_U(y << _U(15)) & _U(0xEFC60000)))
        out[k] = _U(y ^ _U(y >> _U(18)))


@_contracted
def _radius(words: np.ndarray, out: np.ndarray) -> None:
    for i in range(len(words)):
        bits = _I(_F(_I(_STEPS - _I(words[i] & _LOW24))).view(np.int32) - _SQRT_HALF)
        scale = _F(_I(_I(bits >> _I23) - _I24))
        x = _I(_I(bits & _MANTISSA) + _SQRT_HALF).view(np.float32) - _F(1)
        square = x * x
        y = _F(7.0376836292e-2)
        y = y * x + _F(-1.1514610310e-1)
        y = y * x + _F(1.1676998740e-1)
        y = y * x + _F(-1.2420140846e-1)
        y = y * x + _F(1.4249322787e-1)
        y = y * x + _F(-1.6668057665e-1)
        y = y * x + _F(2.0000714765e-1)
        y = y * x + _F(-2.4999993993e-1)
        y = y * x + _F(3.3333331174e-1)
        y = y * x
        y = y * square + scale * _F(-2.12194440e-4)
        y = y - square * _F(0.5)
        y = x + y
        y = y + scale * _F(0.693359375)
        out[i] = np.sqrt(_F(-2) * y)


@_contracted
def _cos_sin(words: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> None:
    for i in range(len(words)):
        t = _F(_I(words[i] & _LOW24)) * _TURN
        octant = _I(_I(_I(t * _F(1.27323954473516)) + _I1) & _EVEN)
        turned = _F(octant)
        x = t - turned * _F(0.78515625)
        x = x - turned * _F(2.4187564849853515625e-4)
        x = x - turned * _F(3.77489497744594108e-8)
        square = x * x
        c = _F(2.443315711809948e-5) * square + _F(-1.388731625493765e-3)
        c = c * square + _F(4.166664568298827e-2)
        c = square * c
        c = c * square - square * _F(0.5)
        c = c + _F(1)
        s = _F(-1.9515295891e-4) * square + _F(8.3321608736e-3)
        s = s * square + _F(-1.6666654611e-1)
        s = square * s
        s = s * x + x
        swap = _I(octant & _I2) != 0
        a = s if swap else c
        b = c if swap else s
        cos[i] = -a if _I(_I(octant + _I2) & _I4) != 0 else a
        sin[i] = -b if _I(octant & _I4) != 0 else b


@_contracted
def _scaled(radius: np.ndarray, factor: np.ndarray, mean: float, std: float) -> None:
    for i in range(len(radius)):
        factor[i] = radius[i] * factor[i] * std + mean


@_integers
def _split(words: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
    for g in range(len(first) // 8):
        for i in range(8):
            first[8 * g + i] = words[16 * g + i]
            second[8 * g + i] = words[16 * g + i + 8]


@_integers
def _join(first: np.ndarray, second: np.ndarray, out: np.ndarray) -> None:
    for g in range(len(first) // 8):
        for i in range(8):
            out[16 * g + i] = first[8 * g + i]
            out[16 * g + i + 8] = second[8 * g + i]


@_integers
def box_muller(words: np.ndarray, out: np.ndarray, mean: float, std: float) -> None:
    """Turn groups of 16 words into as many normals by the ``avx2`` kernel, some groups at a time: they stay in cache.

    Parameters
    ----------
    words : array of uint32
        A multiple of 16.
    out : array of float32
        As long.
    mean, std : float32
        Of the normals.
    """
    first, second = np.empty(_PIECE, np.uint32), np.empty(_PIECE, np.uint32)
    rows = np.empty((3, _PIECE), np.float32)
    for start in range(0, len(words), 2 * _PIECE):
        stop = min(start + 2 * _PIECE, len(words))
        half = (stop - start) // 2
        radius, cos, sin = rows[0, :half], rows[1, :half], rows[2, :half]
        _split(words[start:stop], first[:half], second[:half])
        _radius(first[:half], radius)
        _cos_sin(second[:half], cos, sin)
        _scaled(radius, cos, mean, std)
        _scaled(radius, sin, mean, std)
        _join(cos, sin, out[start:stop])


@_integers
def logarithm(values: np.ndarray, out: np.ndarray) -> None:
    """The logarithm that :func:`polar` calls, for the check."""
    for i in range(len(values)):
        out[i] = math.log(values[i])


@_integers
def polar(words: np.ndarray, out: np.ndarray) -> tuple[int, int, float]:
    """Fill the front of ``out`` with pairs of normals by Marsaglia's polar method.

    Returns
    -------
    used, filled : int
        Words used up, and values written.
    kept : float
        The second value of the last pair, where ``out`` had room for one alone.
    """
    filled = used = 0
    kept = 0.0
    while filled < len(out) and used + 4 <= len(words):
        x1 = (_I(words[used] >> _U(5)) * 67108864.0 + _I(words[used + 1] >> _U(6))) * 2.0**-52 - 1.0
        x2 = (_I(words[used + 2] >> _U(5)) * 67108864.0 + _I(words[used + 3] >> _U(6))) * 2.0**-52 - 1.0
        used += 4
        r2 = x1 * x1 + x2 * x2
        if r2 >= 1.0 or r2 == 0.0:
            continue
        factor = math.sqrt(-2.0 * math.log(r2) / r2)
        out[filled] = factor * x2
        kept = factor * x1
        filled += 1
        if filled < len(out):
            out[filled] = kept
            filled += 1
    return used, filled, kept
