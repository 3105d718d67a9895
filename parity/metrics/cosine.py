"""Angle between tensors: insensitive to scale, hence a complement to PSNR."""

from __future__ import annotations

import numpy as np

from parity.metrics.metric import Metric, Takes


def cosine_distance(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Return one minus the cosine similarity of the flattened tensors; 0 if both are zero, 1 if only one is."""
    largest_a, largest_b = float(np.max(np.abs(reference))), float(np.max(np.abs(candidate)))
    if 0.0 in (largest_a, largest_b):
        return float(largest_a != largest_b)
    a, b = reference / largest_a, candidate / largest_b  # scaled first, so that no square overflows or vanishes
    norm_a, norm_b = float(np.linalg.norm(a.ravel())), float(np.linalg.norm(b.ravel()))
    # |a/|a| - b/|b||^2 / 2 keeps the digits that 1 - a.b/(|a||b|) loses for nearly equal tensors
    return min(0.5 * float(np.sum(np.square(a / norm_a - b / norm_b))), 2.0)


METRICS = (
    Metric(
        name="cosine_distance",
        higher_is_better=False,
        symmetric=True,
        takes=Takes.REAL,
        least=0.0,
        most=2.0,
        equal="0; so has any copy scaled by a positive number",
        worst="2: opposite direction; 1: at right angles, or one side is zero",
        convention="1 - cosine of the angle between the flattened tensors; both zero 0, one zero 1",
        function=cosine_distance,
    ),
)
