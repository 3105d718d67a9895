"""How many times half precision's own error does a candidate make?

Two errors against float32 are compared: the ratio of their rms, of their largest, and the overlap of their histograms
(Bhattacharyya coefficient: 34 bins, 32 over +-4 rms errors of half precision and one beyond each end).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_BINS, _REACH = 32, 4.0


@dataclass(frozen=True)
class Score:
    """A candidate's error against half precision's own, both against float32.

    Attributes
    ----------
    half : float
        PSNR of half precision in dB; infinite where it makes no error.
    rms, largest : float
        Ratio of the rms errors and of the largest errors.
    overlap : float
        Bhattacharyya coefficient of the two error histograms, 0 to 1.
    """

    half: float
    rms: float
    largest: float
    overlap: float

    @property
    def sentence(self) -> str:
        """The same in words."""
        return (
            f"against half precision's own error: rms {self.rms:.2f} times, largest {self.largest:.2f} times, "
            f"overlap of the error histograms {self.overlap:.3f}"
        )


@dataclass(frozen=True)
class Error:
    """An error's size.

    Attributes
    ----------
    rms, largest : float
        In the values' own unit.
    """

    rms: float
    largest: float


def score(reference: np.ndarray, half: np.ndarray, candidate: np.ndarray, *, floor: float = 0.0) -> Score:
    """Compare a candidate's error with half precision's own.

    Parameters
    ----------
    reference, half, candidate : numpy.ndarray
        Equal shapes, finite; 8-bit pictures or tensors.
    floor : float
        Least rms error that half precision counts with, in the values' own unit. Of tensors it is at least that of
        rounding the reference itself to float16: no float16 candidate can do better.
    """
    wide = [np.asarray(value, np.float64) for value in (reference, half, candidate)]
    own, other = wide[1] - wide[0], wide[2] - wide[0]
    least = own_rounding(reference)
    rms_half = max(_rms(own), least.rms, floor)
    largest_half = max(float(np.abs(own).max()), least.largest, floor)
    peak = 255.0 if reference.dtype == np.uint8 else float(np.abs(wide[0]).max())
    return Score(
        half=20 * math.log10(peak / rms_half) if peak and rms_half else math.inf,
        rms=_ratio(_rms(other), rms_half),
        largest=_ratio(float(np.abs(other).max()), largest_half),
        overlap=overlap(own, other),
    )


def own_rounding(reference: np.ndarray) -> Error:
    """Return the error of a float32 reference that is rounded to float16; none of an 8-bit picture."""
    if reference.dtype == np.uint8:
        return Error(0.0, 0.0)
    with np.errstate(over="ignore"):
        error = np.float64(reference) - np.float64(np.float16(reference))
    error = error[np.isfinite(error)]
    return Error(_rms(error), float(np.abs(error).max(initial=0.0)))


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Bhattacharyya coefficient of two errors' histograms, 0 to 1; bins as the module says.

    >>> overlap(np.zeros(4), np.zeros(4)), overlap(np.full(4, 1.0), np.full(4, -1.0))
    (1.0, 0.0)
    """
    width = _REACH * max(_rms(first), float(np.finfo(np.float64).tiny))
    edges = np.concatenate([[-np.inf], np.linspace(-width, width, _BINS + 1), [np.inf]])
    counts = [np.histogram(error, edges)[0] / error.size for error in (first, second)]
    return float(np.sqrt(counts[0] * counts[1]).sum())


def _rms(error: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(error)))) if error.size else 0.0


def _ratio(first: float, second: float) -> float:
    return first / second if second else (0.0 if first == 0 else math.inf)
