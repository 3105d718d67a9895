"""Since which run has a number another level?

Changes of level are found by PELT (Killick, Fearnhead and Eckley 2012) with a squared cost, from the library
``ruptures``, on numbers in units of their own noise. The penalty is the square of Student's quantile for which one of
all series checked together raises a false alarm once in a hundred checks: one series is judged more sharply than ten
thousand. The noise is estimated from differences of neighbouring runs, whose median a trend does not move.

No changes can gain more than a series' whole sum of squares. Where that is below the penalty there is none; the library
is asked about the others alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np

from parity.errors import MissingError

RATE: Final = 0.01
"""Probability that a check of stationary series raises any alarm."""
SHORTEST: Final = 8
"""Runs that a series needs before it is checked."""
SEGMENT: Final = 2
"""Runs that a level needs: one run alone is an outlier."""

_TO_SIGMA: Final = 1.4826 / math.sqrt(2)  # median absolute deviation of differences to a standard deviation
_APART: Final = 4.0  # an outlier is so many standard deviations away from both its neighbours
_FREEDOM: Final = 0.4  # degrees of freedom of the noise's estimate, per difference (efficiency of the median, 0.37)


@dataclass(frozen=True)
class Change:
    """A new level.

    Attributes
    ----------
    row : int
        Index of the series.
    start : int
        Index of the first value at the new level.
    before, after : float
        Mean of the level before and of the new one, outliers left out.
    sigma : float
        Noise of the series, a standard deviation.
    """

    row: int
    start: int
    before: float
    after: float
    sigma: float


def find(rows: Sequence[np.ndarray], floors: Sequence[float]) -> list[Change]:
    """Return the changes of level of many series, by row and start.

    Parameters
    ----------
    rows : sequence of ndarray
        float64 (runs,), each in the order of its runs, finite.
    floors : sequence of float
        Least noise of each series: what is smaller than a few of these is no change, however still the series is.

    Raises
    ------
    MissingError
        ruptures is not installed.
    """
    lengths = np.array([len(row) for row in rows], np.int64)
    checked = int((lengths >= SHORTEST).sum())
    found: list[Change] = []
    for length in np.unique(lengths[lengths >= SHORTEST]):
        places = np.flatnonzero(lengths == length)
        values = without_outliers(np.stack([rows[place] for place in places]), np.array(floors)[places])
        sigma = noise(values, np.array(floors)[places])
        scaled = (values - np.median(values, axis=1, keepdims=True)) / sigma[:, None]
        penalty = quantile(checked, int(length)) ** 2
        for index in np.flatnonzero(np.var(scaled, axis=1) * length > penalty):
            found += _changes(int(places[index]), values[index], scaled[index], float(sigma[index]), penalty)
    return sorted(found, key=lambda change: (change.row, change.start))


def noise(values: np.ndarray, floors: np.ndarray) -> np.ndarray:
    """Return each row's standard deviation, from the median deviation of its neighbours' differences."""
    steps = np.diff(values, axis=1)
    deviation = np.median(np.abs(steps - np.median(steps, axis=1, keepdims=True)), axis=1)
    return np.maximum(_TO_SIGMA * deviation, floors)


def without_outliers(values: np.ndarray, floors: np.ndarray) -> np.ndarray:
    """Put the nearer neighbour where one value alone leaves both of them in one direction.

    The neighbours of the last value are the two before it: whether it begins a level, the next run has to say.
    Otherwise it would be put into one level with a run that was like all others before. The first one likewise.
    """
    limit = _APART * noise(values, floors)[:, None]
    middle = np.arange(values.shape[1])
    sides = np.stack([middle - 1, middle + 1])
    sides[:, 0], sides[:, -1] = (1, 2), (-2, -3)
    before, after = values[:, sides[0]], values[:, sides[1]]
    lowest, highest = np.minimum(before, after), np.maximum(before, after)
    kept = np.where(values - highest > limit, highest, values)
    return np.where(lowest - values > limit, lowest, kept)


def quantile(series: int, length: int) -> float:
    """Return by how many standard deviations a level must differ, for series that are checked together."""
    from scipy.stats import t

    freedom = max(3.0, _FREEDOM * (length - 1))
    return float(t.isf(RATE / (2 * series * length), freedom))


def _changes(place: int, row: np.ndarray, scaled: np.ndarray, sigma: float, penalty: float) -> list[Change]:
    detector: Any = _library().KernelCPD(kernel="linear", min_size=SEGMENT).fit(scaled[:, None])
    ends = [0, *detector.predict(pen=penalty)]
    levels = [float(np.mean(row[first:last])) for first, last in pairwise(ends)]
    return [
        Change(place, start, before, after, sigma)
        for start, before, after in zip(ends[1:-1], levels[:-1], levels[1:], strict=True)
    ]


def _library() -> Any:
    try:
        import ruptures
    except ImportError:
        raise MissingError(
            "changes over nights are found by ruptures, which is not installed; pip install 'coreml-parity[history]'"
        ) from None
    return ruptures
