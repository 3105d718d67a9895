"""Skia Gold's fuzzy matching: how many pixels differ, and by how much at most?

Gold accepts a picture if no more than ``fuzzy_max_different_pixels`` pixels differ and none of them by more than a
threshold, which is either the sum over the channels (``fuzzy_pixel_delta_threshold``) or the largest channel
(``fuzzy_pixel_per_channel_delta_threshold``). A table states the same rule as two rows, one bound each. Source:
``gold-client/go/imgmatching/fuzzy/fuzzy.go`` of google/skia-buildbot; pictures here have no alpha, so Gold's range of
0 to 1020 is 0 to 765. No border is left out.
"""

from __future__ import annotations

import math

import numpy as np

from parity.metrics.metric import Metric, Takes
from parity.metrics.pictures import pairs


def different_pixels(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Return how many pixels differ in any channel; of several pictures the largest count."""
    return max(float(np.count_nonzero((a != b).any(axis=-1))) for a, b in pairs(reference, candidate))


def pixel_delta(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Return the largest difference of a pixel, summed over its channels."""
    return float(np.abs(reference - candidate).sum(axis=-1).max())


def channel_delta(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Return the largest difference of any channel of any pixel."""
    return float(np.abs(reference - candidate).max())


METRICS = (
    Metric(
        name="fuzzy_different_pixels",
        unit="pixels",
        higher_is_better=False,
        symmetric=True,
        takes=Takes.PICTURE,
        least=0.0,
        most=math.inf,
        equal="0; a bound of 0 is exact comparison",
        worst="height x width: every pixel differs",
        convention="pixels of one picture that differ in any channel by any amount; of several pictures the worst",
        function=different_pixels,
    ),
    Metric(
        name="fuzzy_pixel_delta",
        unit="levels",
        higher_is_better=False,
        symmetric=True,
        takes=Takes.PICTURE,
        least=0.0,
        most=765.0,
        equal="0",
        worst="765: black against white somewhere",
        convention="largest |dR| + |dG| + |dB| of any pixel",
        function=pixel_delta,
    ),
    Metric(
        name="fuzzy_channel_delta",
        unit="levels",
        higher_is_better=False,
        symmetric=True,
        takes=Takes.PICTURE,
        least=0.0,
        most=255.0,
        equal="0",
        worst="255: a channel from 0 to full somewhere",
        convention="largest max(|dR|, |dG|, |dB|) of any pixel",
        function=channel_delta,
    ),
)
