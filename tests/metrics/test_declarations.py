"""What a metric declares decides verdicts, and lies outside every formula: so it is written down here once more.

A direction or a symmetry that is turned round, an end that is moved, or another dtype rule changes what passes; tests
that ask the metric itself for its direction cannot see that.
"""

from __future__ import annotations

import dataclasses
import importlib
import math

import numpy as np
import pytest

from parity.metrics import METRICS, Metric, Takes, flip, measure, registry

HIGHER, LOWER, SYMMETRIC, DIRECTED = True, False, True, False
LARGEST_ULP = 2.0**64

DECLARED = {  # unit, direction, symmetry, arguments, least and largest value, smallest side of a picture
    "image_psnr": ("dB", HIGHER, SYMMETRIC, Takes.PICTURE, 0.0, math.inf, 1),
    "tensor_psnr": ("dB", HIGHER, DIRECTED, Takes.REAL, -math.inf, math.inf, 1),
    "image_window_rms": ("levels", LOWER, SYMMETRIC, Takes.PICTURE, 0.0, 255.0, 1),
    "flip_mean": ("", LOWER, SYMMETRIC, Takes.PICTURE, 0.0, 1.0, 1),
    "flip_max": ("", LOWER, SYMMETRIC, Takes.PICTURE, 0.0, 1.0, 1),
    "ssimulacra2": ("", HIGHER, DIRECTED, Takes.PICTURE, -math.inf, 100.0, 8),
    "image_ssim": ("", HIGHER, SYMMETRIC, Takes.PICTURE, -1.0, 1.0, 11),
    "fuzzy_different_pixels": ("pixels", LOWER, SYMMETRIC, Takes.PICTURE, 0.0, math.inf, 1),
    "fuzzy_pixel_delta": ("levels", LOWER, SYMMETRIC, Takes.PICTURE, 0.0, 765.0, 1),
    "fuzzy_channel_delta": ("levels", LOWER, SYMMETRIC, Takes.PICTURE, 0.0, 255.0, 1),
    "snr": ("dB", HIGHER, DIRECTED, Takes.REAL, -math.inf, math.inf, 1),
    "max_abs": ("", LOWER, SYMMETRIC, Takes.REAL, 0.0, math.inf, 1),
    "abs_p50": ("", LOWER, SYMMETRIC, Takes.REAL, 0.0, math.inf, 1),
    "abs_p99": ("", LOWER, SYMMETRIC, Takes.REAL, 0.0, math.inf, 1),
    "abs_p999": ("", LOWER, SYMMETRIC, Takes.REAL, 0.0, math.inf, 1),
    "unequal_share": ("", LOWER, SYMMETRIC, Takes.REAL, 0.0, 1.0, 1),
    "max_ulp": ("ulp", LOWER, SYMMETRIC, Takes.FLOATS, 0.0, LARGEST_ULP, 1),
    "ulp_p99": ("ulp", LOWER, SYMMETRIC, Takes.FLOATS, 0.0, LARGEST_ULP, 1),
    "cosine_distance": ("", LOWER, SYMMETRIC, Takes.REAL, 0.0, 2.0, 1),
    "psnr_ml_stable_diffusion": ("dB", HIGHER, DIRECTED, Takes.FLOATS, -math.inf, 6366.0, 1),
    "psnr_coremltools": ("dB", HIGHER, DIRECTED, Takes.FLOATS, -math.inf, 3183.0, 1),
}


@pytest.mark.parametrize("name", DECLARED)
def test_what_a_metric_declares(name: str) -> None:
    metric = METRICS[name]
    found = (metric.unit, metric.higher_is_better, metric.symmetric, metric.takes, metric.least, metric.most)
    assert (*found, metric.smallest) == DECLARED[name]
    assert metric.images is (metric.takes is Takes.PICTURE)


def test_a_new_metric_is_written_down_here() -> None:
    assert list(METRICS) == list(DECLARED)


