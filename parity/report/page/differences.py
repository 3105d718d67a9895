"""Where do two pictures differ, and where would an eye see it? Maps of the sign and of FLIP's errors, as pictures."""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np

from parity.errors import MissingError
from parity.metrics import flip

FULL: Final = 16
"""A difference of this many 8-bit steps is black or white in a map; most float16 differences are 1 to 4."""

_LEVELS: Final = 31


def signed(reference: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """Return candidate minus reference around a middle grey, uint8, of the same shape: brighter is more.

    Parameters
    ----------
    reference, candidate : ndarray
        uint8, equal shapes.
    """
    step = candidate.astype(np.int16) - reference.astype(np.int16)
    return np.clip(128 + step * (128 // FULL), 0, 255).astype(np.uint8)


def errors(reference: np.ndarray, candidate: np.ndarray) -> np.ndarray | None:
    """Return FLIP's error map, float64 (height, width), 0 to 1; None where the library is not installed."""
    try:
        return flip.error_map(reference, candidate)
    except MissingError:
        return None


def heat(values: np.ndarray) -> np.ndarray:
    """Return an error map, 0 to 1, in colours: uint8 (height, width, 3), black, purple, orange, yellow, white.

    The root of an error is drawn, so that small ones are seen.
    """
    step = np.round(
        np.sqrt(np.clip(values, 0, 1)) * _LEVELS
    )  # few levels: an eye tells no more, a file is half as long
    return palette()[(step * (255 / _LEVELS)).astype(np.uint8)]


@cache
def palette() -> np.ndarray:
    """Return the 256 colours of :func:`heat`, whose lightness rises evenly enough to be read without colour."""
    stops = {
        0.0: (0, 0, 4),
        0.25: (80, 18, 123),
        0.5: (183, 55, 121),
        0.75: (252, 137, 97),
        1.0: (252, 253, 191),
    }
    places = np.linspace(0, 1, 256)
    channels = [np.interp(places, list(stops), [color[channel] for color in stops.values()]) for channel in range(3)]
    return np.stack(channels, axis=1).astype(np.uint8)
