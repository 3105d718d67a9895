"""Answers worked out on paper, in both argument orders: a constant shift, one changed pixel, a scaled copy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from parity.errors import UsageError
from parity.metrics import METRICS, Takes, measure

PLAIN = np.full((32, 32, 3), 100, np.uint8)
SHIFTED = PLAIN + np.uint8(16)
DOT = PLAIN.copy()
DOT[5, 7, 0] += 51

X = np.array([[1.0, -2.0], [4.0, 0.0]], np.float32)
UP = X + np.float32(0.5)
TWICE = 2 * X
SPOT = X + np.array([[0, 0], [0, 8]], np.float32)

DECIBEL = 20 * math.log10(255)
SSIM_OF_SHIFT = (2 * 100 * 116 + 2.55**2) / (100**2 + 116**2 + 2.55**2)  # both pictures are flat: luminance alone

PICTURES = [
    ("image_psnr", SHIFTED, DECIBEL - 20 * math.log10(16)),
    ("image_psnr", DOT, DECIBEL - 20 * math.log10(51 / math.sqrt(3072))),
    ("image_window_rms", SHIFTED, 16.0),
    ("image_window_rms", DOT, 51 / math.sqrt(16 * 16 * 3)),
    ("image_ssim", SHIFTED, SSIM_OF_SHIFT),
    ("fuzzy_different_pixels", SHIFTED, 1024.0),
    ("fuzzy_different_pixels", DOT, 1.0),
    ("fuzzy_pixel_delta", SHIFTED, 48.0),
    ("fuzzy_pixel_delta", DOT, 51.0),
    ("fuzzy_channel_delta", SHIFTED, 16.0),
    ("fuzzy_channel_delta", DOT, 51.0),
    ("max_abs", SHIFTED, 16.0),
    ("unequal_share", DOT, 1 / 3072),
    ("abs_p999", DOT, 0.0),
]


@pytest.mark.parametrize(("name", "changed", "value"), PICTURES)
def test_pictures(name: str, changed: np.ndarray, value: float) -> None:
    assert measure(name, PLAIN, changed) == pytest.approx(value, rel=1e-9)
    assert measure(name, changed, PLAIN) == pytest.approx(value, rel=1e-9)  # uint8 arithmetic would wrap in one order


def decibel(ratio: float) -> float:
    return 20 * math.log10(ratio)


TENSORS = [
    # the largest value of X is 4, its rms sqrt(21 / 4)
    ("tensor_psnr", UP, decibel(4 / 0.5), decibel(4.5 / 0.5)),
    ("tensor_psnr", TWICE, decibel(4 / math.sqrt(21 / 4)), decibel(8 / math.sqrt(21 / 4))),
    ("tensor_psnr", SPOT, decibel(4 / 4), decibel(8 / 4)),
    ("snr", TWICE, 0.0, decibel(2)),
    ("snr", SPOT, 10 * math.log10(21 / 64), 10 * math.log10(85 / 64)),
    ("max_abs", UP, 0.5, 0.5),
    ("max_abs", SPOT, 8.0, 8.0),
    ("abs_p50", SPOT, 0.0, 0.0),
    ("abs_p50", TWICE, 1.0, 1.0),  # of 0, 1, 2, 4
    ("abs_p99", TWICE, 4.0, 4.0),
    ("abs_p999", TWICE, 4.0, 4.0),
    ("unequal_share", TWICE, 0.75, 0.75),
    ("unequal_share", SPOT, 0.25, 0.25),
    ("max_ulp", TWICE, 2.0**23, 2.0**23),  # one binade of float32
    ("ulp_p99", TWICE, 2.0**23, 2.0**23),
    ("cosine_distance", TWICE, 0.0, 0.0),
    ("cosine_distance", SPOT, 1 - 21 / math.sqrt(21 * 85), 1 - 21 / math.sqrt(21 * 85)),
    ("cosine_distance", -X, 2.0, 2.0),
    ("psnr_ml_stable_diffusion", TWICE, decibel(8 / math.sqrt(21 / 4)), decibel(4 / math.sqrt(21 / 4))),
    ("psnr_ml_stable_diffusion", X, decibel((4 + 1e-5) / 1e-10), decibel((4 + 1e-5) / 1e-10)),
    ("psnr_coremltools", TWICE, 10 * math.log10(16 / (21 / 2)), 10 * math.log10(64 / (21 / 2))),
    ("psnr_coremltools", X, 10 * math.log10(16 / 1e-10), 10 * math.log10(16 / 1e-10)),
]


@pytest.mark.parametrize(("name", "changed", "forward", "backward"), TENSORS)
def test_tensors(name: str, changed: np.ndarray, forward: float, backward: float) -> None:
    assert measure(name, X, changed) == pytest.approx(forward, rel=1e-5, abs=1e-12)
    assert measure(name, changed, X) == pytest.approx(backward, rel=1e-5, abs=1e-12)


EQUAL = dict.fromkeys(METRICS, 0.0) | {
    "image_psnr": math.inf,
    "tensor_psnr": math.inf,
    "snr": math.inf,
    "image_ssim": 1.0,
    "ssimulacra2": 100.0,
    "psnr_ml_stable_diffusion": decibel((4 + 1e-5) / 1e-10),
    "psnr_coremltools": 10 * math.log10(16 / 1e-10),
}


@pytest.mark.parametrize("name", METRICS)
def test_equal_arrays_have_the_best_value(name: str) -> None:
    metric = METRICS[name]
    same, other = (PLAIN, SHIFTED) if metric.images else (X, UP)
    value = measure(name, same, same.copy())
    assert value == pytest.approx(EQUAL[name], rel=1e-5, abs=1e-6)
    assert metric.passes(value, measure(name, same, other))  # so the declared direction is right
    assert not metric.passes(measure(name, same, other), value)
    if not metric.defects:
        assert value == (metric.most if metric.higher_is_better else metric.least)


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.images])
def test_of_several_pictures_the_worst_counts_or_the_mean(name: str) -> None:
    alone = measure(name, PLAIN, SHIFTED)
    both = measure(name, np.stack([PLAIN, PLAIN]), np.stack([PLAIN, SHIFTED]))
    if name == "image_psnr":
        assert both == pytest.approx(alone + 10 * math.log10(2))
    elif name == "image_ssim":
        assert both == pytest.approx((1 + alone) / 2)
    else:
        assert both == pytest.approx(alone, rel=1e-6)


def test_a_window_at_each_border_is_seen() -> None:
    for y, x in ((0, 0), (0, 16), (16, 0), (16, 16)):
        changed = PLAIN.copy()
        changed[y : y + 16, x : x + 16] += np.uint8(7)
        assert measure("image_window_rms", PLAIN, changed) == 7.0
    assert measure("image_window_rms", PLAIN[:3, :5], SHIFTED[:3, :5]) == 16.0  # smaller than a window


def test_signed_zeros_are_equal_and_ulps_count_across_zero() -> None:
    zero, least = np.zeros(1, np.float16), np.array([np.nextafter(np.float16(0), np.float16(1))])
    assert measure("max_ulp", zero, -zero) == 0.0
    assert measure("max_ulp", least, -least) == 2.0
    largest = np.array([65504], np.float16)
    assert measure("max_ulp", largest, -largest) == 63486.0
    huge = np.array([np.finfo(np.float64).max])
    assert measure("max_ulp", huge, -huge) == 2.0 * 0x7FEFFFFFFFFFFFFF


@pytest.mark.parametrize("name", ["tensor_psnr", "snr"])
def test_extremes_of_decibels(name: str) -> None:
    zero, one = np.zeros(4), np.ones(4)
    assert measure(name, zero, one) == -math.inf
    assert measure(name, zero, zero) == math.inf
    assert measure(name, one, zero) == 0.0
    tiny = np.array([1e-300, 0, 0, 0])  # whose square is zero in float64
    assert measure(name, tiny, 2 * tiny) == pytest.approx(0.0 if name == "snr" else 6.0206, abs=1e-4)
    huge = np.full(4, 1e308)
    assert measure(name, huge, -huge) == -math.inf


def test_the_defects_of_other_projects_are_those_that_are_stated() -> None:
    large = np.full((1, 4, 64, 64), 300, np.float16)
    assert measure("psnr_ml_stable_diffusion", large, -large) == -math.inf  # the square overflows
    assert measure("tensor_psnr", large, -large) == pytest.approx(decibel(0.5))
    a = np.random.default_rng(93).normal(size=(1, 4, 64, 64)).astype(np.float32)
    b = a + np.float32(0.01)
    lost = measure("psnr_coremltools", a.ravel(), b.ravel()) - measure("psnr_coremltools", a, b)
    assert lost == pytest.approx(10 * math.log10(4 * 64 * 64), abs=0.1)
    zero = np.zeros(3, np.float32)
    assert measure("psnr_ml_stable_diffusion", zero, zero) == pytest.approx(100.0)
    assert measure("psnr_coremltools", zero, zero) == pytest.approx(50.0)
    wild = np.array([1, 100], np.float32)  # a candidate that is too large sets its own peak
    assert measure("psnr_ml_stable_diffusion", wild / 100, wild) > measure("tensor_psnr", wild / 100, wild) + 39


def test_formulas_of_other_projects_overflow_in_float16_without_a_warning() -> None:
    """Called by themselves too: warnings of the project's own code are errors in tests."""
    one, large = np.ones(4, np.float16), np.full(4, 300, np.float16)  # the square of 300 leaves float16's range
    for name, expected in (("psnr_ml_stable_diffusion", -math.inf), ("psnr_coremltools", -math.inf)):
        assert measure(name, one, large) == expected
    assert measure("psnr_ml_stable_diffusion", large, -large) == -math.inf
    undefined = measure("psnr_coremltools", large, -large)  # infinity over infinity
    assert math.isnan(undefined)
    assert not METRICS["psnr_coremltools"].passes(undefined, -math.inf)


