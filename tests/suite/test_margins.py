"""Margins, the bound that would pass, and which of several comparisons counts: each in both directions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from parity.metrics import METRICS
from parity.suite import comparison
from parity.suite.comparison import Check
from parity.suite.tolerance import Tolerance
from parity.suite.verdict import Verdict, combine

NAMES = ("one", "two")


def check(metric: str, value: float, bound: float, verdict: Verdict = Verdict.PASS, message: str = "") -> Check:
    return Check("p", "w", metric, value, bound, verdict, message)


@pytest.mark.parametrize(
    ("metric", "value", "bound", "margin"),
    [
        ("image_psnr", 45.0, 41.0, 4.0),
        ("image_psnr", 40.0, 41.0, -1.0),
        ("max_abs", 0.25, 1.0, 0.75),
        ("max_abs", 2.0, 1.0, -1.0),
        ("image_psnr", math.inf, math.inf, 0.0),
        ("max_abs", math.inf, 1.0, -math.inf),
        ("image_psnr", math.inf, 41.0, math.inf),
    ],
)
def test_a_margin_is_positive_inside_whatever_the_direction(
    metric: str, value: float, bound: float, margin: float
) -> None:
    assert check(metric, value, bound).margin == margin


def test_what_was_not_measured_has_no_margin() -> None:
    assert math.isnan(check("", math.nan, math.nan).margin)
    assert math.isnan(check("max_abs", math.nan, 1.0).margin)


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("image_psnr", 40.999, "40.99 dB"),  # rounded towards the worse side, so that it passes
        ("image_psnr", 12.349, "12.34 dB"),
        ("image_psnr", -3.001, "-3.01 dB"),
        ("max_abs", 0.123401, "0.124"),
        ("max_abs", 1234.5, "1.24e+03"),
        ("image_ssim", 0.98765, "0.987"),
        ("cosine_distance", 0.0, "0"),
        ("max_abs", math.inf, "inf"),
        ("max_abs", math.nan, "none: values must be finite"),
    ],
)
def test_the_bound_that_would_pass_is_rounded_to_the_worse_side(metric: str, value: float, text: str) -> None:
    assert comparison._loosened(value, METRICS[metric]) == text


def off(difference: float) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(4), np.array([0.0, 0.0, 0.0, difference])


def test_the_worst_of_several_calls_counts_in_each_direction() -> None:
    pairs = {"a": off(0.5), "b": off(2.0), "c": off(1.0)}
    bound = Tolerance("p", "max_abs", 3.0, "a test")
    assert comparison.worst("p", pairs, bound, names=NAMES).where == "b"
    peak = {name: (one + 10, two + 10) for name, (one, two) in pairs.items()}
    bound = Tolerance("p", "tensor_psnr", 1.0, "a test")
    assert comparison.worst("p", peak, bound, names=NAMES).where == "b"


def test_what_cannot_be_measured_is_worse_than_any_value() -> None:
    pairs = {"a": off(5e9), "b": off(math.nan), "c": off(1.0)}
    found = comparison.worst("p", pairs, Tolerance("p", "max_abs", 3.0, "a test"), names=NAMES)
    assert (found.where, found.verdict) == ("b", Verdict.FAIL)
    assert "none: values must be finite" in found.message


def test_each_metric_of_a_table_is_a_check_of_its_own_and_none_is_unknown() -> None:
    bounds = [Tolerance("p", "max_abs", 3.0, "a test"), Tolerance("p", "unequal_share", 0.1, "a test")]
    found = comparison.judge("p", {"a": off(1.0)}, bounds, names=NAMES)
    assert [(one.metric, one.verdict) for one in found] == [
        ("max_abs", Verdict.PASS),
        ("unequal_share", Verdict.FAIL),
    ]
    assert [one.point for one in found] == ["p", "p"]
    (none,) = comparison.judge("p", {"a": off(1.0)}, (), names=NAMES)
    assert (none.verdict, none.point, none.where) == (Verdict.UNKNOWN, "p", "p")
    assert "no tolerance in the table for two" in none.message


def test_a_check_that_was_not_made_is_bad_input_only_where_a_file_is_at_fault() -> None:
    plain, damaged = comparison.unknown("p", "why"), comparison.unknown("p", "why", bad_input=True)
    assert plain.message == damaged.message == "p: not compared: why"
    assert (plain.bad_input, damaged.bad_input) == (False, True)
    assert (plain.metric, plain.verdict) == ("", Verdict.UNKNOWN)
    assert math.isnan(plain.value)
    assert math.isnan(plain.bound)


def test_other_shapes_and_empty_arrays_fail_with_the_bound_and_without_a_value() -> None:
    bound = Tolerance("p", "max_abs", 3.0, "a test")
    for pair, says in (
        ((np.zeros(3), np.zeros(4)), "a: shapes differ: one (3,), two (4,)"),
        ((np.zeros(0), np.zeros(0)), "a: cannot be measured: max_abs: nothing to compare"),
    ):
        found = comparison.worst("p", {"a": pair}, bound, names=NAMES)
        assert (found.point, found.where, found.metric, found.bound) == ("p", "a", "max_abs", 3.0)
        assert found.verdict is Verdict.FAIL
        assert math.isnan(found.value)
        assert found.message.startswith(says)


def test_both_sides_are_looked_through_for_values_that_are_not_finite() -> None:
    bad = np.array([np.nan, np.inf, 1.0, 2.0])
    found = comparison.worst("p", {"a": (bad, np.ones(4))}, Tolerance("p", "max_abs", 3.0, "x"), names=NAMES)
    assert "one holds 2 of 4 values that are NaN or infinite" in found.message
    assert "two holds" not in found.message
    whole = comparison.worst("p", {"a": off(9.0)}, Tolerance("p", "max_abs", 3.0, "x"), names=NAMES)
    assert "holds" not in whole.message


def test_messages_name_whole_numbers_as_they_are_and_the_direction() -> None:
    pictures = np.full((1, 2, 2, 3), 7, np.uint8), np.full((1, 2, 2, 3), 9, np.uint8)
    found = comparison.worst(
        "image", {"image": pictures}, Tolerance("image", "fuzzy_channel_delta", 1.0, "x"), names=NAMES
    )
    assert found.message.splitlines() == [
        "image: fuzzy_channel_delta 2 levels is above the bound 1 levels",
        "  bound from: x",
        "  12 of 12 elements differ (100.0%), shape (1, 2, 2, 3)",
        "  worst at (0, 0, 0, 0): one 7, two 9",
        "  would pass with bound 2 levels",
    ]


def test_whole_numbers_are_shown_with_all_their_digits() -> None:
    pair = np.array([12345678901]), np.array([12345678902])
    found = comparison.worst("p", {"a": pair}, Tolerance("p", "max_abs", 0.5, "x"), names=NAMES)
    assert "worst at (0,): one 12345678901, two 12345678902" in found.message


def test_infinity_and_what_is_not_a_number_differ_and_are_the_worst() -> None:
    pair = np.array([9.0, 1.0, 3.0]), np.array([0.0, np.inf, 3.0])
    found = comparison.worst("p", {"a": pair}, Tolerance("p", "max_abs", 0.5, "x"), names=NAMES)
    assert "2 of 3 elements differ (66.7%)" in found.message
    assert "worst at (1,): one 1, two inf" in found.message
    pair = np.array([9.0, 1.0, 3.0]), np.array([0.0, np.inf, np.nan])
    found = comparison.worst("p", {"a": pair}, Tolerance("p", "max_abs", 0.5, "x"), names=NAMES)
    assert "3 of 3 elements differ" in found.message
    assert "worst at (2,): one 3, two nan" in found.message


def test_failures_are_told_before_what_is_unknown_and_what_passed_is_not_told() -> None:
    checks = [
        check("", math.nan, math.nan, Verdict.UNKNOWN, "unknown"),
        check("max_abs", 0.0, 1.0, Verdict.PASS, "a known failure was seen"),
        check("max_abs", 2.0, 1.0, Verdict.FAIL, "first"),
        check("max_abs", 3.0, 1.0, Verdict.FAIL, "second"),
    ]
    assert comparison.messages(checks) == "first\nsecond\nunknown"


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ("", "unknown"),
        ("pass", "pass"),
        ("pass pass", "pass"),
        ("unknown", "unknown"),
        ("pass unknown", "unknown"),
        ("fail", "fail"),
        ("pass fail", "fail"),
        ("unknown fail", "fail"),
        ("fail unknown pass", "fail"),
    ],
)
def test_how_verdicts_combine(verdicts: str, expected: str) -> None:
    assert str(combine([Verdict(word) for word in verdicts.split()])) == expected
