"""What do commands print after ``--json`` about runs, nights and times? See :mod:`parity.commands.layouts`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from parity.bench.protocol import Protocol
from parity.bench.published import Source
from parity.runs.schema import Provenance, Record


@dataclass(frozen=True)
class Concluded:
    """What follows from a run: the exit code, and why it is not 0 where no failed cell says it."""

    exit_code: int
    messages: tuple[str, ...]


@dataclass(frozen=True)
class Change:
    """What is different since an earlier run."""

    text: str
    worse: bool


@dataclass(frozen=True)
class Changes:
    """All that is different, and since when."""

    since: str
    found: tuple[Change, ...]


@dataclass(frozen=True)
class Reported:
    """``parity run`` and ``parity report``, and the file ``report.json`` without the head; the worst cells first."""

    environment: dict[str, Any]
    records: tuple[Record, ...]
    conclusion: Concluded
    changes: Changes | None = None


@dataclass(frozen=True)
class Gate:
    """``parity gate``, and ``gate.json`` without the head; ``candidates`` by their numerics, with all scores."""

    base: str
    score: str
    plan: dict[str, Any]
    prompts: tuple[str, ...]
    seeds: tuple[tuple[int, ...], ...]
    candidates: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Found:
    """Something that changed over nights; ``first`` and ``last`` are the runs that it lies between, by number."""

    kind: str
    worse: bool
    machine: str
    cell: str
    what: str
    text: str
    first: int | None
    last: int | None


@dataclass(frozen=True)
class Checked:
    """``parity history check``."""

    runs: int
    series: int
    findings: tuple[Found, ...]


@dataclass(frozen=True)
class Trend:
    """A number over nights, its values in the order of runs; margins have a bound, seconds have none."""

    what: str
    unit: str
    bound: float | None
    values: tuple[float, ...]


@dataclass(frozen=True)
class Nights:
    """A cell on one machine: its verdict in each run that asked it (by number), and its series."""

    cell: str
    machine: str
    verdicts: dict[str, str]
    trends: tuple[Trend, ...]


@dataclass(frozen=True)
class Trends:
    """``parity history show``."""

    cells: tuple[Nights, ...]


@dataclass(frozen=True)
class Measured:
    """``parity bench``; ``candidates`` are as :class:`parity.bench.protocol.Measured`, seconds and bytes."""

    protocol: Protocol
    machine: Provenance
    candidates: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Published:
    """``parity bench --published``."""

    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Taken:
    """A run that was added to a history: its folder, and how many cells it answers."""

    folder: str
    cells: int


@dataclass(frozen=True)
class Added:
    """``parity history add``; ``runs`` is how many the history holds now."""

    db: str
    runs: int
    added: tuple[Taken, ...]


@dataclass(frozen=True)
class Merged:
    """``parity merge``: answers in the new folder, left out as answered twice, and missing; cells by verdict."""

    folder: str
    sources: tuple[str, ...]
    machines: tuple[str, ...]
    answers: int
    twice: int
    missing: int
    verdicts: dict[str, int]


@dataclass(frozen=True)
class Bound:
    """A bound and the figures that it follows from; ``nan`` where none follows. ``rms`` is in half precision's errors.

    ``left_out`` counts the figures that fail the bound which the other seeds give. The fields are those of
    :class:`parity.suite.calibration.Spread`, whose room a light installation, which can print schemas, cannot import.
    """

    point: str
    metric: str
    numerics: str
    count: int
    best: float
    worst: float
    bound: float
    left_out: int
    rms: float


@dataclass(frozen=True)
class Calibrated:
    """``parity calibrate``: the table's file, the figures' file, what was asked, and the bounds."""

    table: str
    samples: str | None
    seeds: int
    repeats: int
    kernels: tuple[str, ...]
    false_alarms: float
    figures: int
    bounds: tuple[Bound, ...]


@dataclass(frozen=True)
class Expected:
    """With differences that spread so: a loss fails with ``power``, an equal model passes; ``prompts`` it takes."""

    spread: float
    power: float
    passes: float
    prompts: int


@dataclass(frozen=True)
class GatePlan:
    """``parity gate --plan``; ``largest_spread`` is the one up to which the wanted power is reached."""

    plan: dict[str, Any]
    largest_spread: float
    expected: tuple[Expected, ...]
