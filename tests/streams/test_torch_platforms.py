"""Kernels of wheels that cannot be run here: held against the ones that can, and against what disassembly implies."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from parity import streams
from parity.errors import UnsupportedError
from parity.streams import torch_platforms


def drawn(kernel: str, count: int, **options: float) -> np.ndarray:
    return streams.open("torch-cpu", seed=93, kernel=kernel).normal(count, **options)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere the C library is another one than glibc")
def test_the_c_library_of_this_process_gives_what_the_scalar_kernel_gives() -> None:
    assert np.array_equal(drawn("system-libm", 50_003), drawn("libm", 50_003))


def test_without_fused_operations_a_hundredth_of_the_values_differs_a_little() -> None:
    fused, unfused = drawn("avx2", 1 << 20), drawn("avx2-unfused", 1 << 20)
    differ = fused != unfused
    assert 0.005 < differ.mean() < 0.015  # 0.97 % with MSVC's arithmetic, by emulation
    assert np.abs(fused - unfused).max() < 5e-7
    assert np.abs(fused.view(np.int32)[differ] - unfused.view(np.int32)[differ]).max() <= 3


def test_mean_and_deviation_are_applied_in_two_rounded_steps() -> None:
    plain = drawn("avx2-unfused", 4096)
    expected = plain * np.float32(2.5) + np.float32(0.1)
    assert np.array_equal(drawn("avx2-unfused", 4096, mean=0.1, std=2.5), expected)


def test_a_c_library_without_the_functions_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    torch_platforms._functions.cache_clear()
    monkeypatch.setattr(torch_platforms.ctypes, "CDLL", lambda name: object())
    with pytest.raises(UnsupportedError, match="no logf; use kernel='libm'"):
        drawn("system-libm", 16)
    torch_platforms._functions.cache_clear()
