"""How does a candidate leave its reference, step by step, and how do its latents look on the way?

A picture tells that two runs parted; the latents after each step tell when. Both runs start from the same noise and
each goes on with its own latents, so the curve shows errors that add up or fade. Which network makes them is another
question, asked on the reference's inputs (:mod:`parity.suite.questions.candidate`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from parity.metrics import registry
from parity.pipelines.trace import Trace

METRIC: Final = "tensor_psnr"
"""How far latents are apart, in dB: higher is closer, infinite where they are equal."""

_COLUMNS: Final = 4  # points that the sheet shows: the first, the last, and two between
_FULL: Final = 4.0  # latents of this magnitude are black or white; noise of unit variance rarely exceeds it


@dataclass(frozen=True)
class Course:
    """The latents of two runs at the points that both have.

    Attributes
    ----------
    points : tuple of str
        ``latents/initial``, ``latents/step00``, … in the order of the run.
    values : tuple of float
        :data:`METRIC` at each point.
    shown : tuple of str
        The points of the sheet's columns.
    scale : float
        Largest difference in the sheet, which is black or white in its last row.
    sheet : ndarray
        uint8 (1, height, width): rows are the reference, the candidate, and candidate minus reference; a tile holds all
        channels of the first picture, side by side in a square.
    """

    points: tuple[str, ...]
    values: tuple[float, ...]
    shown: tuple[str, ...]
    scale: float
    sheet: np.ndarray


def follow(reference: Trace, candidate: Trace | None) -> Course | None:
    """Return the course of two runs; None where they share no latents of one shape after the start."""
    if candidate is None:
        return None
    points = [name for name in reference if name.startswith("latents/") and _same(reference, candidate, name)]
    if len(points) < 2:
        return None
    values = tuple(registry.measure(METRIC, reference[name], candidate[name]) for name in points)
    places = np.linspace(0, len(points) - 1, min(_COLUMNS, len(points))).round().astype(int)
    shown = [points[place] for place in dict.fromkeys(places.tolist())]
    pairs = [(np.float64(reference[name][0]), np.float64(candidate[name][0])) for name in shown]
    scale = max(_largest(after - before) for before, after in pairs)
    columns = [
        np.concatenate([_tile(before, _FULL), _tile(after, _FULL), _tile(after - before, scale)])
        for before, after in pairs
    ]
    return Course(tuple(points), values, tuple(shown), scale, np.concatenate(columns, axis=1)[None])


def _same(reference: Trace, candidate: Trace, name: str) -> bool:
    if name not in candidate:
        return False
    one, other = reference[name], candidate[name]
    return one.ndim == 4 and one.shape == other.shape and one.dtype.kind == "f"


def _largest(difference: np.ndarray) -> float:
    finite = np.abs(difference[np.isfinite(difference)])
    return float(finite.max()) if finite.size else math.inf


def _tile(latents: np.ndarray, full: float) -> np.ndarray:
    """Return channels (channels, height, width) as one grey picture, uint8, with a border right and below."""
    count = math.ceil(math.sqrt(len(latents)))
    rows = [_row(latents[start : start + count], count) for start in range(0, len(latents), count)]
    share = np.concatenate(rows) / full if full else np.zeros_like(np.concatenate(rows))
    grey = np.clip(np.nan_to_num(share, nan=1.0, posinf=1.0, neginf=-1.0) * 127 + 128, 0, 255).astype(np.uint8)
    return np.pad(grey, ((0, 2), (0, 2)), constant_values=255)


def _row(channels: np.ndarray, count: int) -> np.ndarray:
    missing: Sequence[np.ndarray] = [np.zeros_like(channels[0])] * (count - len(channels))
    return np.concatenate([*channels, *missing], axis=1)
