"""How does torch's CPU code turn 16 float32 uniforms into 16 normals, to the last bit?

Box-Muller on groups of 16: the first eight uniforms give a radius, the last eight an angle; radius times cosine fills
the first eight places, radius times sine the last eight. Two kernels of it ship:

``avx2``
    Hand-vectorised: Cephes polynomials for log, sine and cosine in float32, with fused multiply-adds where GCC
    contracts the intrinsics. x86-64 Linux wheels use it on every CPU with AVX2 (there is no AVX-512 version). The
    Windows wheels, compiled by MSVC, do not contract: :mod:`parity.streams.torch_platforms`.
``libm``
    Scalar: the C library's ``logf``, ``sqrtf``, ``sinf`` and ``cosf``, here glibc's since 2.28. CPUs without AVX2 use
    it, and ``ATEN_CPU_CAPABILITY=default``. aarch64 Linux wheels have it too, but for a fused multiply-add of std and
    mean; macOS performs these operations with the functions of its own C library: those bits are *not verified*.

A fused multiply-add of float32 numbers is done in float64: the product is exact there, so only the sum is rounded
twice. Proved by exhaustion, over all 2**24 uniforms of either half, that this never matters: ``make slow``.

The arrays of a block are made once and lie in the CPU's cache; constants are 0-d arrays, which ufuncs take fastest.
"""

from __future__ import annotations

import abc

import numpy as np

from parity.streams import glibc
from parity.streams.loops import compiled
from parity.streams.mersenne import PEEK

BLOCK = PEEK
"""Most values that one :meth:`Kernel.fill` makes; a multiple of 16."""

_HALF = BLOCK // 2