@pytest.mark.parametrize("name", DECLARED)
def test_a_value_at_its_bound_passes_and_the_next_worse_one_does_not(name: str) -> None:
    metric, bound = METRICS[name], 0.5
    better, worse = (0.6, 0.4) if DECLARED[name][1] else (0.4, 0.6)
    assert metric.passes(bound, bound)
    assert metric.passes(better, bound)
    assert not metric.passes(worse, bound)
    assert not metric.passes(math.nan, bound)


@pytest.mark.parametrize(("changed", "share"), [(0, 0.0), (1, 0.125), (2, 0.25), (8, 1.0)])
def test_the_share_of_unequal_elements_is_not_that_of_equal_ones(changed: int, share: float) -> None:
    reference, candidate = np.zeros(8), np.zeros(8)
    candidate[:changed] = 3
    assert measure("unequal_share", reference, candidate) == share


@pytest.mark.parametrize(("name", "largest"), [("abs_p50", 50), ("abs_p99", 99), ("max_abs", 100)])
def test_quantiles_are_of_the_share_that_their_names_say(name: str, largest: float) -> None:
    candidate = np.arange(1.0, 101.0)
    assert measure(name, np.zeros(100), np.random.default_rng(0).permutation(candidate)) == largest


def test_the_last_quantile_leaves_out_one_of_a_thousand() -> None:
    candidate = np.arange(1.0, 1001.0)
    assert measure("abs_p999", np.zeros(1000), candidate) == 999
    assert measure("ulp_p99", np.zeros(100, np.float32), np.arange(1, 101, dtype=np.int32).view(np.float32)) == 99


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("image_psnr", 41.234, "41.23 dB"),
        ("image_psnr", math.inf, "inf dB"),
        ("max_abs", 0.0123456, "0.0123"),
        ("image_window_rms", 3.14159, "3.14 levels"),
    ],
)
def test_how_a_value_is_shown(name: str, value: float, text: str) -> None:
    assert METRICS[name].format(value) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("image_psnr", "0 dB to infinity"),
        ("tensor_psnr", "-infinity to infinity"),
        ("image_window_rms", "0 levels to 255 levels"),
        ("image_ssim", "-1 to 1"),
    ],
)
def test_how_a_range_is_shown(name: str, text: str) -> None:
    assert METRICS[name].range == text


def again(name: str) -> Metric:
    """Return a declaration made anew: it is made while a module is imported, long before any test begins."""
    (file,) = (file for file in registry._FILES if any(metric.name == name for metric in file.METRICS))
    (metric,) = (metric for metric in importlib.reload(file).METRICS if metric.name == name)
    return metric


@pytest.mark.parametrize("name", DECLARED)
def test_functions_that_declare_several_metrics(name: str) -> None:
    made, known = again(name), METRICS[name]
    for field in dataclasses.fields(known):
        if field.name not in ("function", "prepare"):
            assert getattr(made, field.name) == getattr(known, field.name)
    made.prepare()  # the library is here
    same = np.full((16, 16, 3), 100, np.uint8) if made.images else np.ones(4, np.float32)
    wide = same if made.takes is Takes.FLOATS else same.astype(np.float64)
    assert made.function(wide, wide) == known.function(wide, wide)


@pytest.mark.parametrize(("name", "q"), [("abs_p50", 0.5), ("abs_p99", 0.99), ("abs_p999", 0.999)])
def test_texts_of_quantiles(name: str, q: float) -> None:
    made = again(name)
    assert made.equal == "0; so has a difference in fewer elements than the share left out"
    assert (made.worst, made.unit) == ("without end", "")
    assert made.convention == f"least absolute difference that {q:.1%} of the elements do not exceed"
    assert made.function(np.zeros(1000), np.arange(1.0, 1001.0)) == 1000 * q


@pytest.mark.parametrize(("name", "of"), [("flip_mean", "mean"), ("flip_max", "largest value")])
def test_texts_of_flip(name: str, of: str) -> None:
    made = again(name)
    assert (made.equal, made.worst) == ("0", "1: green against blue; black against white is 0.967")
    assert made.convention == f"{of} of LDR-FLIP's error map, 67.02 pixels per degree; of several pictures the worst"
    assert made.prepare is flip.library
