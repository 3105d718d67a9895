"""Closed-form answers, both argument orders, and the traps other suites fell into."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from parity.errors import UsageError
from parity.metrics import METRICS, measure

RNG = np.random.default_rng(93)


def picture(value: int) -> np.ndarray:
    return np.full((1, 16, 16, 3), value, np.uint8)


@pytest.mark.parametrize(("a", "b", "decibel"), [(0, 255, 0.0), (0, 16, 20 * math.log10(255 / 16)), (7, 6, 48.1308)])
def test_image_psnr_of_a_constant_offset(a: int, b: int, decibel: float) -> None:
    # uint8 arithmetic would wrap: 6 - 7 = 255
    assert measure("image_psnr", picture(a), picture(b)) == pytest.approx(decibel, abs=1e-4)
    assert measure("image_psnr", picture(b), picture(a)) == pytest.approx(decibel, abs=1e-4)


def test_equal_pictures_give_infinity_and_full_similarity() -> None:
    assert measure("image_psnr", picture(9), picture(9)) == math.inf
    assert measure("image_ssim", picture(9), picture(9)) == pytest.approx(1.0)


def test_image_metrics_are_those_of_scikit_image() -> None:
    a = RNG.integers(0, 256, (32, 40, 3), dtype=np.uint8)
    b = np.clip(a + RNG.normal(0, 20, a.shape), 0, 255).astype(np.uint8)
    assert measure("image_psnr", a, b) == pytest.approx(peak_signal_noise_ratio(a, b), rel=1e-12)
    expected = structural_similarity(a, b, channel_axis=-1, gaussian_weights=True, sigma=1.5)
    assert measure("image_ssim", a, b) == pytest.approx(expected, rel=1e-9)


def test_tensor_psnr_takes_its_peak_from_the_reference() -> None:
    reference, candidate = np.array([1.0, -2.0]), np.array([1.0, -4.0])
    assert measure("tensor_psnr", reference, candidate) == pytest.approx(20 * math.log10(2 / math.sqrt(2)))
    assert measure("tensor_psnr", candidate, reference) == pytest.approx(20 * math.log10(4 / math.sqrt(2)))


def test_tensor_psnr_does_not_depend_on_rank_or_memory_order() -> None:
    a = RNG.normal(size=(2, 3, 4, 5)).astype(np.float32)
    b = a + RNG.normal(scale=0.01, size=a.shape).astype(np.float32)
    value = measure("tensor_psnr", a, b)
    assert measure("tensor_psnr", a.ravel(), b.ravel()) == pytest.approx(value, rel=1e-12)
    assert measure("tensor_psnr", a.transpose(3, 1, 0, 2), b.transpose(3, 1, 0, 2)) == pytest.approx(value, rel=1e-12)


def test_half_precision_is_compared_in_float64() -> None:
    a = np.full(8, 300.0, np.float16)  # 600**2 overflows float16
    assert measure("max_abs", a, -a) == 600.0
    assert math.isfinite(measure("tensor_psnr", a, -a))


def test_cosine_distance() -> None:
    x, y = np.array([1.0, 0.0]), np.array([0.0, 3.0])
    assert measure("cosine_distance", x, y) == pytest.approx(1.0)
    assert measure("cosine_distance", x, 5 * x) == 0.0
    assert measure("cosine_distance", x, -x) == pytest.approx(2.0)
    assert measure("cosine_distance", x, np.array([1.0, 1e-9])) == pytest.approx(5e-19, rel=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", [n for n, m in METRICS.items() if not m.images])
def test_values_that_are_not_finite_satisfy_no_bound(name: str, bad: float) -> None:
    good, broken = np.ones(4), np.array([1.0, 1.0, bad, 1.0])
    for pair in ((good, broken), (broken, good), (broken, broken)):
        value = measure(name, *pair)
        assert math.isnan(value)
        assert not METRICS[name].passes(value, -math.inf)
        assert not METRICS[name].passes(value, math.inf)


@pytest.mark.parametrize(
    ("name", "a", "b", "says"),
    [
        ("max_abs", np.ones((2, 1)), np.ones((2, 3)), "shapes differ"),
        ("max_abs", np.ones(0), np.ones(0), "nothing to compare"),
        ("max_abs", np.ones(2, complex), np.ones(2), "complex128"),
        ("image_psnr", np.ones((4, 4, 3)), np.ones((4, 4, 3)), "8-bit picture"),
        ("image_psnr", np.ones((4, 4), np.uint8), np.ones((4, 4), np.uint8), "8-bit picture"),
        ("lpips", np.ones(2), np.ones(2), "image_psnr"),
    ],
)
def test_bad_arguments_are_refused(name: str, a: np.ndarray, b: np.ndarray, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        measure(name, a, b)


@given(
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=30),
    st.floats(0.001, 10),
    st.sampled_from(list(METRICS)),
)
def test_symmetry_is_as_declared(values: list[float], shift: float, name: str) -> None:
    metric = METRICS[name]
    if metric.images or not metric.symmetric:
        return
    a, b = np.array(values), np.array(values) + shift
    assert measure(name, a, b) == pytest.approx(measure(name, b, a), rel=1e-12)