def test_a_single_number_is_compared_like_an_array_of_one() -> None:
    a, b = np.array(1, np.float32), np.array(1.5, np.float32)
    for name, metric in METRICS.items():
        if not metric.images:
            assert measure(name, a, b) == measure(name, a[None], b[None])


def test_angles_with_nothing_and_between_the_largest_and_the_smallest_numbers() -> None:
    zero, one = np.zeros(2), np.array([1.0, 0.0])
    assert measure("cosine_distance", zero, zero) == 0.0
    assert measure("cosine_distance", zero, one) == measure("cosine_distance", one, zero) == 1.0
    assert measure("cosine_distance", zero, one / 2) == 1.0
    for scale in (1e-300, 1e300):  # whose squares vanish, or overflow
        assert measure("cosine_distance", scale * one, scale * np.array([0.0, 1.0])) == pytest.approx(1.0)
        assert measure("cosine_distance", scale * np.array([1.0, 1.0]), one) == pytest.approx(1 - math.sqrt(0.5))
    x = np.random.default_rng(10).normal(size=50)  # by rounding alone it would be more than 2
    assert measure("cosine_distance", x, -x) == 2.0


@pytest.mark.parametrize("name", METRICS)
def test_bad_arguments_are_refused_in_both_orders(name: str) -> None:
    metric = METRICS[name]
    good = PLAIN if metric.images else X
    wide = np.concatenate([good, good], axis=1)
    for a, b in ((good, wide), (wide, good)):
        with pytest.raises(UsageError, match=f"{name}: shapes differ"):
            measure(name, a, b)
    with pytest.raises(UsageError, match=f"{name}: nothing to compare"):
        measure(name, good[:0], good[:0])
    with pytest.raises(UsageError, match=f"{name}: .*complex64"):
        measure(name, good.astype(np.complex64), good.astype(np.complex64))
    if metric.images:
        for wrong in (good[..., :2], good[..., 0], good[0], good.astype(np.int16), good.T):
            for a, b, role in ((good, wrong, "candidate"), (wrong, good, "reference")):
                with pytest.raises(
                    UsageError, match="shapes differ" if wrong.shape != good.shape else f"{role} is int16"
                ):
                    measure(name, a, b)
            with pytest.raises(UsageError, match=rf"{name}: reference is u?int\d+ \(.*; needed is an 8-bit picture"):
                measure(name, wrong, wrong)
    else:
        for a, b, role in ((X, X.astype(complex), "candidate"), (X.astype(complex), X, "reference")):
            with pytest.raises(UsageError, match=f"{name}: {role} has dtype complex128; real numbers are needed"):
                measure(name, a, b)
    if metric.takes is Takes.FLOATS:
        for a, b in ((X, X.astype(np.float16)), (X.astype(np.float64), X), (X.astype(int), X.astype(int))):
            with pytest.raises(UsageError, match="both float16, both float32 or both float64"):
                measure(name, a, b)
    if metric.smallest > 1:
        small = PLAIN[: metric.smallest - 1]
        with pytest.raises(UsageError, match=f"32x{metric.smallest - 1}; at least {metric.smallest} pixels"):
            measure(name, small, small)
        narrow = np.stack([PLAIN[:, : metric.smallest - 1]] * 2)
        with pytest.raises(UsageError, match=f"{metric.smallest - 1}x32; at least {metric.smallest} pixels"):
            measure(name, narrow, narrow)
        enough = PLAIN[: metric.smallest]
        assert math.isfinite(measure(name, enough, enough))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_noncontiguous_arrays(dtype: type) -> None:
    a: np.ndarray = np.arange(24, dtype=dtype).reshape(2, 3, 4)
    b = a + dtype(1)
    for name in ("max_ulp", "ulp_p99", "tensor_psnr", "snr"):
        assert measure(name, a.T, b.T) == pytest.approx(measure(name, a, b), rel=1e-12)