# Cephes' polynomials, shared by the fused and the unfused kernel
LOG = (
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
LN2_LOW, LN2_HIGH = -2.12194440e-4, 0.693359375
COS = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
SIN = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
OCTANT_PARTS = (0.78515625, 2.4187564849853515625e-4, 3.77489497744594108e-8)
STEPS = np.int32(1 << 24)
SQRT_HALF = np.float32(0.707106781186547524)
TURN = np.float32(float(np.float32(2 * np.pi)) * 2.0**-24)
OCTANTS = np.float32(1.27323954473516)


def _f(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def _d(value: float) -> np.ndarray:
    """A float32 constant, widened."""
    return np.array(np.float32(value), np.float64)


def _i(value: int) -> np.ndarray:
    return np.array(value, np.int32)


_LOG = tuple(_d(p) for p in LOG)
_LN2_LOW, _LN2_HIGH = _f(LN2_LOW), _f(LN2_HIGH)
_SQRT_HALF = _i(0x3F3504F3)  # bits of float32(sqrt(1/2)), where the mantissa's range begins
_SQRT_HALF_24 = _i(0x3F3504F3 + (24 << 23))  # of 2**24 times that
_COS = tuple(_d(c) for c in COS)
_SIN = tuple(_d(s) for s in SIN)
_TURN, _OCTANTS = np.array(TURN), np.array(OCTANTS)
# Cephes subtracts octants * pi/4 in three pieces; the first two steps are exact, so one float64 step does all three
_OCTANT = np.array(OCTANT_PARTS[0] + OCTANT_PARTS[1] + float(np.float32(OCTANT_PARTS[2])))
_ONE, _ZERO, _HALF_F, _HALF_D, _MINUS_TWO = _f(1), _f(0), _f(0.5), np.array(0.5), _f(-2)
_24BITS = np.array(0xFFFFFF, np.uint32)
_2_24 = np.array(STEPS)
_MANTISSA, _23 = _i(0x7FFFFF), _i(23)
_I1, _I4, _EVEN, _29, _30, _31 = _i(1), _i(4), _i(~1), _i(29), _i(30), _i(31)


class Kernel(abc.ABC):
    """Box-Muller on groups of 16 words; subclasses know the radius and the angle.

    Parameters
    ----------
    fused : bool
        Whether standard deviation and mean are applied by a fused multiply-add: always in the ``avx2`` kernel and in
        wheels for arm64, in the scalar one of x86-64 since torch 2.13.
    """

    name: str

    def __init__(self, *, fused: bool = True) -> None:
        self._fused = fused
        self._words = np.empty(BLOCK, np.uint32)
        self._first = np.empty(_HALF, np.int32)
        self._second = np.empty(_HALF, np.int32)
        self._radius = np.empty(_HALF, np.float32)
        self._cos = np.empty(_HALF, np.float32)
        self._sin = np.empty(_HALF, np.float32)

    @abc.abstractmethod
    def radius(self, uniforms: np.ndarray, out: np.ndarray) -> None:
        """Write sqrt(-2 log(1 - u)), where u is ``uniforms`` (int32) times 2**-24, to ``out`` (float32)."""

    @abc.abstractmethod
    def cos_sin(self, uniforms: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> None:
        """Write cosine and sine of 2 pi u, where u is ``uniforms`` (int32) times 2**-24."""

    def fill(self, words: np.ndarray, out: np.ndarray, mean: float, std: float) -> None:
        """Turn words into normals.

        Parameters
        ----------
        words : array of uint32
            At most :data:`BLOCK`, a multiple of 16.
        out : array of float32
            As many, contiguous.
        mean, std : float
            0 and 1 for ``randn``.
        """
        half = len(words) // 2
        low = np.bitwise_and(words, _24BITS, self._words[: 2 * half])
        first, second = self._first[:half], self._second[:half]
        rows = low.view("V32")  # eight words; a copy of such rows is several times faster than one of (n, 8)
        first.view("V32")[...] = rows[0::2]
        second.view("V32")[...] = rows[1::2]
        radius, cos, sin = self._radius[:half], self._cos[:half], self._sin[:half]
        self.radius(first, radius)
        self.cos_sin(second, cos, sin)
        rows = out.view("V32")
        for start, factor in ((0, cos), (1, sin)):
            np.multiply(radius, factor, factor)
            self._scale(factor, mean, std)
            rows[start::2][...] = factor.view("V32")

    def _scale(self, values: np.ndarray, mean: float, std: float) -> None:
        if (mean, std) == (0.0, 1.0):
            np.add(values, _ZERO, values)  # makes -0 into +0
            return
        if not self._fused:
            np.multiply(values, _f(std), values)
            np.add(values, _f(mean), values)
            return
        wide = values.astype(np.float64)
        np.multiply(wide, _d(std), wide)
        np.add(wide, _d(mean), wide)
        values[...] = wide


class Avx2(Kernel):
    """The ``avx2`` kernel."""

    name = "avx2"

    def __init__(self, *, fused: bool = True) -> None:
        super().__init__(fused=fused)
        self._i = [np.empty(_HALF, np.int32) for _ in range(2)]
        self._f = [np.empty(_HALF, np.float32) for _ in range(2)]
        self._d = [np.empty(_HALF, np.float64) for _ in range(3)]

    def fill(self, words: np.ndarray, out: np.ndarray, mean: float, std: float) -> None:
        loops = compiled()
        if loops is None:
            super().fill(words, out, mean, std)
        else:
            loops.box_muller(words, out, np.float32(mean), np.float32(std))

    def radius(self, uniforms: np.ndarray, out: np.ndarray) -> None:
        half = len(uniforms)
        bits, exponent = (i[:half] for i in self._i)
        x, square = (f[:half] for f in self._f)
        wide_x, wide = self._d[0][:half], self._d[1][:half]
        mantissa, scale = bits.view(np.float32), exponent.view(np.float32)
        np.subtract(_2_24, uniforms, bits)
        mantissa[...] = bits
        np.subtract(bits, _SQRT_HALF_24, bits)
        np.right_shift(bits, _23, exponent)
        np.bitwise_and(bits, _MANTISSA, bits)
        np.add(bits, _SQRT_HALF, bits)
        scale[...] = exponent
        np.subtract(mantissa, _ONE, x)
        wide_x[...] = x
        np.multiply(x, x, square)
        np.multiply(wide_x, _LOG[0], wide)
        np.add(wide, _LOG[1], wide)
        for p in _LOG[2:]:
            out[...] = wide
            wide[...] = out
            np.multiply(wide, wide_x, wide)
            np.add(wide, p, wide)
        out[...] = wide
        np.multiply(out, x, out)
        # fma(out, square, low), low = scale * _LN2_LOW rounded
        wide_low = wide_x
        wide[...] = out
        wide_low[...] = square
        np.multiply(wide, wide_low, wide)
        np.multiply(scale, _LN2_LOW, mantissa)
        wide_low[...] = mantissa
        np.add(wide, wide_low, wide)
        out[...] = wide
        np.multiply(square, _HALF_F, square)
        np.subtract(out, square, out)
        np.add(x, out, out)
        np.multiply(scale, _LN2_HIGH, scale)  # exact, so that adding it is a fused multiply-add
        np.add(out, scale, out)
        np.multiply(out, _MINUS_TWO, out)
        np.sqrt(out, out)

    def cos_sin(self, uniforms: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> None:
        half = len(uniforms)
        octant, swap = (i[:half] for i in self._i)
        x, square = (f[:half] for f in self._f)
        wide_x, wide_square, wide = (d[:half] for d in self._d)
        x[...] = uniforms
        np.multiply(x, _TURN, x)
        np.multiply(x, _OCTANTS, square)
        octant[...] = square
        np.add(octant, _I1, octant)
        np.bitwise_and(octant, _EVEN, octant)
        wide_x[...] = x
        wide[...] = octant
        np.multiply(wide, _OCTANT, wide)
        np.subtract(wide_x, wide, wide_x)
        x[...] = wide_x
        wide_x[...] = x
        np.multiply(x, x, square)
        wide_square[...] = square
        for out, (p0, p1, p2) in ((cos, _COS), (sin, _SIN)):
            np.multiply(wide_square, p0, wide)
            np.add(wide, p1, wide)
            out[...] = wide
            wide[...] = out
            np.multiply(wide, wide_square, wide)
            np.add(wide, p2, wide)
            out[...] = wide
            np.multiply(square, out, out)
            wide[...] = out
            if out is cos:  # fma(square, c, -square / 2) + 1; c - 1/2 is exact in float64
                np.subtract(wide, _HALF_D, wide)
                np.multiply(wide, wide_square, wide)
                out[...] = wide
                np.add(out, _ONE, out)
            else:  # fma(x, s, x)
                np.multiply(wide, wide_x, wide)
                np.add(wide, wide_x, wide)
                out[...] = wide
        _rotate(octant, cos.view(np.int32), sin.view(np.int32), swap, square.view(np.int32))


def rotate(octant: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> None:
    """Turn cosine and sine of reduced angles, as bits and in place, into those ``octant`` eighths further on."""
    _rotate(octant, cos, sin, np.empty_like(octant), np.empty_like(octant))


def _rotate(octant: np.ndarray, cos: np.ndarray, sin: np.ndarray, scratch: np.ndarray, swapped: np.ndarray) -> None:
    """Turn the cosine and sine of the reduced angle, given as bits, into those of the angle ``octant`` further on."""
    np.left_shift(octant, _30, scratch)
    np.right_shift(scratch, _31, scratch)  # all ones where octant & 2
    np.bitwise_xor(cos, sin, swapped)
    np.bitwise_and(swapped, scratch, swapped)
    np.bitwise_xor(cos, swapped, cos)
    np.bitwise_xor(sin, swapped, sin)
    np.bitwise_and(octant, _I4, swapped)
    np.left_shift(swapped, _29, swapped)  # the sign bit where octant & 4
    np.bitwise_xor(sin, swapped, sin)
    np.left_shift(scratch, _31, scratch)
    np.bitwise_xor(scratch, swapped, scratch)
    np.bitwise_xor(cos, scratch, cos)


class Libm(Kernel):
    """The ``libm`` kernel, with glibc's functions."""

    name = "libm"

    def radius(self, uniforms: np.ndarray, out: np.ndarray) -> None:
        out[...] = _2_24 - uniforms
        np.multiply(out, _f(2.0**-24), out)
        np.multiply(glibc.logf(out), _MINUS_TWO, out)
        np.sqrt(out, out)

    def cos_sin(self, uniforms: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> None:
        theta = (uniforms * (6.283185307179586 * 2.0**-24)).astype(np.float32)
        cos[...], sin[...] = glibc.cosf_sinf(theta)
