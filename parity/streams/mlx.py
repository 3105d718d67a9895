"""``mlx.core.random``: normal, uniform and randint, to the bit of MLX on Linux CPUs.

MLX has no generator but keys, pairs of 32-bit words. ``mx.random.seed(s)`` sets a default key, which each call without
a key splits: it draws with the second half and keeps the first. ``mx.random.key(s)``, handed to a call, is used as it
is (``split=False``); so mflux draws its latents.

1. A word becomes a uniform by division by 2**32 - 1, below 1.
2. A normal is sqrt(2) times the inverse error function of a uniform on (-1, 1), by two polynomials in float32 with
   fused multiply-adds and a logarithm.
3. Half types are rounded from float32 before they are scaled.

Proved by test against MLX (Linux, CPU). On Apple GPUs words and uniforms are the same by construction; normals call
``metal::log``, whose last bit is *not verified on hardware*.

Source: mlx/random.cpp and mlx/backend/cpu/unary_ops.h of MLX 0.32.
"""

from __future__ import annotations

import math

import numpy as np

from parity.errors import UsageError
from parity.streams import glibc
from parity.streams.seeds import bounded_seed
from parity.streams.stream import Shape, Stream
from parity.streams.threefry import Key, split_by_halves, words_by_halves
from parity.streams.torch_half import rounded

_CHUNK = 1 << 14
_BELOW_ONE = {"float32": 1 - 2.0**-24, "float16": 1 - 2.0**-11, "bfloat16": 1 - 2.0**-8}
_ABOVE_MINUS_ONE = np.nextafter(np.float32(-1), np.float32(0))
_F = np.float32

# erfinv(a) = a p(log(1 - a**2)), p by size of the logarithm
_TAIL_FROM = np.float32(6.125)
_TAIL = (
    *(3.03697567e-10, 2.93243101e-8, 1.22150334e-6, 2.84108955e-5, 3.93552968e-4),
    *(3.02698812e-3, 4.83185798e-3, -2.64646143e-1, 8.40016484e-1),
)
_CENTRE = (
    *(5.43877832e-9, 1.43285448e-7, 1.22774793e-6, 1.12963626e-7, -5.61530760e-5),
    *(-1.47697632e-4, 2.31468678e-3, 1.15392581e-2, -2.32015476e-1, 8.86226892e-1),
)


class MLX(Stream):
    """The stream of ``mlx.core.random`` after ``mx.random.seed(seed)``, or of one key.

    Parameters
    ----------
    seed : int
        0 to 2**64 - 1.
    split : bool
        True: calls without a key, after ``mx.random.seed``. False: each call is given ``mx.random.key(seed)``, so that
        it draws the same words again.
    """

    name = "mlx"
    dtypes = ("float32", "float16", "bfloat16")

    def __init__(self, seed: int, *, split: bool = True) -> None:
        seed = bounded_seed(seed, 0, 2**64 - 1, self.name)
        self._key: Key = (seed >> 32, seed & 0xFFFFFFFF)
        self._split = split

    def normal(self, shape: Shape, *, dtype: str | None = None, mean: float = 0.0, std: float = 1.0) -> np.ndarray:
        """Draw as ``mx.random.normal(shape, dtype, loc=mean, scale=std)`` does. See the protocol."""
        kind = self._dtype(dtype)
        out = self._empty(shape, kind)
        flat, words = out.reshape(-1), self._words(out.size)
        scale = _scalar(math.sqrt(2.0), kind)
        if std != 1.0:
            scale = _round(scale * _scalar(std, kind), kind)
        for start in range(0, out.size, _CHUNK):
            part = words[start : start + _CHUNK]
            values = _round(_erfinv(_span(_uniform(part), _ABOVE_MINUS_ONE)), kind)
            values = _round(scale * values, kind)
            flat[start : start + len(part)] = values if mean == 0.0 else _round(_scalar(mean, kind) + values, kind)
        return out

    def uniform(self, shape: Shape, *, dtype: str | None = None) -> np.ndarray:
        """Draw as ``mx.random.uniform(0, 1, shape, dtype)`` does."""
        kind = self._dtype(dtype)
        out = self._empty(shape, kind)
        values = rounded(_uniform(self._words(out.size)), kind)
        out.reshape(-1)[...] = np.minimum(values, values.dtype.type(_BELOW_ONE[kind]))
        return out

    def integers(self, low: int, high: int, shape: Shape) -> np.ndarray:
        """Draw as ``mx.random.randint(low, high, shape)`` does, as int64: the floor of uniforms in float32."""
        out = self._empty(shape, "int64")
        if not -(2**31) <= low < high < 2**31:
            raise UsageError(f"integers from {low} to {high}: MLX takes -2**31 <= low < high < 2**31")
        values = (_F(high) - _F(low)) * _uniform(self._words(out.size)) + _F(low)
        out.reshape(-1)[...] = np.clip(np.floor(values).astype(np.int64), low, high - 1)
        return out

    def _words(self, count: int) -> np.ndarray:
        if not self._split:
            return words_by_halves(self._key, count)
        self._key, drawing = split_by_halves(self._key)
        return words_by_halves(drawing, count)


def _round(values: np.ndarray, kind: str) -> np.ndarray:
    """Round to a dtype; the result is float32 all the same."""
    return rounded(values, kind).astype(_F, copy=False)


def _scalar(value: float, kind: str) -> np.ndarray:
    return _round(np.array([value], _F), kind)


def _uniform(words: np.ndarray) -> np.ndarray:
    return np.minimum(words.astype(_F) / _F(2**32 - 1), _F(_BELOW_ONE["float32"]))


def _span(uniform: np.ndarray, low: np.float32) -> np.ndarray:
    return (_F(1) - low) * uniform + low


def _erfinv(a: np.ndarray) -> np.ndarray:
    wide = a.astype(np.float64)
    t = glibc.logf((1.0 - wide * wide).astype(_F))  # a fused multiply-add: the product is exact in float64
    far = np.abs(t) > _TAIL_FROM
    p = _polynomial(_CENTRE, t)
    if far.any():
        p[far] = _polynomial(_TAIL, t[far])
    return a * p


def _polynomial(coefficients: tuple[float, ...], t: np.ndarray) -> np.ndarray:
    """Horner's rule in float32, each step a fused multiply-add by way of float64."""
    wide = t.astype(np.float64)
    value = np.full_like(t, coefficients[0])
    for coefficient in coefficients[1:]:
        value = (value.astype(np.float64) * wide + np.float64(_F(coefficient))).astype(_F)
    return value
