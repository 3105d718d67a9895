"""Peak signal-to-noise ratio, with the peak that each convention declares."""

from __future__ import annotations

import math

import numpy as np

from parity.metrics.metric import Metric, Takes
from parity.metrics.norm import decibel, length


def _psnr(peak: float, reference: np.ndarray, candidate: np.ndarray) -> float:
    return decibel(peak, length(reference - candidate) / math.sqrt(reference.size))


def image_psnr(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Return the PSNR in dB of pictures with the fixed data range 0…255 (float64 arrays holding 8-bit values)."""
    return _psnr(255.0, reference, candidate)


def tensor_psnr(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Return the PSNR in dB with the peak ``max |reference|``; the mean runs over all elements, whatever the rank."""
    return _psnr(float(np.max(np.abs(reference))), reference, candidate)


METRICS = (
    Metric(
        name="image_psnr",
        unit="dB",
        higher_is_better=True,
        symmetric=True,
        takes=Takes.PICTURE,
        least=0.0,
        most=math.inf,
        equal="infinity",
        worst="0 dB: black against white",
        convention="20 log10(255 / rms) over all pixels and channels of 8-bit RGB",
        function=image_psnr,
    ),
    Metric(
        name="tensor_psnr",
        unit="dB",
        higher_is_better=True,
        symmetric=False,
        takes=Takes.REAL,
        least=-math.inf,
        most=math.inf,
        equal="infinity",
        worst="-infinity: the reference is zero and the candidate is not",
        convention="20 log10(max |reference| / rms(reference - candidate)) over all elements",
        function=tensor_psnr,
    ),
)
