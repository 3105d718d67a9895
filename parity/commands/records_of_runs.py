"""What do commands print after ``--json`` about runs, goldens, nights and times? See :mod:`parity.commands.layouts`."""

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
