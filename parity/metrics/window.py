"""Where is a picture worst? The largest error over all windows of it.

A mean over the whole picture dilutes a local fault by the share of its area; a single pixel says nothing about what an
eye sees. A window of 16 x 16 pixels lies between: two cells of a latent in each direction.
"""

from __future__ import annotations

import numpy as np

from parity.metrics.metric import Metric, Takes
from parity.metrics.pictures import pairs

SIDE = 16


def image_window_rms(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Return the largest rms difference over all windows of 16 x 16 pixels, in grey levels.

    The windows slide by one pixel, all three channels count alike; a picture that is smaller than a window is one
    window. Sums are of whole numbers, hence exact.
    """
    return max(float(np.sqrt(_means(a, b).max())) for a, b in pairs(reference, candidate))


def _means(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the mean squared difference of each window, by a table of sums over rectangles."""
    squares = np.square(a - b).sum(axis=-1)  # whole numbers, exact in float64 as are their sums
    table = np.zeros((squares.shape[0] + 1, squares.shape[1] + 1))
    table[1:, 1:] = squares.cumsum(axis=0).cumsum(axis=1)
    high, wide = min(SIDE, squares.shape[0]), min(SIDE, squares.shape[1])
    sums = table[high:, wide:] - table[:-high, wide:] - table[high:, :-wide] + table[:-high, :-wide]
    return sums / (high * wide * 3)


METRICS = (
    Metric(
        name="image_window_rms",
        unit="levels",
        higher_is_better=False,
        symmetric=True,
        takes=Takes.PICTURE,
        least=0.0,
        most=255.0,
        equal="0",
        worst="255: black against white over a whole window",
        convention=(
            "largest rms difference over all windows of 16 x 16 pixels and three channels, in levels of 0 to 255; "
            "of several pictures the worst"
        ),
        function=image_window_rms,
    ),
)
