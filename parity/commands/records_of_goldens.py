"""What do commands print after ``--json`` about goldens? See :mod:`parity.commands.layouts`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from parity.suite.goldens.keys import Keys
from parity.suite.goldens.log import Decision


@dataclass(frozen=True)
class Golden:
    """A golden: its standing, by what it was drawn, its picture's SHA-256, the last decision, and equal pictures."""

    golden: str
    standing: str
    last: dict[str, Any] | None
    twins: tuple[str, ...]
    drawn: dict[str, Any] | None = None
    picture: str | None = None


@dataclass(frozen=True)
class Goldens:
    """``parity golden list``."""

    goldens: tuple[Golden, ...]


@dataclass(frozen=True)
class Held:
    """A tensor that a golden keeps."""

    point: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Judged:
    """A figure with its bound and what follows."""

    metric: str
    value: float
    bound: float
    verdict: str


@dataclass(frozen=True)
class Distance:
    """How far an accepted golden is from its anchor; ``figures`` is null where that is itself, or is not there."""

    anchor: str
    there: bool
    figures: tuple[Judged, ...] | None


@dataclass(frozen=True)
class Shown:
    """Everything about a golden; ``accepted`` and ``distance`` are null where it is not accepted."""

    golden: str
    standing: str
    file: str
    picture: str
    drawn: Keys
    accepted: Keys | None
    distance: Distance | None
    weights: str
    case: dict[str, Any]
    environment: dict[str, Any]
    holds: tuple[Held, ...]
    decisions: tuple[Decision, ...]


@dataclass(frozen=True)
class ShownGoldens:
    """``parity golden show``; ``file`` is the picture, ``picture`` the SHA-256 of its pixels."""

    goldens: tuple[Shown, ...]


@dataclass(frozen=True)
class Side:
    """One of two goldens that are compared."""

    golden: str
    standing: str
    drawn: Keys


@dataclass(frozen=True)
class Setting:
    """What two goldens were drawn with differently: of ``case``, ``environment`` or ``weights``; null is absent."""

    part: str
    name: str
    first: Any
    second: Any


@dataclass(frozen=True)
class Point:
    """A tensor of two goldens: ``equal``, ``differs``, ``shapes`` (differ), ``first`` or ``second`` (has it alone)."""

    point: str
    state: str
    shapes: tuple[tuple[int, ...] | None, tuple[int, ...] | None]
    figures: dict[str, float]


@dataclass(frozen=True)
class GoldenDiff:
    """``parity golden diff``: ``equal`` speaks of the pictures, ``file`` is what ``-o`` wrote."""

    equal: bool
    first: Side
    second: Side
    settings: tuple[Setting, ...]
    points: tuple[Point, ...]
    file: str | None


@dataclass(frozen=True)
class Decided:
    """``parity golden approve``, ``reject`` and ``migrate``: what was added to the log."""

    decisions: tuple[Decision, ...]


@dataclass(frozen=True)
class PrunedGoldens:
    """``parity golden prune``: what was removed, or with ``--dry-run`` would be, and what stays and why."""

    removed: bool
    goldens: tuple[str, ...]
    kept: tuple[str, ...]
