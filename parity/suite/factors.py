"""How many times half precision's own error may a float16 candidate err, and who measured that?

Factors are rows ``[[yardstick]]`` in the table of tolerances. They say nothing in decibels: what half precision costs
is measured on the very model and inputs (:mod:`parity.suite.yardstick`), so one row serves models that nobody has seen.
The user's file is searched first; the first row that matches point, numerics and weights applies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path

from parity import tables
from parity.errors import FormatError
from parity.suite.tolerance import DEFAULT, POINTS, sections


@dataclass(frozen=True)
class Factors:
    """What a float16 candidate may err at a point, as multiples of half precision's own error there.

    Attributes
    ----------
    point : str
        A component's name, ``latents/encoded`` or ``image``; ``*`` for every one.
    rms, largest : float
        Allowed ratio of the rms errors and of the largest errors (of pictures: of the worst windows).
    measured : str
        What was seen, on what.
    numerics : str
        Pattern for a backend's numerics.
    floor : float
        Of pictures: an error in levels (rms) up to which half precision counts as this much.
    compressed : bool
        Whether the row speaks of compressed weights alone; other rows speak of all.
    """

    point: str
    rms: float
    largest: float
    measured: str
    numerics: str = "*"
    floor: float = 0.0
    compressed: bool = False

    def matches(self, point: str, numerics: str, *, compressed: bool) -> bool:
        """Return whether this row speaks about the given comparison."""
        fits = compressed or not self.compressed
        return fits and fnmatchcase(point, self.point) and fnmatchcase(numerics, self.numerics)


def load(path: Path | None = None) -> list[Factors]:
    """Read factors: the user's file first, then the shipped ones.

    Raises
    ------
    FormatError
        Unknown or missing keys, an unknown point, a factor that is no positive number; the message names the entry.
    """
    return [*(_read(path) if path else ()), *_read(DEFAULT)]


def find(rows: Sequence[Factors], point: str, numerics: str, *, compressed: bool = False) -> Factors | None:
    """Return the first row that matches, or None: then absolute bounds decide."""
    return next((row for row in rows if row.matches(point, numerics, compressed=compressed)), None)


def _read(file: Path) -> list[Factors]:
    entries = sections(file).get("yardstick", [])
    if not isinstance(entries, list):
        raise FormatError(f"{file}: [[yardstick]] with two brackets is needed")
    return [_entry(f"{file}: [[yardstick]] number {index + 1}", entry) for index, entry in enumerate(entries)]


def _entry(where: str, entry: object) -> Factors:
    if not isinstance(entry, dict):
        raise FormatError(f"{where}: a table is needed, not {entry!r:.60}")
    known = [field.name for field in fields(Factors)]
    for key in entry:
        if key not in known:
            raise FormatError(f"{where}: unknown key {key!r}{tables.nearest(key, known)}; known are {', '.join(known)}")
    needed = [field.name for field in fields(Factors) if field.default is MISSING]
    if missing := [key for key in needed if key not in entry]:
        raise FormatError(f"{where}: {' and '.join(missing)} must be given; has {', '.join(entry) or 'nothing'}")
    for key in ("point", "measured", "numerics"):
        if not isinstance(entry.get(key, ""), str):
            raise FormatError(f"{where}: {key} must be a text, not {entry[key]!r:.60}")
    if not isinstance(entry.get("compressed", False), bool):
        raise FormatError(f"{where}: compressed must be true or false, not {entry['compressed']!r:.60}")
    if entry["point"] != "*" and entry["point"] not in POINTS:
        hint = tables.nearest(entry["point"], POINTS)
        raise FormatError(f"{where}: no point {entry['point']!r}{hint}; there are *, {', '.join(sorted(POINTS))}")
    values = {key: _number(where, key, entry[key]) for key in ("rms", "largest", "floor") if key in entry}
    return Factors(**{**entry, **values})


def _number(where: str, key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise FormatError(f"{where}: {key} must be a number, not {value!r:.60}")
    if value < 0 or (value == 0 and key != "floor"):
        expected = "0 or more, in levels" if key == "floor" else "a ratio above 0 (1 is half precision's own error)"
        raise FormatError(f"{where}: {key} = {value:g} is no such value: {expected}")
    return float(value)
