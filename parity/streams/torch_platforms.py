"""How do the kernels of wheels that cannot be run here turn uniforms into normals?

``avx2-unfused``
    Windows x86-64: MSVC compiles the source of the ``avx2`` kernel without contracting products and sums, so every
    operation is rounded by itself. Known from the disassembly of torch_cpu.dll 2.13.0; *its values were never seen*.
    It differs from ``avx2`` in about 1 % of values, by at most 3 units in the last place (tested).
``system-libm``
    macOS and Linux without glibc 2.28: the operations of the ``libm`` kernel with the ``logf``, ``sinf`` and ``cosf``
    of the C library that this process runs on, called one by one. On glibc it equals ``libm`` (tested); on a Mac it is
    what torch's arm64 wheel calls by its disassembly, fused multiply-add of std and mean included, *not verified on
    hardware*.

aarch64 Linux needs no kernel of its own: its wheels have the ``libm`` kernel with ``fused=True`` (recorded values of
five releases).
"""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Callable
from functools import cache

import numpy as np

from parity.errors import UnsupportedError
from parity.streams import torch_float32 as fused
from parity.streams.torch_float32 import Kernel


class Unfused(Kernel):
    """The ``avx2`` kernel with each product and each sum rounded to float32."""

    name = "avx2-unfused"

    def __init__(self, *, fused: bool = False) -> None:
        super().__init__(fused=False)

    def radius(self, uniforms: np.ndarray, out: np.ndarray) -> None:
        """Write sqrt(-2 log(1 - u)), see :meth:`parity.streams.torch_float32.Kernel.radius`."""
        mantissa, exponent = np.frexp((fused.STEPS - uniforms).astype(np.float32))
        small = mantissa < fused.SQRT_HALF
        scale = exponent.astype(np.float32) - np.float32(24) - small.astype(np.float32)
        x = np.where(small, mantissa + mantissa, mantissa) - np.float32(1)
        square = x * x
        y = np.full_like(x, fused.LOG[0])
        for p in fused.LOG[1:]:
            y = y * x + np.float32(p)
        y = y * x * square + scale * np.float32(fused.LN2_LOW)
        y = x + (y - square * np.float32(0.5)) + scale * np.float32(fused.LN2_HIGH)
        np.sqrt(y * np.float32(-2), out)

    def cos_sin(self, uniforms: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> None:
        """Write cosine and sine, see :meth:`parity.streams.torch_float32.Kernel.cos_sin`."""
        x = uniforms.astype(np.float32) * fused.TURN
        octant = ((x * fused.OCTANTS).astype(np.int32) + 1) & ~1
        turned = octant.astype(np.float32)
        for part in fused.OCTANT_PARTS:
            x = x - turned * np.float32(part)
        square = x * x
        c0, c1, c2 = (np.float32(c) for c in fused.COS)
        s0, s1, s2 = (np.float32(s) for s in fused.SIN)
        cos[...] = ((c0 * square + c1) * square + c2) * square * square - square * np.float32(0.5) + np.float32(1)
        sin[...] = ((s0 * square + s1) * square + s2) * square * x + x
        fused.rotate(octant, cos.view(np.int32), sin.view(np.int32))


@cache
def _functions() -> dict[str, Callable[[float], float]]:
    library = ctypes.CDLL(ctypes.util.find_library("m"))
    found: dict[str, Callable[[float], float]] = {}
    for name in ("logf", "sinf", "cosf"):
        function = getattr(library, name, None)
        if function is None:
            raise UnsupportedError(f"kernel system-libm: this process's C library has no {name}; use kernel='libm'")
        function.argtypes, function.restype = [ctypes.c_float], ctypes.c_float
        found[name] = function
    return found


def _mapped(name: str, values: np.ndarray) -> np.ndarray:
    return np.fromiter(map(_functions()[name], values.tolist()), np.float32, values.size)


class SystemLibm(Kernel):
    """The ``libm`` kernel with the C library of this process."""

    name = "system-libm"

    def radius(self, uniforms: np.ndarray, out: np.ndarray) -> None:
        """Write sqrt(-2 log(1 - u)), see :meth:`parity.streams.torch_float32.Kernel.radius`."""
        remaining = (fused.STEPS - uniforms).astype(np.float32) * np.float32(2.0**-24)
        np.sqrt(_mapped("logf", remaining) * np.float32(-2), out)

    def cos_sin(self, uniforms: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> None:
        """Write cosine and sine, see :meth:`parity.streams.torch_float32.Kernel.cos_sin`."""
        theta = (uniforms * (6.283185307179586 * 2.0**-24)).astype(np.float32)
        cos[...], sin[...] = _mapped("cosf", theta), _mapped("sinf", theta)


KERNELS: dict[str, type[Kernel]] = {kind.name: kind for kind in (fused.Avx2, fused.Libm, Unfused, SystemLibm)}
"""All kernels of float32 normals by name."""

SCALAR = ("libm", "system-libm")
"""Those whose wheels differ in whether std and mean are applied by one fused multiply-add."""
