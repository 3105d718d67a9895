"""Angle between tensors: insensitive to scale, hence a complement to PSNR."""

from __future__ import annotations

import numpy as np


def cosine_distance(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Return one minus the cosine similarity of the flattened tensors; 0 if both are zero, 1 if only one is."""
    a, b = reference.ravel(), candidate.ravel()
    norm_a, norm_b = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if norm_a == 0.0 or norm_b == 0.0:
        return float(norm_a != norm_b)
    # |a/|a| - b/|b||^2 / 2 keeps the digits that 1 - a.b/(|a||b|) loses for nearly equal tensors
    return 0.5 * float(np.sum(np.square(a / norm_a - b / norm_b)))
