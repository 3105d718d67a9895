"""A picture passes if it is right everywhere: the shipped bounds on a picture of the default model, 128 x 128."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from parity import assets
from parity.metrics import measure
from parity.suite import comparison, tolerance
from parity.suite.comparison import Check
from parity.suite.tolerance import Tolerance
from parity.suite.verdict import Verdict, combine

NAMES = ("PyTorch cpu float32", "reference runtime (declared)")


def bounds() -> tuple[Tolerance, ...]:
    return tolerance.find_all(tolerance.load(), "image", precision="float16", numerics=NAMES[1])


def judge(reference: np.ndarray, candidate: np.ndarray) -> tuple[Check, ...]:
    return comparison.judge("image", {"image": (reference, candidate)}, bounds(), names=NAMES)


def pictures() -> Iterator[np.ndarray]:
    for path in sorted(assets.golden().glob("shapes-sd/*/*/image.png")):
        yield np.asarray(Image.open(path).convert("RGB"))[None]


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    found = next(pictures())
    assert found.shape == (1, 128, 128, 3)
    return found


def shifted(picture: np.ndarray, side: int, levels: int) -> np.ndarray:
    changed = picture.astype(int)
    part = changed[:, 40 : 40 + side, 52 : 52 + side]
    part += np.where(part.mean() > 127, -levels, levels)
    return np.clip(changed, 0, 255).astype(np.uint8)


def test_the_shipped_table_has_a_global_and_a_local_bound() -> None:
    assert [row.metric for row in bounds()] == ["image_psnr", "image_window_rms"]


def test_a_patch_fails_wherever_it_is_seen(picture: np.ndarray) -> None:
    changed = shifted(picture, 32, 40)
    assert [check.verdict for check in judge(picture, changed)] == [Verdict.FAIL, Verdict.FAIL]
    assert [check.verdict for check in judge(changed, picture)] == [Verdict.FAIL, Verdict.FAIL]


def test_a_fault_that_psnr_passes_fails_by_the_worst_window_and_noise_of_the_same_psnr_passes(
    picture: np.ndarray,
) -> None:
    changed = shifted(picture, 7, 40)
    psnr = measure("image_psnr", picture, changed)
    checks = judge(picture, changed)
    assert [check.verdict for check in checks] == [Verdict.PASS, Verdict.FAIL]
    assert "image: image_window_rms 17" in checks[1].message
    assert "is above the bound 4 levels" in checks[1].message
    assert combine(check.verdict for check in checks) is Verdict.FAIL
    middle = np.clip(picture, 16, 239)  # so that no noise is cut off
    noise = np.random.default_rng(93).normal(0, 255 / 10 ** (psnr / 20), picture.shape)
    noisy = np.rint(middle + noise).astype(np.uint8)
    assert measure("image_psnr", middle, noisy) == pytest.approx(psnr, abs=0.3)
    assert [check.verdict for check in judge(middle, noisy)] == [Verdict.PASS, Verdict.PASS]


def test_at_equal_psnr_the_local_metrics_tell_a_patch_from_noise(picture: np.ndarray) -> None:
    middle = np.clip(picture, 48, 207)
    patch = shifted(middle, 32, 40)
    noisy = np.rint(middle + np.random.default_rng(93).normal(0, 10, picture.shape)).astype(np.uint8)
    assert measure("image_psnr", middle, patch) == pytest.approx(measure("image_psnr", middle, noisy), abs=0.1)
    assert measure("image_window_rms", middle, patch) > 3 * measure("image_window_rms", middle, noisy)
    assert measure("ssimulacra2", middle, patch) < measure("ssimulacra2", middle, noisy)


def test_metrics_that_cannot_measure_fail_by_name_and_leave_the_others(picture: np.ndarray) -> None:
    rows = [Tolerance("image", metric, 1.0, measured="a test") for metric in ("max_ulp", "max_abs")]
    checks = comparison.judge("image", {"image": (picture, picture)}, rows, names=NAMES)
    assert [check.verdict for check in checks] == [Verdict.FAIL, Verdict.PASS]
    assert "image: cannot be measured: max_ulp: dtypes uint8 and uint8" in checks[0].message
    empty = picture[:0]
    assert {check.verdict for check in judge(empty, empty)} == {Verdict.FAIL}


def test_without_bounds_it_is_unknown(picture: np.ndarray) -> None:
    (check,) = comparison.judge("image", {"image": (picture, picture)}, (), names=NAMES)
    assert check.verdict is Verdict.UNKNOWN


def test_a_value_without_end_is_reported() -> None:
    zero, one = np.zeros(4, np.float32), np.ones(4, np.float32)
    row = Tolerance("unet", "tensor_psnr", 40.0, measured="a test")
    (check,) = comparison.judge("unet", {"unet/step00": (zero, one)}, [row], names=NAMES)
    assert check.verdict is Verdict.FAIL
    assert "would pass with bound -inf dB" in check.message
