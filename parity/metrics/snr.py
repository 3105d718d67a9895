"""Signal-to-noise ratio: the energy of the error against that of the reference, without any peak."""

from __future__ import annotations

import math

import numpy as np

from parity.metrics.metric import Metric, Takes
from parity.metrics.norm import decibel, length


def snr(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Return ``10 log10(sum reference² / sum (reference - candidate)²)`` in dB."""
    return decibel(length(reference), length(reference - candidate))


METRICS = (
    Metric(
        name="snr",
        unit="dB",
        higher_is_better=True,
        symmetric=False,
        takes=Takes.REAL,
        least=-math.inf,
        most=math.inf,
        equal="infinity",
        worst="-infinity: the reference is zero and the candidate is not; 0 dB: the candidate is zero",
        convention="10 log10(sum reference^2 / sum (reference - candidate)^2) over all elements",
        function=snr,
    ),
)
