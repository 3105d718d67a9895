"""New levels are found within nights, stationary noise raises no alarm, however many series are checked together."""

from __future__ import annotations

import numpy as np
import pytest

from parity.runs.history import changes

pytest.importorskip("ruptures", reason="change points are found by ruptures, an extra")


def found(rows: np.ndarray, least: float = 0.01) -> list[changes.Change]:
    return changes.find(list(rows), [least] * len(rows))


@pytest.mark.parametrize("count", [8, 14, 60])
def test_stationary_noise_raises_no_alarm_ten_thousand_times(count: int) -> None:
    noise = np.random.default_rng(93).normal(20, 0.4, (10_000, count))
    assert found(noise) == []


@pytest.mark.parametrize("count", [8, 10, 14, 30, 60])
def test_a_single_series_raises_alarms_as_rarely_as_declared(count: int) -> None:
    generator = np.random.default_rng(93)
    alarms = sum(bool(found(generator.normal(20, 0.4, (1, count)))) for _ in range(300))
    assert alarms <= 3 * changes.RATE * 300


def test_single_nights_are_outliers() -> None:
    noise = np.random.default_rng(93).normal(0, 0.02, (200, 30))
    noise[:, 12] += np.log(3)  # a machine that was busy
    noise[:, 25] += np.log(2)
    assert found(noise) == []


@pytest.mark.parametrize("place", [0, -1])
def test_a_single_night_at_the_end_is_an_outlier_too(place: int) -> None:
    """What the last night measured is judged each morning; the night before it was as all others."""
    noise = np.random.default_rng(93).normal(0, 0.02, (200, 30))
    noise[:, place] += np.log(2)
    assert found(noise) == []


def test_a_level_begins_where_it_begins_however_far_it_is_away() -> None:
    generator = np.random.default_rng(93)
    for far in (2.0, 20.0, 200.0):
        row = generator.normal(9, 0.3, 30)
        row[28:] -= far
        (change,) = found(row[None])
        assert change.start == 28
        assert change.after == pytest.approx(9 - far, abs=1)


@pytest.mark.parametrize(
    ("shift", "sigma", "nights"), [(-2.0, 0.4, 3), (float(np.log(1.1)), 0.02, 3), (float(np.log(1.1)), 0.03, 7)]
)
def test_a_step_is_found_within_nights_and_where_it_is(shift: float, sigma: float, nights: int) -> None:
    generator = np.random.default_rng(93)
    hits = []
    for _ in range(50):
        row = generator.normal(0, sigma, 30 + nights)
        row[30:] += shift
        hits += [change for change in found(row[None]) if abs(change.start - 30) <= 1]
    assert len(hits) >= 42
    assert np.median([hit.after - hit.before for hit in hits]) == pytest.approx(shift, rel=0.1)


@pytest.mark.parametrize("before", [0, 20])
def test_half_a_decibel_a_night_over_two_weeks(before: int) -> None:
    generator = np.random.default_rng(93)
    for _ in range(50):
        row = generator.normal(10, 0.4, before + 14)
        row[before:] -= 0.5 * np.arange(14)
        hits = found(row[None])
        assert hits
        assert all(hit.after < hit.before for hit in hits)


def test_a_number_without_noise_has_the_floor_for_noise() -> None:
    still = np.full((3, 20), 9.86)
    still[1, 15:] -= 0.2
    still[2, 15:] -= 0.06
    (change,) = found(still, 0.05)[:1]
    assert (change.row, change.start, change.sigma) == (1, 15, 0.05)
    assert [hit.row for hit in found(still, 0.05)] == [1]


def test_too_few_nights_say_nothing() -> None:
    assert found(np.array([[0.0] * 4 + [9.0] * 3])) == []
    assert changes.find([], []) == []


def test_a_level_that_comes_and_goes_is_found_among_many() -> None:
    generator = np.random.default_rng(93)
    rows = generator.normal(0, 1, (300, 40))
    rows[::3, 15:25] += 8
    hits = found(rows)
    assert {hit.row for hit in hits} <= set(range(0, 300, 3))
    assert len({hit.row for hit in hits}) > 90
    assert sum(hit.after > hit.before for hit in hits) == sum(hit.after < hit.before for hit in hits)
