"""The C library's functions and fused multiply-add, re-created on arrays."""

from __future__ import annotations

import ctypes
import math
import platform
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.streams import exact, glibc
from parity.streams.detect import torch_cpu
from parity.streams.logarithm import Logarithm
from parity.streams.torch_engine import TorchEngine
from parity.streams.torch_platforms import KERNELS

GLIBC = platform.libc_ver()[0] == "glibc"


def _log(values: np.ndarray) -> np.ndarray:
    return np.fromiter(map(math.log, values.tolist()), np.float64, len(values))


def _arguments(count: int, seed: int) -> np.ndarray:
    """(0, 1], plenty of them near 0, near 1 and at the edges of the tables' cells."""
    uniform = np.random.default_rng(seed).random(count)
    cells = np.nextafter(np.arange(1, 8193) / 8192, [[0.0], [2.0]]).reshape(-1)
    edges = np.array([1.0, 5e-324, 2.0**-1022, 2.0**-8, 1 - 2.0**-53, 1 - 2.0**-10, 0.5, 0.25])
    return np.concatenate([1.0 - uniform, uniform[: count // 8] ** 9, 1 - uniform[: count // 8] / 512, cells, edges])


@pytest.mark.parametrize("count", [400_000, pytest.param(10**7, marks=pytest.mark.slow)])
def test_logarithm_is_that_of_libm(count: int) -> None:
    x = _arguments(count, seed=93)
    x = x[(x > 0) & (x <= 1)]
    assert np.array_equal(Logarithm()(x, np.empty_like(x)), _log(x))


def test_chosen_functions_are_those_of_libm() -> None:
    angles = np.random.default_rng(93).random(100_000) * 2 * math.pi
    for ours, theirs in ((exact.sin, math.sin), (exact.cos, math.cos)):
        expected = np.fromiter(map(theirs, angles.tolist()), np.float64, len(angles))
        assert np.array_equal(ours(angles, np.empty_like(angles)), expected)
    x = 1.0 - angles / 7
    assert np.array_equal(exact.logarithm()(x, np.empty_like(x)), _log(x))


NUMBERS = st.floats(-1e6, 1e6, allow_subnormal=False).filter(lambda x: x == 0 or abs(x) > 1e-60)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(NUMBERS, NUMBERS, NUMBERS)
def test_fma_is_rounded_once(a: float, b: float, c: float) -> None:
    expected = float(Fraction(a) * Fraction(b) + Fraction(c))
    assert exact.fma(np.array([a]), b, c)[0] == expected


def test_fma_in_hard_cases() -> None:
    """Sums so close to half a unit in the last place that rounding twice would go wrong."""
    ulp = 2.0**-52
    for sign in (1.0, -1.0):
        b = 1.0 + ulp
        a = np.array([0.5 * ulp * sign])
        assert exact.fma(a, b, 1.0)[0] == float(Fraction(a[0]) * Fraction(b) + 1)
        assert exact.fma(a, 1.0 - ulp / 2, 1.0)[0] == float(Fraction(a[0]) * Fraction(1.0 - ulp / 2) + 1)


def _libm(name: str, values: np.ndarray) -> np.ndarray:
    function = getattr(ctypes.CDLL("libm.so.6"), name)
    function.argtypes, function.restype = [ctypes.c_float], ctypes.c_float
    return np.fromiter(map(function, values.tolist()), np.float32, len(values))


@pytest.mark.skipif(not GLIBC, reason="this machine's C library is not glibc")
@pytest.mark.parametrize("step", [499, pytest.param(1, marks=pytest.mark.slow)])
def test_glibc_functions_over_all_uniforms(step: int) -> None:
    uniforms = np.arange(0, 1 << 24, step)
    for part in np.array_split(uniforms, max(1, len(uniforms) >> 20)):
        x = (1.0 - part * 2.0**-24).astype(np.float32)
        theta = (6.283185307179586 * (part * 2.0**-24)).astype(np.float32)
        cos, sin = glibc.cosf_sinf(theta)
        for name, argument, ours in (("logf", x, glibc.logf(x)), ("cosf", theta, cos), ("sinf", theta, sin)):
            assert ours.tobytes() == _libm(name, argument).tobytes(), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("half", "fixed"),
    [
        pytest.param("radius", 0, id="radius at angle 0"),
        pytest.param("angle", 1 << 22, id="angle at a radius of 0.76"),
        pytest.param("angle", 0xFFFFFF, id="angle at a radius of 5.77"),
    ],
)
def test_kernel_over_all_uniforms(half: str, fixed: int) -> None:
    """Every one of the 2**24 uniforms of either half, through torch's own kernel.

    The kernel only runs behind the generator, so the generator's state is set to words that temper to the uniforms
    wanted.
    """
    found = torch_cpu()
    if found.kernel is None:
        pytest.skip("this machine's torch has none of the kernels")
    kernel, generator = KERNELS[found.kernel](), torch.Generator()
    count = 38 * 16
    state = TorchEngine(0).export_state()
    state[8:12].view("<i4")[...] = 624  # words left: all but the first
    state[16:24].view("<u8")[...] = 1
    key = state[24 : 24 + 8 * 624].view("<u8")
    ours = np.empty(count, np.float32)
    for start in range(0, 1 << 24, count // 2):
        wanted = np.minimum(np.arange(start, start + count // 2), (1 << 24) - 1).astype(np.uint32).reshape(-1, 8)
        other = np.full_like(wanted, fixed)
        words = np.stack([wanted, other] if half == "radius" else [other, wanted], axis=1).reshape(-1)
        key[1 : count + 1] = _untempered(words)
        generator.set_state(torch.from_numpy(state))
        kernel.fill(words, ours, 0.0, 1.0)
        assert ours.tobytes() == torch.randn(count, generator=generator).numpy().tobytes(), start


def _untempered(words: np.ndarray) -> np.ndarray:
    """Invert MT19937's tempering."""
    y = words ^ (words >> np.uint32(18))
    y = y ^ ((y << np.uint32(15)) & np.uint32(0xEFC60000))
    x = y
    for _ in range(5):
        x = y ^ ((x << np.uint32(7)) & np.uint32(0x9D2C5680))
    y = x
    for _ in range(3):
        y = x ^ (y >> np.uint32(11))
    return y
