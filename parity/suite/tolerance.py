"""How much difference is allowed, where, and who measured that?

Tolerances are data: ``tolerances.toml`` beside this module, and the user's ``--tolerances FILE``, which is searched
first. A point may be judged by several metrics, e.g. a picture by one that looks at all of it and one that finds the
worst spot: of each metric the first entry that matches point, precision and numerics applies, and all of them must
hold. Every entry says what was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from parity import tables
from parity.errors import FormatError, MissingError, UsageError
from parity.metrics import Metric, registry
from parity.networks.signature import SIGNATURES

DEFAULT = Path(__file__).with_name("tolerances.toml")
_KIN = {name: ("unet",) for name in ("control-unet", "refiner", "unconditional-unet")}
_KIN |= {name: ("text_encoder",) for name in ("text_encoder_2", "text_encoder_3")}
_KIN["noising_encoder"] = ("vae_encoder",)
PICTURES = ("image", "golden/image", "golden/drift", "compatibility")
"""Points that hold 8-bit pictures; all others hold tensors."""
POINTS = frozenset({*SIGNATURES, *(f"golden/{name}" for name in SIGNATURES), *PICTURES, "latents/encoded"})
"""Points that a table can name, beside those that the shipped one names."""
SECTIONS = ("tolerance", "yardstick")


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
    own : bool
        Whether it stands in the user's table; no key of it.
    """

    point: str
    metric: str
    bound: float
    measured: str
    precision: str = "*"
    numerics: str = "*"
    own: bool = field(default=False, compare=False)

    def matches(self, point: str, *, precision: str, numerics: str) -> bool:
        """Return whether this entry speaks about the given comparison."""
        return self.point == point and fnmatchcase(precision, self.precision) and fnmatchcase(numerics, self.numerics)


def kin(point: str) -> tuple[str, ...]:
    """Return the points whose bounds hold for a network where it has none of its own, the nearest first.

    UNets are alike, a ControlNet is half of one, text encoders are alike, and a noising encoder is a VAE's encoder.

    Examples
    --------
    >>> kin("controlnet-2"), kin("refiner"), kin("image")
    (('controlnet', 'unet'), ('unet',), ())
    """
    return ("controlnet", "unet") if point.startswith("controlnet-") else _KIN.get(point, ())


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
    shipped = _read(DEFAULT, None)
    if path is None:
        return shipped
    own = _read(path, {*POINTS, *(entry.point for entry in shipped)})
    return [*(replace(entry, own=True) for entry in own), *shipped]


def sections(file: Path) -> dict[str, Any]:
    """Read a table's file, once its sections are known to be ``[[tolerance]]`` and ``[[yardstick]]``.

    Raises
    ------
    FormatError, MissingError
        Another section, or neither; no such file, or not TOML.
    """
    document = tables.read(file)
    for name in document:
        if name not in SECTIONS:
            hint = tables.nearest(name, SECTIONS)
            raise FormatError(f"{file}: unknown section {name!r}{hint}; there are {' and '.join(SECTIONS)}")
    if not any(document.values()):
        raise FormatError(f"{file}: no [[tolerance]] and no [[yardstick]] in it")
    return document


def _read(file: Path, points: set[str] | None) -> list[Tolerance]:
    entries = sections(file).get("tolerance", [])
    if not isinstance(entries, list):
        raise FormatError(f"{file}: [[tolerance]] with two brackets is needed")
    return [_entry(f"{file}: [[tolerance]] number {index + 1}", entry, points) for index, entry in enumerate(entries)]


def _entry(where: str, entry: object, points: set[str] | None) -> Tolerance:
    if not isinstance(entry, dict):
        raise FormatError(f"{where}: a table is needed, not {entry!r:.60}")
    known = [each.name for each in fields(Tolerance) if each.compare]
    needed = [each.name for each in fields(Tolerance) if each.default is MISSING]
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
    """Return the entries that apply, of each metric the first that matches; all of them must hold.

    Where no entry speaks about a network of its own, those of its kin do, see :func:`kin`.
    """
    found: dict[str, Tolerance] = {}
    for name in (point, *kin(point)):
        for entry in table:
            if entry.matches(name, precision=precision, numerics=numerics):
                found.setdefault(entry.metric, entry)
        if found:
            break
    return tuple(found.values())
