"""How much difference is allowed, where, and who measured that?

Tolerances are data: ``tolerances.toml`` beside this module, and the user's ``--tolerances FILE``, which is searched
first. The first entry that matches point, precision and numerics applies; every entry says what was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path

from parity import tables
from parity.errors import FormatError
from parity.metrics import registry

DEFAULT = Path(__file__).with_name("tolerances.toml")


@dataclass(frozen=True)
class Tolerance:
    """A bound for one metric at one point.

    Attributes
    ----------
    point : str
        A component's name (its output under teacher forcing), ``image``, ``latents/initial``, or ``golden/…``.
    metric : str
        A key of :data:`parity.metrics.METRICS`.
    bound : float
        Minimum or maximum, as the metric says.
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
        Unknown or missing keys, an unknown metric, a bound that is not a number; the message names the entry.
    """
    files = [file for file in (path, DEFAULT) if file is not None]
    return [_entry(file, index, entry) for file in files for index, entry in enumerate(_entries(file))]


def _entries(file: Path) -> Sequence[dict[str, object]]:
    entries = tables.read(file).get("tolerance", [])
    if not isinstance(entries, list) or not entries:
        raise FormatError(f"{file}: no [[tolerance]] in it")
    return entries


def _entry(file: Path, index: int, entry: dict[str, object]) -> Tolerance:
    where = f"{file}: [[tolerance]] number {index + 1}"
    known = {field.name for field in fields(Tolerance)}
    if set(entry) - known or {"point", "metric", "bound", "measured"} - set(entry):
        raise FormatError(
            f"{where}: needed are point, metric, bound, measured; optional precision, numerics; has {sorted(entry)}"
        )
    bound = entry["bound"]
    if entry["metric"] not in registry.METRICS or isinstance(bound, bool) or not isinstance(bound, int | float):
        raise FormatError(f"{where}: metric must be one of {', '.join(registry.METRICS)} and bound a number")
    return Tolerance(**{key: float(bound) if key == "bound" else str(value) for key, value in entry.items()})  # type: ignore[arg-type]


def find(table: Sequence[Tolerance], point: str, *, precision: str, numerics: str) -> Tolerance | None:
    """Return the first entry that matches, or None: then the comparison's verdict is *unknown*."""
    return next((t for t in table if t.matches(point, precision=precision, numerics=numerics)), None)
