"""Structural similarity of pictures, as scikit-image computes it."""

from __future__ import annotations

import numpy as np

from parity.metrics.metric import Metric, Takes
from parity.metrics.pictures import pairs


def image_ssim(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Return the mean SSIM over a batch of 8-bit RGB pictures (float64 arrays): Wang et al. 2004, data range 255."""
    from skimage.metrics import structural_similarity

    values = [
        structural_similarity(a, b, channel_axis=-1, data_range=255.0, gaussian_weights=True, sigma=1.5)
        for a, b in pairs(reference, candidate)
    ]
    return float(np.clip(np.mean(values), -1.0, 1.0))


METRICS = (
    Metric(
        name="image_ssim",
        higher_is_better=True,
        symmetric=True,
        takes=Takes.PICTURE,
        least=-1.0,
        most=1.0,
        equal="1",
        worst="-1 is approached by the negative of fine structure; 0: nothing in common",
        convention=(
            "scikit-image structural_similarity, 8-bit RGB, data range 255, Gaussian weights sigma 1.5; of several "
            "pictures the mean"
        ),
        function=image_ssim,
        smallest=11,
    ),
)
