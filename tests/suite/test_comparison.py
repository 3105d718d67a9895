"""A message must be enough for a reader who has only the message."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from parity.errors import FormatError
from parity.suite import comparison, tolerance
from parity.suite.tolerance import Tolerance
from parity.suite.verdict import Verdict

BOUND = Tolerance("unet", "tensor_psnr", 40.0, measured="a test")
NAMES = ("PyTorch cpu float32", "reference runtime (declared)")


def pairs(difference: float) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    reference = np.ones((2, 3), np.float32)
    candidate = reference.copy()
    candidate[1, 2] += difference
    return {"unet/step00/noise_pred": (reference, reference), "unet/step07/noise_pred": (reference, candidate)}


def test_a_pass_says_nothing_and_reports_the_margin_of_the_worst() -> None:
    check = comparison.worst("unet", pairs(0.01), BOUND, names=NAMES)
    expected = 20 * math.log10(1 / (0.01 / math.sqrt(6)))
    assert check.verdict is Verdict.PASS
    assert (check.where, check.message) == ("unet/step07/noise_pred", "")
    assert check.value == pytest.approx(expected, rel=1e-3)
    assert check.margin == pytest.approx(expected - 40, rel=1e-3)


def test_a_failure_says_what_where_how_much_and_what_would_pass() -> None:
    check = comparison.worst("unet", pairs(0.5), BOUND, names=NAMES)
    assert check.verdict is Verdict.FAIL
    assert check.margin < 0
    for part in (
        "unet/step07/noise_pred: tensor_psnr 13.80 dB is below the bound 40.00 dB",
        "bound from: a test",
        "1 of 6 elements differ (16.7%), shape (2, 3)",
        "worst at (1, 2): PyTorch cpu float32 1, reference runtime (declared) 1.5",
        "would pass with bound 13.80 dB",
    ):
        assert part in check.message


@pytest.mark.parametrize("metric", ["tensor_psnr", "max_abs", "cosine_distance"])
@pytest.mark.parametrize("difference", [0.5, 1e-3, 7.77e5])
def test_the_bound_that_would_pass_does_pass(metric: str, difference: float) -> None:
    strict = Tolerance("unet", metric, 1e9 if metric == "tensor_psnr" else -1.0, measured="a test")
    check = comparison.worst("unet", pairs(difference), strict, names=NAMES)
    loosened = float(check.message.rsplit("would pass with bound ", 1)[1].split()[0])
    again = comparison.worst("unet", pairs(difference), Tolerance("unet", metric, loosened, measured=""), names=NAMES)
    assert (check.verdict, again.verdict) == (Verdict.FAIL, Verdict.PASS)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_finite_fail_and_are_counted(bad: float) -> None:
    check = comparison.worst("unet", pairs(bad), BOUND, names=NAMES)
    assert check.verdict is Verdict.FAIL
    assert "reference runtime (declared) holds 1 of 6 values that are NaN or infinite" in check.message
    assert "worst at (1, 2)" in check.message


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_reference_that_is_not_finite_fails_as_the_one_at_fault(bad: float) -> None:
    found = {where: (candidate, candidate) for where, (_, candidate) in pairs(bad).items()}
    check = comparison.worst("unet", found, BOUND, names=NAMES)
    assert (check.point, check.where) == ("unet", "unet/step07/noise_pred")
    assert (check.metric, check.bound, check.verdict) == ("tensor_psnr", BOUND.bound, Verdict.FAIL)
    assert math.isnan(check.value)
    assert check.message == (
        "unet/step07/noise_pred: PyTorch cpu float32 holds 1 of 6 values that are NaN or infinite by itself: nothing "
        "can be compared with it"
    )


def test_other_shapes_are_never_broadcast() -> None:
    check = comparison.worst("unet", {"x": (np.ones((2, 1)), np.ones((2, 3)))}, BOUND, names=NAMES)
    assert check.verdict is Verdict.FAIL
    assert "shapes differ: PyTorch cpu float32 (2, 1), reference runtime (declared) (2, 3)" in check.message


def test_nothing_compared_is_unknown_with_its_reason() -> None:
    nothing = comparison.worst("unet", {}, BOUND, names=NAMES)
    assert (nothing.point, nothing.verdict) == ("unet", Verdict.UNKNOWN)
    assert nothing.message == "unet: not compared: nothing was recorded at this point"
    check = comparison.worst("unet", pairs(0.0), None, names=NAMES)
    assert check.verdict is Verdict.UNKNOWN
    assert "--tolerances" in check.message


def test_the_users_tolerances_go_first(tmp_path: Path) -> None:
    mine = tmp_path / "t.toml"
    mine.write_text(
        '[[tolerance]]\npoint = "unet"\nmetric = "max_abs"\nbound = 3\nmeasured = "mine"\nnumerics = "Core ML *"\n'
    )
    table = tolerance.load(mine)
    found = tolerance.find(table, "unet", precision="float16", numerics="Core ML CPU_AND_NE")
    assert found is not None
    assert (found.metric, found.bound) == ("max_abs", 3.0)
    other = tolerance.find(table, "unet", precision="float16", numerics="reference runtime (declared)")
    assert other is not None
    assert other.metric == "tensor_psnr"


def test_every_shipped_tolerance_says_what_was_measured() -> None:
    for entry in tolerance.load():
        assert len(entry.measured) > 10, entry


@pytest.mark.parametrize(
    "entry",
    [
        'point = "x"\nmetric = "max_abs"\nbound = 1',
        'point = "x"\nmetric = "lpips"\nbound = 1\nmeasured = "m"',
        'point = "x"\nmetric = "max_abs"\nbound = "1"\nmeasured = "m"',
        'point = "x"\nmetric = "max_abs"\nbound = true\nmeasured = "m"',
        'point = "x"\nmetric = "max_abs"\nbound = 1\nmeasured = "m"\nunit = "ALL"',
    ],
)
def test_mistakes_in_a_table_are_named(tmp_path: Path, entry: str) -> None:
    path = tmp_path / "t.toml"
    path.write_text(f"[[tolerance]]\n{entry}\n")
    with pytest.raises(FormatError, match="number 1"):
        tolerance.load(path)
