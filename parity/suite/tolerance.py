"""How much difference is allowed, where, and who measured that?

Tolerances are data: ``tolerances.toml`` beside this module, and the user's ``--tolerances FILE``, which is searched
first. A point may be judged by several metrics, e.g. a picture by one that looks at all of it and one that finds the
worst spot: of each metric the first entry that matches point, precision and numerics applies, and all of them must
hold. Every entry says what was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path

from parity import tables
from parity.errors import FormatError, MissingError, UsageError
from parity.metrics import Metric, registry
from parity.networks.signature import SIGNATURES

DEFAULT = Path(__file__).with_name("tolerances.toml")
PICTURES = ("image", "golden/image", "golden/drift", "compatibility")
"""Points that hold 8-bit pictures; all others hold tensors."""


@dataclass(frozen=True)
class Tolerance:
    """A bound for one metric at one point.

    Attributes
    ----------
    point : str
        A component's name (its output under teacher forcing), ``image``, ``latents/initial``, or ``golden/…``.
    metric : str
        Name of a metric, see :func:`parity.metrics.registry.names`.
    bound : float
        Minimum or maximum, as the metric says; a value that the metric can take.
    precision : str
        ``float32``, ``float16`` or a pattern.
    numerics : str
        Pattern for a backend's numerics, e.g. ``reference runtime*`` or ``Core ML CPU_AND_NE``.
    measured : str
        What was seen, on what, or the source of the figure.
    """

    point: str
    metric: str
    bound: float
    measured: str
    precision: str = "*"
    numerics: str = "*"

    def matches(self, point: str, *, precision: str, numerics: str) -> bool:
        """Return whether this entry speaks about the given comparison."""
        return self.point == point and fnmatchcase(precision, self.precision) and fnmatchcase(numerics, self.numerics)


def load(path: Path | None = None) -> list[Tolerance]:
    """Read tolerances: the user's file first, then the shipped ones.

    Raises
    ------
    FormatError
        Unknown or missing keys, an unknown point or metric, a metric that cannot compare what is at that point, a
        bound that is not a number or outside its metric's range; the message names the entry and suggests the nearest
        word.
    MissingError
        A metric's library or weights are not here.
    """
    shipped = _read(DEFAULT, _points())
    return [*(_read(path, {*_points(), *(entry.point for entry in shipped)}) if path else ()), *shipped]


def _points() -> set[str]:
    return {*SIGNATURES, *(f"golden/{name}" for name in SIGNATURES), *PICTURES}


def _read(file: Path, points: set[str]) -> list[Tolerance]:
    entries = tables.read(file).get("tolerance", [])
    if not isinstance(entries, list) or not entries:
        raise FormatError(f"{file}: no [[tolerance]] in it")
    known = points if file != DEFAULT else None
    return [_entry(f"{file}: [[tolerance]] number {index + 1}", entry, known) for index, entry in enumerate(entries)]


def _entry(where: str, entry: object, points: set[str] | None) -> Tolerance:
    if not isinstance(entry, dict):
        raise FormatError(f"{where}: a table is needed, not {entry!r:.60}")
    known = [field.name for field in fields(Tolerance)]
    needed = [field.name for field in fields(Tolerance) if field.default is MISSING]
    for key, value in entry.items():
        if key not in known:
            raise FormatError(f"{where}: unknown key {key!r}{tables.nearest(key, known)}; known are {', '.join(known)}")
        if key != "bound" and not isinstance(value, str):
            raise FormatError(f"{where}: {key} must be a text, not {value!r:.60}")
    if missing := [key for key in needed if key not in entry]:
        raise FormatError(f"{where}: {' and '.join(missing)} must be given; has {', '.join(entry) or 'nothing'}")
    point = entry["point"]
    if points is not None and point not in points:
        hint = tables.nearest(point, points)
        raise FormatError(f"{where}: no point {point!r}{hint}; there are {', '.join(sorted(points))}")
    try:
        metric = registry.get(entry["metric"])
        metric.prepare()
    except UsageError as error:
        raise FormatError(f"{where}: {error}") from None
    except MissingError as error:
        raise MissingError(f"{where}: {error}") from error
    bound = _bound(where, metric, point, entry["bound"])
    return Tolerance(**{**entry, "bound": bound})


def _bound(where: str, metric: Metric, point: str, bound: object) -> float:
    if metric.images and point not in PICTURES:
        raise FormatError(f"{where}: {metric.name} compares 8-bit pictures, and {point} holds tensors")
    if isinstance(bound, bool) or not isinstance(bound, int | float):
        raise FormatError(f"{where}: bound must be a number, not {bound!r:.60}")
    if not metric.allows(bound):
        direction = "minimum" if metric.higher_is_better else "maximum"
        raise FormatError(
            f"{where}: {metric.name} has no value {bound:g}: its bound, a {direction}, is from {metric.range} "
            f"(equal arrays: {metric.equal}; {metric.worst})"
        )
    return float(bound)


def find(table: Sequence[Tolerance], point: str, *, precision: str, numerics: str) -> Tolerance | None:
    """Return the first entry that matches, or None: then the comparison's verdict is *unknown*."""
    return next(iter(find_all(table, point, precision=precision, numerics=numerics)), None)


def find_all(table: Sequence[Tolerance], point: str, *, precision: str, numerics: str) -> tuple[Tolerance, ...]:
    """Return the entries that apply, of each metric the first that matches; all of them must hold."""
    found: dict[str, Tolerance] = {}
    for entry in table:
        if entry.matches(point, precision=precision, numerics=numerics):
            found.setdefault(entry.metric, entry)
    return tuple(found.values())
