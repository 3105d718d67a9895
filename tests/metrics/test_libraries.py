"""The same numbers as the libraries and papers that the metrics come from, reached by another way."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from parity.errors import MissingError
from parity.metrics import METRICS, flip, measure

RNG = np.random.default_rng(93)
A = RNG.integers(0, 256, (40, 48, 3), dtype=np.uint8)
B = np.clip(A + RNG.normal(0, 20, A.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    from PIL import Image

    for name, picture in (("a.png", A), ("b.png", B)):
        Image.fromarray(picture).save(tmp_path / name)
    return str(tmp_path / "a.png"), str(tmp_path / "b.png")


def test_flip_is_what_the_library_says_of_the_files(files: tuple[str, str]) -> None:
    flip = pytest.importorskip("flip_evaluator", reason="no wheel on Linux on ARM")
    errors, mean, _ = flip.evaluate(*files, "LDR", applyMagma=False)
    assert measure("flip_mean", A, B) == pytest.approx(mean, rel=1e-5)
    assert measure("flip_max", A, B) == pytest.approx(errors.max(), rel=1e-5)


def test_the_map_of_flip_is_that_of_the_library_in_float64() -> None:
    library = pytest.importorskip("flip_evaluator", reason="no wheel on Linux on ARM")
    expected, mean, _ = library.evaluate(*(np.float32(x / 255) for x in (A, B)), "LDR", applyMagma=False)
    found = flip.error_map(A, B)
    assert found.shape == A.shape[:2]
    assert found.dtype == np.dtype(np.float64)
    assert (found == np.squeeze(expected)).all()
    assert found.mean() == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize(("name", "package"), [("flip_mean", "flip-evaluator"), ("ssimulacra2", "ssimulacra2")])
def test_a_library_that_is_missing_is_named_with_its_command(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package.replace("-", "_"), None)
    for call in (METRICS[name].prepare, lambda: measure(name, A, B)):
        with pytest.raises(MissingError) as caught:
            call()
        assert f"pip install {package}" in str(caught.value)
        assert f"import of {package.replace('-', '_')} halted" in str(caught.value)
    wheel = "where there is no wheel (Linux on ARM) this needs a C++ compiler"
    assert str(caught.value).endswith(wheel) is (package == "flip-evaluator")


def test_ssimulacra2_is_what_the_library_says_of_the_files(files: tuple[str, str]) -> None:
    import ssimulacra2

    assert measure("ssimulacra2", A, B) == ssimulacra2.compute_ssimulacra2(*files)
    assert measure("ssimulacra2", B, A) == ssimulacra2.compute_ssimulacra2(*files[::-1])


def test_ssimulacra2_orders_as_its_scale_says() -> None:
    """Rounding is invisible, noise of 2 levels good, noise of 20 levels bad."""
    y, x = np.mgrid[0:64, 0:64]
    smooth = np.stack([2 * x + y, 3 * y, 255 - x - y], axis=-1).astype(np.uint8)
    noise = RNG.normal(size=smooth.shape)
    scores = [measure("ssimulacra2", smooth, np.clip(smooth + k * noise, 0, 255).astype(np.uint8)) for k in (1, 4, 20)]
    assert scores[0] > scores[1] > scores[2]
    assert scores[0] > 70
    assert scores[2] < 30


def _lab(rgb: tuple[float, float, float]) -> np.ndarray:
    """sRGB to the Hunt-adjusted CIELab of the paper (Andersson et al. 2020, section 4.1), as a slow derivation."""
    r, g, b = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in rgb)
    matrix = np.array(
        [
            [10135552 / 24577794, 8788810 / 24577794, 4435075 / 24577794],
            [2613072 / 12288897, 8788810 / 12288897, 887015 / 12288897],
            [1425312 / 73733382, 8788810 / 73733382, 70074185 / 73733382],
        ]
    )
    ratio = matrix @ np.array([r, g, b]) / (matrix @ np.ones(3))
    f = [t ** (1 / 3) if t > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29 for t in ratio]
    lightness = 116 * f[1] - 16
    return np.array([lightness, 0.01 * lightness * 500 * (f[0] - f[1]), 0.01 * lightness * 200 * (f[1] - f[2])])


def _hyab(a: np.ndarray, b: np.ndarray) -> float:
    return float(abs(a[0] - b[0]) + np.hypot(a[1] - b[1], a[2] - b[2]))


def _flip_of_flat_pictures(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    """Colour difference alone, since flat pictures have neither edges nor points."""
    power, low, high = 0.7, 0.4, 0.95
    most = _hyab(_lab((0, 1, 0)), _lab((0, 0, 1))) ** power
    value = _hyab(*(_lab(tuple(v / 255 for v in c)) for c in (a, b))) ** power
    if value < low * most:
        return high / (low * most) * value
    return high + (value - low * most) / (most - low * most) * (1 - high)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((0, 0, 0), (255, 255, 255)),
        ((0, 255, 0), (0, 0, 255)),
        ((100, 100, 100), (101, 101, 101)),
        ((200, 100, 40), (190, 110, 60)),
    ],
)
def test_flip_of_flat_pictures_is_the_papers_colour_difference(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    pytest.importorskip("flip_evaluator", reason="no wheel on Linux on ARM")
    left, right = (np.broadcast_to(np.array(c, np.uint8), (64, 64, 3)) for c in (a, b))
    # in the middle: the library filters the border as if the picture went on, which a flat one does
    expected = _flip_of_flat_pictures(a, b)
    for pair in ((left, right), (right, left)):
        assert measure("flip_mean", *pair) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize(("mean", "value"), [(1.0000001, 1.0), (-1.0000001, -1.0), (0.5, 0.5)])
def test_rounding_takes_no_similarity_out_of_its_range(
    mean: float, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skimage.metrics.structural_similarity", lambda *_, **__: mean)
    assert measure("image_ssim", A, B) == value


def test_coremltools_psnr_is_that_of_coremltools() -> None:
    from coremltools.converters.mil.testing_utils import compute_snr_and_psnr

    reference = RNG.normal(size=(2, 4, 8, 8)).astype(np.float32)
    candidate = reference + RNG.normal(scale=0.01, size=reference.shape).astype(np.float32)
    for a, b in ((reference, candidate), (candidate, reference)):
        assert measure("psnr_coremltools", a, b) == pytest.approx(compute_snr_and_psnr(b, a)[1], rel=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_ulps_are_steps_of_nextafter(dtype: type) -> None:
    start: np.ndarray = RNG.normal(size=50).astype(dtype)
    moved = start
    for steps in range(1, 4):
        moved = np.nextafter(moved, dtype(np.inf))
        assert measure("max_ulp", start, moved) == steps
        np.testing.assert_array_max_ulp(start, moved, maxulp=steps)


def test_quantiles_are_elements() -> None:
    a = RNG.normal(size=1000)
    differences = np.sort(np.abs(a))
    for name, index in (("abs_p50", 499), ("abs_p99", 989), ("abs_p999", 998)):
        assert measure(name, np.zeros(1000), a) == differences[index]


def test_windows_are_all_windows() -> None:
    squares = np.square(A.astype(float) - B)
    windows = np.lib.stride_tricks.sliding_window_view(squares, (16, 16, 3))
    expected = np.sqrt(windows.mean(axis=(-3, -2, -1)).max())
    assert measure("image_window_rms", A, B) == pytest.approx(expected, rel=1e-12)


def test_fuzzy_matching_counts_as_gold_does() -> None:
    b = A.copy()
    b[:10, :10] = B[:10, :10]
    different, total, channel = 0, 0, 0
    for one, other in zip(A.reshape(-1, 3).tolist(), b.reshape(-1, 3).tolist(), strict=True):  # pixel by pixel, as Gold
        deltas = [abs(x - y) for x, y in zip(one, other, strict=True)]
        different += one != other
        total, channel = max(total, sum(deltas)), max(channel, *deltas)
    found = [measure(f"fuzzy_{what}", A, b) for what in ("different_pixels", "pixel_delta", "channel_delta")]
    assert found == [different, total, channel]
