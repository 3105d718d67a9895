"""Scores in closed form: an error against half precision's own."""

from __future__ import annotations

import math

import numpy as np
import pytest

from parity.suite.score import Score, overlap, own_rounding, score


def test_twice_the_error_is_twice_the_score_and_an_equal_one_overlaps_wholly() -> None:
    random = np.random.default_rng(93)
    reference = random.standard_normal(10_000)
    error = 0.01 * random.standard_normal(10_000)
    same = score(reference, reference + error, reference - error)
    assert [same.rms, same.largest] == pytest.approx([1, 1])
    assert same.overlap > 0.99
    assert same.half == pytest.approx(20 * math.log10(np.abs(reference).max() / np.sqrt(np.mean(error**2))))
    twice = score(reference, reference + error, reference + 2 * error)
    assert [twice.rms, twice.largest] == pytest.approx([2, 2])
    # two centred normal distributions: sqrt(2 s t / (s^2 + t^2)) with t = 2 s
    assert twice.overlap == pytest.approx(math.sqrt(4 / 5), abs=0.02)


def test_half_precision_counts_with_the_rounding_of_the_reference_itself() -> None:
    reference = np.float32(np.random.default_rng(93).uniform(1, 2, 50_000))
    exact = score(reference, reference, np.float32(np.float16(reference)))
    assert exact.rms == pytest.approx(1)
    assert exact.half == pytest.approx(20 * math.log10(2 / (2.0**-10 / math.sqrt(12))), abs=0.1)
    assert score(reference, reference, reference).rms == 0


def test_a_floor_in_levels_for_pictures() -> None:
    picture = np.zeros((1, 8, 8, 3), np.uint8)
    other = picture.copy()
    other[0, 0, 0, 0] = 1
    assert score(picture, picture, other).rms == math.inf
    assert score(picture, picture, other, floor=0.5).rms == pytest.approx(2 / math.sqrt(192))


@pytest.mark.parametrize(("first", "second", "expected"), [(0.0, 0.0, 1.0), (1.0, -1.0, 0.0), (0.0, 1e9, 0.0)])
def test_overlap_of_constant_errors(first: float, second: float, expected: float) -> None:
    assert overlap(np.full(8, first), np.full(8, second)) == pytest.approx(expected)


def test_the_sentence_says_all_three() -> None:
    assert Score(half=70.0, rms=1.234, largest=5.678, overlap=0.98765).sentence == (
        "against half precision's own error: rms 1.23 times, largest 5.68 times, overlap of the error histograms 0.988"
    )


def test_rms_and_largest_are_of_errors_not_of_values() -> None:
    reference = np.array([4.0, 0.0, 0.0, 0.0])
    half, candidate = np.array([4.1, -0.1, 0.1, -0.1]), np.array([4.0, 0.0, -0.8, 0.0])
    found = score(reference, half, candidate)
    assert (found.rms, found.largest) == pytest.approx((0.4 / 0.1, 0.8 / 0.1))
    assert found.half == pytest.approx(20 * math.log10(4 / 0.1))


def test_the_floor_holds_for_both_errors_and_only_where_half_precision_makes_less() -> None:
    reference = np.zeros(4)
    half, candidate = np.array([0.0, 0.0, 0.0, 1.0]), np.array([0.0, 0.0, 0.0, 4.0])
    assert score(reference, half, candidate, floor=0.25) == score(reference, half, candidate)
    found = score(reference, half, candidate, floor=2.0)
    assert (found.rms, found.largest) == (1.0, 2.0)


def test_the_peak_is_that_of_the_reference_and_of_pictures_their_range() -> None:
    tensor = np.array([-2.0, 1.0])
    assert score(tensor, tensor + 0.5, tensor).half == pytest.approx(20 * math.log10(2 / 0.5))
    picture = np.full((1, 2, 2, 3), 100, np.uint8)
    for other in (picture + np.uint8(1), picture - np.uint8(1)):  # in uint8 one of the two would wrap
        assert score(picture, other, picture).half == pytest.approx(20 * math.log10(255))
        assert score(other, picture, picture + np.uint8(0)).rms == pytest.approx(1)
    assert score(np.zeros(4), np.ones(4), np.zeros(4)).half == math.inf  # there is no peak
    assert score(picture, picture, picture).half == math.inf  # and here no error


def test_no_error_is_no_multiple_of_none_and_any_error_is_infinitely_many() -> None:
    zeros, ones = np.zeros(4), np.ones(4)
    assert (score(zeros, zeros, zeros).rms, score(zeros, zeros, zeros).largest) == (0.0, 0.0)
    assert (score(zeros, zeros, ones).rms, score(zeros, zeros, ones).largest) == (math.inf, math.inf)


def test_the_rounding_of_the_reference_itself() -> None:
    exact = own_rounding(np.array([1.0, 0.5, 2048.0], np.float32))
    assert (exact.rms, exact.largest) == (0.0, 0.0)
    found = own_rounding(np.array([2049.0, 0.0, 0.0, 0.0], np.float32))  # float16 has 2048 and 2050
    assert (found.rms, found.largest) == (0.5, 1.0)
    beyond = own_rounding(np.array([1e6, 2049.0], np.float32))  # infinite in float16, which is no rounding
    assert (beyond.rms, beyond.largest) == (1.0, 1.0)
    nothing = own_rounding(np.array([1e6], np.float32))
    assert (nothing.rms, nothing.largest) == (0.0, 0.0)
    picture = own_rounding(np.full(4, 255, np.uint8))
    assert (picture.rms, picture.largest) == (0.0, 0.0)


def test_largest_errors_count_with_the_rounding_of_the_reference_too() -> None:
    reference = np.array([2049.0, 1.0, 1.0, 1.0], np.float32)
    found = score(reference, reference, np.array([2052.0, 1.0, 1.0, 1.0], np.float32))
    assert (found.rms, found.largest) == (3.0, 3.0)


def test_the_bins_of_the_histograms() -> None:
    """Thirty-two over four rms errors of the first to each side, a quarter of one each, and one beyond each end."""
    own = np.array([1.0, -1.0])  # rms 1
    for inside, shared in ((1.1, 1), (1.26, 0), (0.99, 0), (-1.1, 0)):
        assert overlap(own, np.array([inside, 0.3])) == pytest.approx(shared * 0.5)
    wide = np.array([0.0, 0.0, 0.0, 8.0])  # rms 4, so the ends lie at 16
    assert overlap(wide, np.array([15.9, 15.9, 15.9, 15.9])) == 0
    far = np.array([0.0] * 99 + [10.0])  # rms 1: the last lies beyond the end
    assert overlap(far, np.full(4, 4.01)) == pytest.approx(0.1)
    assert overlap(far, np.full(4, 3.99)) == 0
    assert overlap(-far, np.full(4, -1e308)) == pytest.approx(0.1)
    assert overlap(far, np.full(4, math.inf)) == pytest.approx(0.1)
    assert overlap(-far, np.full(4, -math.inf)) == pytest.approx(0.1)
