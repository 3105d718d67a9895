"""Bounds that half precision gives, and the rows that say how many times its error is allowed."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from parity.errors import FormatError
from parity.suite import factors, relative, tolerance
from parity.suite.comparison import Check
from parity.suite.factors import Factors
from parity.suite.verdict import Verdict

NAMES = ("PyTorch cpu float32", "reference runtime (declared)")
ALLOWED = Factors("unet", 2.0, 4.0, measured="a test")
PICTURE = Factors("image", 2.0, 4.0, measured="a test", floor=0.5)
GOOD = {"point": '"unet"', "rms": "2", "largest": "4", "measured": '"a test"'}


def judged(times: float, *, where: str = "unet/step00/noise_pred") -> tuple[Check, ...]:
    random = np.random.default_rng(93)
    reference = random.standard_normal((2, 400)).astype(np.float32)
    error = (0.01 * random.standard_normal((2, 400))).astype(np.float32)
    triples = {where: (reference, reference + error, reference + np.float32(times) * error)}
    return relative.judge("unet", triples, ALLOWED, names=NAMES)


@pytest.mark.parametrize(
    ("times", "verdicts"),
    [(0.0, ("pass", "pass")), (1.9, ("pass", "pass")), (2.1, ("fail", "pass")), (4.1, ("fail", "fail"))],
)
def test_rms_and_largest_error_have_factors_of_their_own(times: float, verdicts: tuple[str, str]) -> None:
    found = judged(times)
    assert [check.metric for check in found] == ["tensor_psnr", "max_abs"]
    assert tuple(str(check.verdict) for check in found) == verdicts
    assert all(check.score is not None and check.score.rms == pytest.approx(times, rel=1e-3) for check in found)


def test_the_margin_is_in_the_metrics_unit_and_the_message_says_the_ratio() -> None:
    check, _ = judged(4.0)
    assert check.margin == pytest.approx(20 * math.log10(2.0 / 4.0), abs=1e-3)
    assert check.message.startswith("unet/step00/noise_pred: tensor_psnr")
    assert "half precision by itself reaches" in check.message
    assert "2 times its error is allowed (a test)" in check.message
    assert "against half precision's own error: rms 4.00 times, largest 4.00 times" in check.message


def test_the_call_that_is_closest_to_failing_counts() -> None:
    (one, _), (other, _) = judged(1.0, where="unet/step00/noise_pred"), judged(3.0, where="unet/step07/noise_pred")
    assert one.margin > other.margin
    assert other.where == "unet/step07/noise_pred"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_candidate_that_is_not_finite_fails_without_a_score(bad: float) -> None:
    reference = np.ones(8, np.float32)
    wrong = reference.copy()
    wrong[3] = bad
    found = relative.judge("unet", {"unet/a/b": (reference, reference, wrong)}, ALLOWED, names=NAMES)
    assert [check.verdict for check in found] == [Verdict.FAIL, Verdict.FAIL]
    assert all(check.score is None for check in found)
    assert "1 of 8 values that are NaN or infinite" in found[0].message


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_reference_that_is_not_finite_passes_nothing(bad: float) -> None:
    reference = np.full(8, bad, np.float32)
    found = relative.judge("unet", {"unet/a/b": (reference, reference, reference)}, ALLOWED, names=NAMES)
    assert [check.verdict for check in found] == [Verdict.FAIL, Verdict.FAIL]
    assert "holds 8 of 8 values that are NaN or infinite by itself" in found[0].message


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_empty_tensors_fail_and_say_so(dtype: type) -> None:
    empty: np.ndarray = np.zeros((1, 0, 4, 3), dtype)
    found = relative.judge("image", {"image": (empty, empty, empty)}, ALLOWED, names=NAMES)
    assert [check.verdict for check in found] == [Verdict.FAIL, Verdict.FAIL]
    assert all("nothing to compare" in check.message for check in found)


def test_another_shape_fails_and_nothing_recorded_is_unknown() -> None:
    reference = np.ones((2, 4), np.float32)
    found = relative.judge("unet", {"unet/a/b": (reference, reference, reference[:1])}, ALLOWED, names=NAMES)
    assert {check.verdict for check in found} == {Verdict.FAIL}
    assert "shapes differ" in found[0].message
    assert all(check.score is None for check in found)
    (nothing,) = relative.judge("unet", {}, ALLOWED, names=NAMES)
    assert (nothing.point, nothing.verdict) == ("unet", Verdict.UNKNOWN)
    assert nothing.message == "unet: not compared: nothing was recorded at this point"


def test_one_number_has_a_score_and_none_has_not() -> None:
    one = np.ones(1, np.float32)
    found = relative.scored(one, one + np.float32(0.25), one + np.float32(0.5), floor=0.0)
    assert found is not None
    assert found.rms == 2
    raised = relative.scored(one, one + np.float32(0.25), one + np.float32(0.5), floor=0.5)
    assert raised is not None
    assert raised.rms == 1
    assert relative.scored(one[:0], one[:0], one[:0], floor=0.0) is None
    judged = relative.judge("unet", {"unet/a/b": (one, one + np.float32(0.25), one)}, ALLOWED, names=NAMES)
    assert [check.verdict for check in judged] == [Verdict.PASS, Verdict.PASS]


@pytest.mark.parametrize(
    ("reference", "metrics"),
    [
        (np.array([1.0, np.nan], np.float32), ["tensor_psnr", "max_abs"]),
        (np.array([1.0, np.inf], np.float32), ["tensor_psnr", "max_abs"]),
        (np.zeros((0, 4), np.float32), ["tensor_psnr", "max_abs"]),
        (np.zeros((0, 8, 8, 3), np.uint8), ["image_psnr", "image_window_rms"]),
    ],
)
def test_with_a_reference_that_holds_nothing_no_value_passes(reference: np.ndarray, metrics: list[str]) -> None:
    found = relative.judge("unet", {"unet/a/b": (reference, reference, reference)}, ALLOWED, names=NAMES)
    assert [(check.metric, check.verdict) for check in found] == [(metric, Verdict.FAIL) for metric in metrics]
    for check in found:
        assert (check.point, check.where, check.score) == ("unet", "unet/a/b", None)
        assert math.isnan(check.value)
        assert math.isnan(check.bound)
        assert check.message.startswith("unet/a/b: ")


def test_bounds_say_where_they_come_from() -> None:
    reference = np.array([4.0, 0.0, 0.0, 0.0], np.float32)
    half = reference + np.float32([0.25, -0.25, 0.25, -0.25])
    by_rms, by_largest = relative.bounds("unet", reference, half, ALLOWED)
    assert (by_rms.point, by_rms.metric) == ("unet", "tensor_psnr")
    assert by_rms.bound == pytest.approx(20 * math.log10(4 / 0.25) - 20 * math.log10(2))
    assert by_rms.measured == "half precision by itself reaches 24.08 dB here; 2 times its error is allowed (a test)"
    assert (by_largest.point, by_largest.metric, by_largest.bound) == ("unet", "max_abs", 1.0)
    assert by_largest.measured == "half precision by itself errs by 0.25 here; 4 times that is allowed (a test)"
    found = relative.judge("unet", {"unet/a/b": (reference, half, reference + 2)}, ALLOWED, names=NAMES)
    assert [check.point for check in found] == ["unet", "unet"]
    for check, bound in zip(found, (by_rms, by_largest), strict=True):
        assert check.bound == pytest.approx(bound.bound)
        assert f"bound from: {bound.measured}" in check.message


def test_a_candidate_at_its_bound_passes() -> None:
    reference, half = np.zeros(4, np.float32), np.full(4, 0.5, np.float32)
    reference[0] = half[0] = 8  # exact there, so that the peak is
    for times, verdict in ((4.0, Verdict.PASS), (4.25, Verdict.FAIL)):
        candidate = reference.copy()
        candidate[1] = times * 0.5
        found = relative.judge("unet", {"unet/a/b": (reference, half, candidate)}, ALLOWED, names=NAMES)
        assert found[1].verdict is verdict


def test_a_picture_that_half_precision_draws_exactly_may_differ_by_the_floor() -> None:
    picture = np.full((1, 32, 32, 3), 128, np.uint8)
    off = picture.copy()
    off[:, ::4] += 1  # rms 0.5
    local = picture.copy()
    local[:, :7, :7] += 40
    for drawn, verdicts in ((picture, ["pass", "pass"]), (off, ["pass", "pass"]), (local, ["fail", "fail"])):
        found = relative.judge("image", {"image": (picture, picture, drawn)}, PICTURE, names=NAMES)
        assert [check.metric for check in found] == ["image_psnr", "image_window_rms"]
        assert [str(check.verdict) for check in found] == verdicts
        assert all(check.score is not None for check in found)
    assert found[0].score is not None
    assert found[0].score.rms == pytest.approx(40 * 7 / 32 / PICTURE.floor)


def load(tmp_path: Path, **changes: str | None) -> list[Factors]:
    rows = {key: value for key, value in (GOOD | changes).items() if value is not None}
    path = tmp_path / "mine.toml"
    path.write_text("[[yardstick]]\n" + "".join(f"{key} = {value}\n" for key, value in rows.items()))
    assert tolerance.load(path) == tolerance.load()  # a file of such rows alone is a table
    return factors.load(path)


def test_a_good_row_goes_before_the_shipped_ones(tmp_path: Path) -> None:
    rows = load(tmp_path, numerics='"Core ML *"')
    assert rows[0] == Factors("unet", 2.0, 4.0, measured="a test", numerics="Core ML *")
    assert rows[1:] == factors.load()
    assert factors.find(rows, "unet", "Core ML ALL") == rows[0]
    assert factors.find(rows, "vae_decoder", "Core ML ALL") is None
    declared = factors.find(rows, "unet", "reference runtime (declared)")
    assert declared is not None
    assert declared.point == "*"


def test_a_row_for_compressed_weights_speaks_of_nothing_else(tmp_path: Path) -> None:
    rows = load(tmp_path, compressed="true")
    assert factors.find(rows, "unet", "reference runtime (declared)", compressed=True) == rows[0]
    assert factors.find(rows, "unet", "reference runtime (declared)") in rows[1:]
    shipped = [factors.find(rows[1:], "unet", "reference runtime (declared)", compressed=c) for c in (False, True)]
    assert [row.rms for row in shipped if row is not None] == [1.5, 2.0]
    picture = [factors.find(rows[1:], "image", "reference runtime (declared)", compressed=c) for c in (False, True)]
    assert picture[0] == picture[1]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"lagest": "1"}, "unknown key 'lagest'; did you mean largest?; known are point, rms, largest, measured, "),
        ({"rms": None}, "rms must be given; has point, largest, measured"),
        ({"rms": None, "measured": None}, "rms and measured must be given; has point, largest"),
        (dict.fromkeys(GOOD), "point and rms and largest and measured must be given; has nothing"),
        ({"point": "3"}, "point must be a text, not 3"),
        ({"measured": "3"}, "measured must be a text, not 3"),
        ({"largest": "0"}, "largest = 0 is no such value: a ratio above 0"),
        ({"rms": "true"}, "rms must be a number, not True"),
        ({"point": '"zzz"'}, "no point 'zzz'; there are *, compatibility, control-unet, controlnet, "),
        ({"rms": "0"}, "rms = 0 is no such value: a ratio above 0"),
        ({"rms": "nan"}, "rms must be a number, not nan"),
        ({"largest": "-1"}, "largest = -1 is no such value"),
        ({"largest": '"4"'}, "largest must be a number, not '4'"),
        ({"floor": "-1"}, "floor = -1 is no such value: 0 or more, in levels"),
        ({"point": '"unett"'}, "no point 'unett'; did you mean unet?"),
        ({"numerics": "3"}, "numerics must be a text, not 3"),
        ({"compressed": "1"}, "compressed must be true or false, not 1"),
    ],
)
def test_mistakes(tmp_path: Path, changes: dict[str, str | None], says: str) -> None:
    with pytest.raises(FormatError) as caught:
        load(tmp_path, **changes)
    assert f"{tmp_path}/mine.toml: [[yardstick]] number 1: " in str(caught.value)
    assert says in str(caught.value)


def test_a_floor_may_be_zero_and_a_table_may_have_no_such_rows(tmp_path: Path) -> None:
    assert load(tmp_path, floor="0")[0].floor == 0.0
    path = tmp_path / "bounds.toml"
    path.write_text('[[tolerance]]\npoint = "unet"\nmetric = "max_abs"\nbound = 1\nmeasured = "a test"\n')
    assert factors.load(path) == factors.load()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("yardstick = 3", "mine.toml: [[yardstick]] with two brackets is needed"),
        ("[yardstick]\npoint = 'unet'", "mine.toml: [[yardstick]] with two brackets is needed"),
        ("yardstick = [3]", "mine.toml: [[yardstick]] number 1: a table is needed, not 3"),
    ],
)
def test_rows_of_another_form(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(FormatError) as caught:
        factors.load(path)
    assert str(caught.value) == f"{tmp_path}/{says}"


def test_a_misspelt_section_is_refused_with_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[[tolerence]]\npoint = "unet"\n')
    for read in (tolerance.load, factors.load):
        with pytest.raises(FormatError, match=r"unknown section 'tolerence'; did you mean tolerance\?"):
            read(path)
