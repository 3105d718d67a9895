"""Which numbers of a cell are looked at over nights, and how did they go?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from parity.runs.history.store import Series, Store

_MARKS = {"pass": ".", "fail": "F", "unknown": "?"}


@dataclass(frozen=True)
class Trend:
    """A number of a cell over nights.

    Attributes
    ----------
    label : str
        What it is, with its unit: ``margin of image image_psnr in dB``.
    values : tuple of float
        In the order of the runs.
    verdicts : str
        A letter a run: ``.`` passed, ``F`` failed, ``?`` unknown.
    """

    label: str
    values: tuple[float, ...]
    verdicts: str = ""


def trends(store: Store) -> dict[tuple[str, str], list[Trend]]:
    """Return the important trends of each cell, by machine and id."""
    numbers, _, values = store.values()
    marks = {key: "".join(_MARKS[verdict] for _, verdict in told) for key, told in store.verdicts().items()}
    own: dict[tuple[str, str], list[Series]] = {}
    for series in store.series():
        own.setdefault((series.machine, series.cell), []).append(series)
    found = {}
    for key, listed in own.items():
        chosen = important(listed)
        rows = [values[slice(*np.searchsorted(numbers, [one.id, one.id + 1]))] for one in chosen]
        found[key] = [
            Trend(label(one), tuple(row.tolist()), marks.get(key, "")) for one, row in zip(chosen, rows, strict=True)
        ]
    return found


def label(series: Series) -> str:
    """Return what a series is, with its unit."""
    name = series.what if series.unit == "s" else f"margin of {series.what}"
    return f"{name} in {series.unit}" if series.unit else name


def important(own: Sequence[Series]) -> list[Series]:
    """Choose a cell's margin and its seconds: the picture's, else the first."""
    margins = [series for series in own if series.unit != "s"]
    image = [series for series in margins if series.what.startswith(("image ", "golden/image", "compatibility "))]
    seconds = [series for series in own if series.what == "seconds candidate"]
    return [*(image or margins)[:1], *seconds]
