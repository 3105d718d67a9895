"""What each metric declares about itself is true: symmetry, range, direction; more noise is never better."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from parity.metrics import METRICS, measure
from parity.metrics.registry import names

TENSOR = [name for name, metric in METRICS.items() if not metric.images]
PICTURE = [name for name, metric in METRICS.items() if metric.images]
QUICK = [name for name in PICTURE if name.startswith(("image_psnr", "image_window", "fuzzy"))]
SLOW = [name for name in PICTURE if name not in QUICK]

whole = arrays(np.int16, (2, 6), elements=st.integers(-40, 40))


def holds(name: str, value: float) -> bool:
    return METRICS[name].least <= value <= METRICS[name].most


@settings(max_examples=40)
@given(a=whole, b=whole)
@pytest.mark.parametrize("name", TENSOR)
def test_tensors_range_and_symmetry(name: str, a: np.ndarray, b: np.ndarray) -> None:
    x, y = a.astype(np.float32), b.astype(np.float32) / 8
    value = measure(name, x, y)
    assert holds(name, value)
    if METRICS[name].symmetric:
        assert measure(name, y, x) == value


@settings(max_examples=40)
@given(a=whole, noise=whole)
@pytest.mark.parametrize("name", [name for name in TENSOR if name != "psnr_ml_stable_diffusion"])
def test_tensors_more_noise_is_never_better(name: str, a: np.ndarray, noise: np.ndarray) -> None:
    values = [measure(name, a.astype(np.float64), a + k * noise.astype(np.float64)) for k in (0, 1, 2, 5)]
    direction = 1 if METRICS[name].higher_is_better else -1
    for less, more in pairwise(values):
        assert direction * more <= direction * less or math.isclose(more, less, rel_tol=1e-9, abs_tol=1e-12)


def test_more_noise_can_be_better_where_the_peak_is_the_candidates() -> None:
    reference = np.array([1.0, 0.0])
    small, large = np.array([0.1, 0.0]), np.array([5.0, 0.0])  # off by 0.9 and by 4
    assert measure("psnr_ml_stable_diffusion", reference, small) < 0
    assert measure("psnr_ml_stable_diffusion", reference, large) > 0


pixels = arrays(np.int16, (20, 18, 3), elements=st.integers(60, 195), fill=st.just(100))
changes = arrays(np.int16, (20, 18, 3), elements=st.integers(-10, 10), fill=st.just(0))


@settings(max_examples=40)
@given(a=pixels, noise=changes)
@pytest.mark.parametrize("name", QUICK)
def test_pictures_range_symmetry_and_noise(name: str, a: np.ndarray, noise: np.ndarray) -> None:
    versions = [(a + k * noise).astype(np.uint8) for k in (0, 1, 2, 6)]
    values = [measure(name, versions[0], version) for version in versions]
    direction = 1 if METRICS[name].higher_is_better else -1
    assert all(direction * more <= direction * less for less, more in pairwise(values))
    for value, version in zip(values, versions, strict=True):
        assert holds(name, value)
        assert measure(name, version, versions[0]) == value


@pytest.mark.parametrize("name", SLOW)
def test_perceptual_metrics_range_symmetry_and_noise(name: str) -> None:
    rng = np.random.default_rng(93)
    y, x = np.mgrid[0:48, 0:48]
    picture = np.stack([3 * x + y, 4 * y, 200 - 2 * x], axis=-1).astype(np.uint8)
    noise = rng.normal(size=picture.shape)
    noisy = [np.clip(np.rint(picture + k * noise), 0, 255).astype(np.uint8) for k in (0, 1, 3, 9, 27, 200)]
    values = [measure(name, picture, version) for version in noisy]
    direction = 1 if METRICS[name].higher_is_better else -1
    assert all(direction * more < direction * less for less, more in pairwise(values))
    assert all(holds(name, value) for value in values)
    back = measure(name, noisy[3], picture)
    assert (back == pytest.approx(values[3], rel=1e-6)) is METRICS[name].symmetric


@pytest.mark.parametrize("name", [name for name in TENSOR if not METRICS[name].symmetric])
def test_what_is_declared_asymmetric_is(name: str) -> None:
    a, b = np.array([1.0, 0.0]), np.array([3.0, 0.5])
    assert measure(name, a, b) != pytest.approx(measure(name, b, a), rel=1e-3)


def test_every_metric_states_itself() -> None:
    assert names()[: len(METRICS)] == list(METRICS)
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.least < metric.most
        assert all((len(metric.convention) > 10, len(metric.worst) > 10, metric.equal))
        assert metric.allows(metric.least)
        assert metric.allows(metric.most)
        assert not metric.allows(math.nan)
        assert not (math.isfinite(metric.least) and metric.allows(metric.least - 1))
        assert not (math.isfinite(metric.most) and metric.allows(metric.most * 1.01 + 1))


def test_the_documentation_lists_every_metric_with_its_range() -> None:
    text = (Path(__file__).parents[2] / "docs" / "suite.md").read_text(encoding="utf-8")
    for name, metric in METRICS.items():
        convention = metric.convention.replace("|", "\\|")
        better = "more" if metric.higher_is_better else "less"
        symmetric = "yes" if metric.symmetric else "no"
        assert f"| `{name}` | {convention} | {metric.range} | {better} | {symmetric} |\n" in text
