"""What does a golden hold, and in what do two of them differ? The records of ``parity golden show`` and ``diff``.

Each is made once; ``--json`` prints it, and the lines of text are made of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from parity.commands.records_of_goldens import Distance, GoldenDiff, Held, Judged, Point, Setting, Shown, Side
from parity.metrics import METRICS, measure
from parity.suite.goldens import curate, store

if TYPE_CHECKING:
    from parity.suite.goldens.store import Golden
    from parity.suite.tolerance import Tolerance


def shown(golden: Golden, directory: Path, table: Sequence[Tolerance]) -> Shown:
    """Return everything about a golden.

    Parameters
    ----------
    golden : Golden
        One of ``directory``.
    directory : path
        Folder of goldens.
    table : sequence of Tolerance
        With the bounds of ``golden/drift``.

    Raises
    ------
    MissingError, FormatError
        The golden or its anchor is damaged.
    """
    trace = golden.open()
    return Shown(
        golden.id,
        golden.standing,
        file=str(golden.folder / "image.png"),
        picture=golden.record["image_sha256"],
        drawn=golden.keys,
        accepted=golden.approval.keys if golden.approval else None,
        distance=_distance(golden, directory, table) if golden.approval else None,
        weights=golden.record["weights"],
        case=golden.record["case"],
        environment=golden.record["environment"],
        holds=tuple(Held(point, str(value.dtype), tuple(value.shape)) for point, value in trace.items()),
        decisions=golden.decisions,
    )


def _distance(golden: Golden, directory: Path, table: Sequence[Tolerance]) -> Distance:
    anchor = golden.approval.anchor if golden.approval else golden.id
    if anchor == golden.id:
        return Distance(anchor, there=True, figures=None)
    there = {one.id: one for one in store.in_series(directory, golden.series, ignore_lost=True)}
    if anchor not in there:
        return Distance(anchor, there=False, figures=None)
    checks = curate.drift(there[anchor], golden, table)
    figures = tuple(Judged(check.metric, check.value, check.bound, str(check.verdict)) for check in checks)
    return Distance(anchor, there=True, figures=figures)


def lines(one: Shown) -> Iterator[str]:
    """Yield what is said of a golden in a terminal."""
    yield f"{one.golden}: {one.standing}"
    yield f"  picture   {one.file}"
    yield f"  pixels    SHA-256 {one.picture}"
    yield f"  drawn by  {one.drawn}"
    if one.distance is not None:
        yield f"  accepted  for {one.accepted}"
        yield f"  anchor    {_far(one.distance, one.golden)}"
    yield f"  weights   {one.weights or 'of a hub id'}"
    for title, record in (("case", one.case), ("environment", one.environment)):
        yield f"  {title:9} {', '.join(f'{name} {value!r}' for name, value in record.items() if value != '')}"
    for held in one.holds:
        yield f"  holds     {held.point} {held.dtype} {held.shape}"
    for decision in one.decisions:
        yield f"  {decision}"


def _far(distance: Distance, golden: str) -> str:
    if distance.anchor == golden:
        return "itself"
    if not distance.there:
        return f"{distance.anchor}, which is not there"
    figures = [f"{one.metric} {METRICS[one.metric].format(one.value)}" for one in distance.figures or ()]
    return f"{distance.anchor}, {', '.join(figures)}"


def compared(goldens: Sequence[Golden], traces: Sequence[Mapping[str, np.ndarray]], file: Path | None) -> GoldenDiff:
    """Compare two goldens: what they were drawn with, and every tensor that one of them keeps.

    Parameters
    ----------
    goldens : sequence of Golden
        Two.
    traces : sequence of Trace
        What each keeps.
    file : path, optional
        Where their pictures were drawn, for the record.
    """
    first, second = goldens
    return GoldenDiff(
        equal=bool(np.array_equal(traces[0]["image"], traces[1]["image"])),
        first=Side(first.id, first.standing, first.keys),
        second=Side(second.id, second.standing, second.keys),
        settings=tuple(_settings(first, second)),
        points=tuple(_points(*traces)),
        file=None if file is None else str(file),
    )


def _settings(first: Golden, second: Golden) -> Iterator[Setting]:
    for part in ("case", "environment"):
        a, b = first.record[part], second.record[part]
        for name in dict.fromkeys([*a, *b]):
            if a.get(name) != b.get(name):
                yield Setting(part, name, a.get(name), b.get(name))
    if first.record["weights"] != second.record["weights"]:
        yield Setting("weights", "weights", first.record["weights"], second.record["weights"])


def _points(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> Iterator[Point]:
    """Measure what both hold: pictures globally and locally, tensors by PSNR."""
    for point in dict.fromkeys([*first, *second]):
        a, b = first.get(point), second.get(point)
        shapes = (None if a is None else tuple(a.shape), None if b is None else tuple(b.shape))
        figures: dict[str, float] = {}
        if a is None or b is None:
            state = "second" if a is None else "first"
        elif a.shape != b.shape:
            state = "shapes"
        elif np.array_equal(a, b):
            state = "equal"
        else:
            state = "differs"
            names = ("image_psnr", "image_window_rms") if point == "image" else ("tensor_psnr",)
            figures = {name: measure(name, a, b) for name in names}
        yield Point(point, state, shapes, figures)


def lines_of_two(found: GoldenDiff) -> Iterator[str]:
    """Yield what is said of two goldens in a terminal."""
    for name, side in (("A", found.first), ("B", found.second)):
        yield f"{name} {side.golden}: {side.standing}, {side.drawn}"
    for setting in found.settings:
        yield f"  {setting.name}: {_said(setting.first, setting)} -> {_said(setting.second, setting)}"
    for point in found.points:
        yield f"  {point.point}: {_state(point)}"


def _said(value: Any, setting: Setting) -> str:
    return str(value) if setting.part == "weights" else repr(value)


def _state(point: Point) -> str:
    if point.state in ("first", "second"):
        return f"only in {'A' if point.state == 'first' else 'B'}"
    if point.state == "shapes":
        return f"shapes differ: {point.shapes[0]} and {point.shapes[1]}"
    if point.state == "equal":
        return "equal"
    return ", ".join(f"{name} {METRICS[name].format(value)}" for name, value in point.figures.items())
