"""What stands in a line of a ledger?

Two kinds of lines: a *session* says who runs, with what, and what is planned; a *cell* is one finished cell with its
record, as :meth:`parity.suite.outcome.Outcome.record` gives it, pictures by their SHA-256. Lines are checked by msgspec
against the classes here, and :func:`json_schema` writes the same as JSON Schema for other languages. Fields that this
release does not know are kept: they are what a later release of the same schema adds.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Union

import msgspec
from msgspec import Meta, Struct

SCHEMA: Final = 1
"""Number of the layout; raised when a field changes its meaning or goes. Newer ones are refused by name."""

Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="SHA-256 of a PNG file in pictures/")]
Number = Annotated[
    Union[float, Literal["nan", "inf", "-inf"]],  # noqa: UP007 (evaluated by msgspec, on Python 3.10 too)
    Meta(description="a number; JSON has no NaN and no infinity, so these are texts"),
]
Verdict = Literal["pass", "fail", "unknown"]


class Shown(Struct, frozen=True):
    """A check's numbers as a table prints them, with units."""

    value: str
    bound: str
    margin: str


class Yardstick(Struct, frozen=True):
    """An error against half precision's own; fields as in :class:`parity.suite.score.Score`."""

    half: Number
    rms: Number
    largest: Number
    overlap: Number


class Check(Struct, frozen=True):
    """One comparison; fields as in :class:`parity.suite.comparison.Check`."""

    point: str
    where: str
    metric: str
    value: Number
    bound: Number
    margin: Number
    shown: Shown
    verdict: Verdict
    message: str
    bad_input: bool
    yardstick: Yardstick | None = None


class Course(Struct, frozen=True):
    """How two runs' latents part, step by step; fields as in :class:`parity.suite.course.Course`."""

    metric: str
    points: list[str]
    values: list[Number]
    shown: list[str]
    scale: Number

    def __post_init__(self) -> None:
        if len(self.values) != len(self.points):
            raise ValueError(f"{len(self.points)} points and {len(self.values)} values")


class Golden(Struct, frozen=True):
    """Which golden was compared and who accepted it; as :class:`parity.suite.questions.golden.Accepted`."""

    id: str
    author: str
    time: str
    reason: str
    count: int
    sentence: str


class Asked(Struct, frozen=True):
    """What a cell asks."""

    id: str
    case: str
    sentence: str
    model: str
    kind: str
    backend: str
    units: list[str]
    producer: str
    against: str
    settings: dict[str, Any]


class Planned(Asked, frozen=True):
    """A cell that the run asks: enough to report it when its answer is missing.

    ``digest`` covers what decides this cell beside the run's question: its settings, and the content of its pictures.
    """

    reproduce: str
    digest: str


class Record(Asked, frozen=True):
    """A cell's result; fields as :meth:`parity.suite.outcome.Outcome.record` gives them, pictures by digest."""

    verdict: Verdict
    asked: bool
    bad_input: list[str]
    decisive: Annotated[int, Meta(ge=0, description="index of the check that a table shows")]
    checks: Annotated[list[Check], Meta(min_length=1)]
    seconds: dict[str, float]
    reproduce: str
    remarks: list[str]
    explanation: str
    pictures: dict[str, Digest]
    expected: Annotated[str, Meta(description="by which entries a failure is expected; empty if it is not")] = ""
    warnings: Annotated[list[str], Meta(description="what passes with much less room than in an earlier run")] = []
    course: Course | None = None
    golden: Golden | None = None
    worker: Annotated[str, Meta(description="who of a fleet answered, with the chip; empty elsewhere")] = ""

    def __post_init__(self) -> None:
        if self.decisive >= len(self.checks):
            raise ValueError(f"decisive is {self.decisive}, and there are {len(self.checks)} checks")


class Provenance(Struct, frozen=True):
    """Where a session ran: versions by package, variables that can change numbers, the commit of a checkout."""

    chip: str
    system: str
    build: str
    architecture: str
    python: str
    packages: dict[str, str]
    variables: dict[str, str]
    commit: str


class Session(Struct, frozen=True, tag="session", tag_field="line"):
    """Begins a run, and each resumption of it.

    ``question`` names what decides all cells, with digests: model, weights, packages, tolerances, goldens, options.
    ``run`` is the same in every session of a run; ``machine`` is the name that trends are kept under. ``parity`` is the
    project's version, ``started`` is for readers: nothing is ordered by it.
    """

    schema: Annotated[int, Meta(ge=1)]
    run: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
    session: Annotated[int, Meta(ge=1)]
    parity: str
    started: str
    machine: Annotated[str, Meta(min_length=1)]
    provenance: Provenance
    question: dict[str, str]
    planned: list[Planned]


class Cell(Struct, frozen=True, tag="cell", tag_field="line"):
    """A finished cell.

    ``sequence`` counts the cells of a ledger and orders them; ``finished`` is the wall clock, which may run backwards.
    """

    sequence: Annotated[int, Meta(ge=1)]
    session: Annotated[int, Meta(ge=1)]
    finished: str
    digest: str
    record: Record


Line = Union[Session, Cell]  # noqa: UP007 (evaluated by msgspec, on Python 3.10 too)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a line."""
    schema = msgspec.json.schema(Line)
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"a line of a parity ledger, schema {SCHEMA}",
    }
    return {**head, **schema}
