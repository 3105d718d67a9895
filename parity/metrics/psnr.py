"""Peak signal-to-noise ratio, with the peak that each convention declares."""

from __future__ import annotations

import numpy as np


def _decibel(peak: float, reference: np.ndarray, candidate: np.ndarray) -> float:
    rms = float(np.sqrt(np.mean(np.square(reference - candidate))))
    if rms == 0.0:
        return float("inf")
    return 20.0 * float(np.log10(peak / rms)) if peak > 0.0 else -float("inf")


def image_psnr(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Return the PSNR in dB of pictures with the fixed data range 0…255 (float64 arrays holding 8-bit values)."""
    return _decibel(255.0, reference, candidate)


def tensor_psnr(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Return the PSNR in dB with the peak ``max |reference|``; the mean runs over all elements, whatever the rank."""
    return _decibel(float(np.max(np.abs(reference))), reference, candidate)
