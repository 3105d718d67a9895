"""Structural similarity of pictures, as scikit-image computes it."""

from __future__ import annotations

import numpy as np


def image_ssim(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Return the mean SSIM over a batch of 8-bit RGB pictures (float64 arrays): Wang et al. 2004, data range 255."""
    from skimage.metrics import structural_similarity

    pictures = zip(
        reference.reshape(-1, *reference.shape[-3:]), candidate.reshape(-1, *candidate.shape[-3:]), strict=True
    )
    values = [
        structural_similarity(a, b, channel_axis=-1, data_range=255.0, gaussian_weights=True, sigma=1.5)
        for a, b in pictures
    ]
    return float(np.mean(values))
