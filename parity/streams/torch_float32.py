"""How does torch's CPU code turn 16 float32 uniforms into 16 normals, to the last bit?

Box-Muller on groups of 16: the first eight uniforms give a radius, the last eight an angle; radius times cosine fills
the first eight places, radius times sine the last eight. Two kernels of it ship:

``avx2``
    Hand-vectorised: Cephes polynomials for log, sine and cosine, in float32 with fused multiply-adds where GCC
    contracts the intrinsics. x86-64 Linux wheels use it on every CPU with AVX2 (there is no AVX-512 version).
``libm``
    Scalar: the C library's ``logf``, ``sqrtf``, ``sinf``, ``cosf``. CPUs without AVX2, ``ATEN_CPU_CAPABILITY=default``,
    and, with another C library, macOS and aarch64.

A fused multiply-add of float32 is done in float64: the product is exact there, so only the sum is rounded twice, and
an exhaustive comparison over all 2**24 uniforms of either half shows that this never matters.
"""

from __future__ import annotations

import numpy as np

BLOCK = 8192
_HALF = BLOCK // 2


def _f(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def _d(value: float) -> np.ndarray:
    """A float32 constant, held as float64 for fused multiply-adds."""
    return np.array(np.float32(value), np.float64)


_LOG = [
    _d(p)
    for p in (
        7.0376836292e-2,
        -1.1514610310e-1,
        1.1676998740e-1,
        -1.2420140846e-1,
        1.4249322787e-1,
        -1.6668057665e-1,
        2.0000714765e-1,
        -2.4999993993e-1,
        3.3333331174e-1,
    )
]
_Q1, _Q2 = _f(-2.12194440e-4), _f(0.693359375)
_SQRT_HALF = np.array(np.float32(0.707106781186547524)).view(np.int32)
_COS = [_d(c) for c in (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)]
_SIN = [_d(s) for s in (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)]
_TWO_PI = np.array(np.float32(2 * np.pi) * np.float32(2**-24))
_FOUR_OVER_PI = _f(1.27323954473516)
_REDUCE = np.array(0.78515625 + 2.4187564849853515625e-4 + float(np.float32(3.77489497744594108e-8)))
_24 = np.array(24, np.int32)
_23 = np.array(23, np.int32)


def _fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    return (a.astype(np.float64) * b + c).astype(np.float32)


class Avx2:
    """The ``avx2`` kernel."""

    def radius(self, words: np.ndarray) -> np.ndarray:
        """sqrt(-2 log(1 - u)) for u = words * 2**-24."""
        v = (np.uint32(1 << 24) - words).astype(np.float32).view(np.int32)
        d = v - _SQRT_HALF
        k = d >> _23
        m = (v - (k << _23)).view(np.float32)
        e = (k - _24).astype(np.float32)
        x = m - np.float32(1)
        z = x * x
        y = _LOG[0]
        for p in _LOG[1:]:
            y = _fma(y, x, p)
        y = y * x
        y = _fma(y, z, e * _Q1)
        y = y - z * np.float32(0.5)
        y = x + y
        y = y + e * _Q2
        return np.sqrt(np.float32(-2) * y)

    def cos_sin(self, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cosine and sine of 2 pi u for u = words * 2**-24."""
        t = words.astype(np.float32) * _TWO_PI
        j = ((t * _FOUR_OVER_PI).astype(np.int32) + 1) & ~1
        x = (t - j * _REDUCE).astype(np.float32)
        z = x * x
        c = _fma(_COS[0], z, _COS[1])
        c = _fma(c, z, _COS[2])
        c = z * c
        c = _fma(z, c, z * np.float32(-0.5))
        c = c + np.float32(1)
        s = _fma(_SIN[0], z, _SIN[1])
        s = _fma(s, z, _SIN[2])
        s = z * s
        s = _fma(x, s, x)
        swap = (j & 2) != 0
        cos = np.where(swap, s, c)
        sin = np.where(swap, c, s)
        cos = np.where((j + 2) & 4, -cos, cos)
        sin = np.where(j & 4, -sin, sin)
        return cos, sin

    def fill(self, words: np.ndarray, out: np.ndarray, mean: float, std: float) -> None:
        w = (words & np.uint32(0xFFFFFF)).reshape(-1, 2, 8)
        r = self.radius(w[:, 0])
        c, s = self.cos_sin(w[:, 1])
        o = out.reshape(-1, 2, 8)
        o[:, 0] = _fma(r * c, np.float32(std), np.float32(mean))
        o[:, 1] = _fma(r * s, np.float32(std), np.float32(mean))
