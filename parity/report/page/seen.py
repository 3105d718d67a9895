"""What is seen in a picture, a map or a curve, in words? For readers who do not see it.

Alternative texts tell what an eye would take from the picture: colours and their share, how much differs and where,
from which step on two runs part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np

_COLOURS: Final = {
    "black": (0, 0, 0),
    "dark grey": (72, 72, 72),
    "grey": (140, 140, 140),
    "light grey": (205, 205, 205),
    "white": (255, 255, 255),
    "red": (210, 40, 40),
    "orange": (240, 140, 30),
    "yellow": (245, 225, 60),
    "green": (50, 160, 60),
    "light green": (150, 220, 150),
    "cyan": (60, 200, 210),
    "blue": (40, 70, 210),
    "light blue": (140, 180, 240),
    "purple": (130, 50, 170),
    "pink": (240, 150, 190),
    "brown": (120, 75, 40),
    "beige": (225, 200, 165),
}
_NAMED: Final = 3  # colours that are told
_LEAST: Final = 0.05  # share of the pixels below which a colour is not told
_ROWS: Final = ("upper", "middle", "lower")
_COLUMNS: Final = ("left", "centre", "right")


def colours(pixels: np.ndarray) -> str:
    """Return the colours that make up most of a picture: ``62 % white, 30 % red``.

    Parameters
    ----------
    pixels : ndarray
        uint8 (height, width, 3).
    """
    small = pixels[:: max(1, pixels.shape[0] // 64), :: max(1, pixels.shape[1] // 64)].reshape(-1, 3).astype(float)
    table = np.array(list(_COLOURS.values()), float)
    nearest = ((small[:, None] - table) ** 2).sum(axis=2).argmin(axis=1)
    shares = np.bincount(nearest, minlength=len(table)) / len(small)
    names = list(_COLOURS)
    first = [place for place in np.argsort(-shares, kind="stable")[:_NAMED] if shares[place] >= _LEAST]
    return ", ".join(f"{shares[place]:.0%} {names[place]}".replace("%", " %") for place in first) or "many colours"


def difference(reference: np.ndarray, candidate: np.ndarray) -> str:
    """Say how much of a picture differs, by how much, where most, and in which direction.

    Parameters
    ----------
    reference, candidate : ndarray
        uint8 (height, width, 3).
    """
    signed = candidate.astype(np.int16) - reference.astype(np.int16)
    size = np.abs(signed).max(axis=2)
    count = int(np.count_nonzero(size))
    if not count:
        return "no pixel differs"
    share = count / size.size
    told = f"{share:.0%}".replace("%", " %") if share >= 0.01 else f"{count} of {size.size}"
    lean = float(signed.sum()) / float(np.abs(signed).sum())
    side = ", mostly brighter" if lean > 0.5 else ", mostly darker" if lean < -0.5 else ""
    return f"{told} of pixels differ, by {int(size.max())} of 255 at most, most in the {place(size)}{side}"


def errors(values: np.ndarray) -> str:
    """Say what FLIP's error map shows.

    Parameters
    ----------
    values : ndarray
        float (height, width), 0 to 1.
    """
    largest = float(values.max())
    if largest == 0:
        return "nothing that an eye would notice"
    return f"largest error {largest:.3f}, mean {float(values.mean()):.4f}, most in the {place(values)}"


def place(weights: np.ndarray) -> str:
    """Return the ninth of a picture that holds most: ``upper left``, ``centre``.

    Parameters
    ----------
    weights : ndarray
        Non-negative (height, width).
    """
    rows = [part.sum(axis=0) for part in np.array_split(weights.astype(float), 3)]
    sums = np.array([[part.sum() for part in np.array_split(row, 3)] for row in rows])
    row, column = np.unravel_index(int(sums.argmax()), sums.shape)
    words = (_ROWS[row], _COLUMNS[column])
    return {("middle", "centre"): "centre", ("upper", "centre"): "top", ("lower", "centre"): "bottom"}.get(
        words, " ".join(words)
    )


def curve(points: Sequence[str], values: Sequence[float]) -> str:
    """Say how the agreement of two runs goes on, values in dB.

    Parameters
    ----------
    points : sequence of str
        ``latents/initial``, ``latents/step00``, ….
    values : sequence of float
        One for each; infinite where the latents are equal.
    """
    names = [point.removeprefix("latents/") for point in points]
    apart = [place for place, value in enumerate(values) if not math.isinf(value) or value < 0]
    if not apart:
        return f"latents are equal at all {len(points)} points"
    first = apart[0]
    start = f"latents are equal up to {names[first - 1]}, then" if first else "latents"
    told = f"{start} agree by {_decibel(values[first])} at {names[first]}"
    if len(names) - 1 > first:
        told += f" and by {_decibel(values[-1])} at {names[-1]}"
    falls = [(values[a] - values[b], b) for a, b in pairwise(apart)]
    fall, at = max(falls, default=(0.0, 0))
    return f"{told}; the largest fall is {fall:.1f} dB at {names[at]}" if fall > 1 else told


def _decibel(value: float) -> str:
    return f"{value:.1f} dB" if math.isfinite(value) else "infinitely much" if value > 0 else "nothing"
