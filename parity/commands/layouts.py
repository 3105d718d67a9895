"""Which records do commands print after ``--json``? One class a document; ``docs/json.md`` says what they are for.

Classes of other rooms stand here where they are the whole document. ``schema`` writes a layout as JSON Schema
(2020-12), of which a schema checker needs nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

import msgspec

from parity.bench.protocol import Protocol
from parity.bench.published import Source
from parity.commands.records import Entry, Report
from parity.contracts.capability import Cell, Requirement
from parity.contracts.diff import FolderDiff
from parity.contracts.inspection import Inspection
from parity.contracts.memory import Memory
from parity.coreai.comparison import Comparison
from parity.errors import UsageError
from parity.runs.schema import Provenance, Record
from parity.tables import nearest

SCHEMA: Final = 1
"""Number of the layouts; raised when a field of one changes its meaning or goes. Fields may join without that."""


@dataclass(frozen=True)
class Capabilities:
    """What releases can do with one folder: a cell for each task and release."""

    bundle: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Inspected:
    """``parity inspect``; ``platforms`` as docs/contracts.md lists them, ``memory`` with ``--memory``."""

    inspection: Inspection
    capabilities: tuple[Capabilities, ...]
    platforms: tuple[dict[str, Any], ...]
    requirements: tuple[Requirement, ...]
    memory: tuple[Memory, ...] = ()


@dataclass(frozen=True)
class CoreAI:
    """``parity inspect FILE.aimodel``: functions with their features, sizes, and what wrote it."""

    described: dict[str, Any]


@dataclass(frozen=True)
class Planned:
    """A model that is repaired: its path, the repairs in their order, and the name of the result."""

    path: str
    repairs: tuple[str, ...]
    name: str


@dataclass(frozen=True)
class Proved:
    """One output of a repaired model against its original's; ``largest`` is the largest absolute difference."""

    output: str
    elements: int
    largest: float
    exact: bool
    passed: bool


@dataclass(frozen=True)
class Written:
    """A repaired model that was written."""

    source: str
    target: str
    changes: tuple[str, ...]
    proofs: tuple[Proved, ...]


@dataclass(frozen=True)
class Repairs:
    """``parity repair``: plan, what cannot be repaired (path to reason), and with no ``--dry-run`` what was written."""

    planned: tuple[Planned, ...]
    refused: dict[str, str]
    written: tuple[Written, ...]
    copied: tuple[str, ...]


@dataclass(frozen=True)
class Package:
    """A converted package: component, path, and what its comparison with PyTorch gave."""

    component: str
    path: str
    note: str


@dataclass(frozen=True)
class Converted:
    """``parity convert``."""

    packages: tuple[Package, ...]


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
class Size:
    """Bytes of one component: weights as stored and as declared, and the values that are alive at one time."""

    stored: int
    expanded: int
    alive: int
    flexible: bool


@dataclass(frozen=True)
class Sizes:
    """``parity bench --estimate``, by component."""

    components: dict[str, Size]


@dataclass(frozen=True)
class Published:
    """``parity bench --published``."""

    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Drawn:
    """``parity latents``: what was drawn, its first values, the SHA-256 of its bytes, and the file."""

    name: str
    seeds: tuple[int, ...]
    dtype: str
    shape: tuple[int, ...]
    first: tuple[float, ...]
    sha256: str
    file: str | None


@dataclass(frozen=True)
class Difference:
    """Where two arrays part: fields as :class:`parity.streams.compare.Difference`."""

    count: int
    differing: int
    first: tuple[int, ...] | None
    first_values: tuple[float, float] | None
    largest: float
    largest_at: tuple[int, ...] | None
    undefined: int


@dataclass(frozen=True)
class Cause:
    """Why they part; see :class:`parity.streams.compare.Cause`."""

    kind: str
    text: str


@dataclass(frozen=True)
class Compared:
    """``parity latents --compare``; ``difference`` is null where shapes differ."""

    equal: bool
    difference: Difference | None
    causes: tuple[Cause, ...]


@dataclass(frozen=True)
class Detected:
    """``parity latents --detect``: torch's version, kernel and rules; empty texts are none that is known."""

    torch: str
    kernel: str
    half_rule: str


@dataclass(frozen=True)
class Timed:
    """One operation, with the median of its seconds."""

    name: str
    operator: str
    seconds: float


@dataclass(frozen=True)
class Profile:
    """``parity mil profile``, the slowest operations first; ``first`` and ``then`` are seconds of a prediction."""

    path: str
    numerics: str
    first: float
    then: float
    operations: tuple[Timed, ...]


@dataclass(frozen=True)
class Departure:
    """A result against its float32 value: relative error, by how much it grew here, and the largest magnitude."""

    place: str
    error: float
    gain: float
    largest: float
    leaves: bool
    departs: bool
    text: str


@dataclass(frozen=True)
class Departures:
    """``parity mil compare``, in the order of execution."""

    path: str
    numerics: str
    results: tuple[Departure, ...]


@dataclass(frozen=True)
class Operators:
    """``parity mil operators``: name to the first opset of each version of it."""

    operators: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Cached:
    """``parity cache list``, the oldest first; ``seconds`` are ages."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Pruned:
    """``parity cache prune``: what was removed, or with ``--dry-run`` would be."""

    removed: bool
    entries: tuple[Entry, ...]


LAYOUTS: Final[Mapping[str, type]] = {
    "inspect": Inspected,
    "inspect core-ai": CoreAI,
    "diff": FolderDiff,
    "diff core-ai": Comparison,
    "repair": Repairs,
    "convert": Converted,
    "run": Reported,
    "gate": Gate,
    "golden list": Goldens,
    "history check": Checked,
    "history show": Trends,
    "bench": Measured,
    "bench estimate": Sizes,
    "bench published": Published,
    "latents": Drawn,
    "latents compare": Compared,
    "latents detect": Detected,
    "mil profile": Profile,
    "mil compare": Departures,
    "mil operators": Operators,
    "cache list": Cached,
    "cache prune": Pruned,
    "doctor": Report,
}
"""Documents by what stands in their field ``document``; ``parity report`` prints ``run``."""


def schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a document.

    Parameters
    ----------
    name : str
        A key of :data:`LAYOUTS`.

    Raises
    ------
    UsageError
        There is no such document.
    """
    if name not in LAYOUTS:
        raise UsageError(f"no document {name!r}{nearest(name, LAYOUTS)}; 'parity schema' lists them")
    layout = LAYOUTS[name]
    made = _with_infinities(msgspec.json.schema(layout))
    inner = made["$defs"][layout.__name__]
    inner["properties"] = {"document": {"const": name}, "schema": {"const": SCHEMA}, **inner["properties"]}
    inner["required"] = ["document", "schema", *(field.name for field in fields(layout))]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def _with_infinities(part: Any) -> Any:
    """Let numbers be ``nan``, ``inf`` and ``-inf`` as texts, which JSON has no numbers for."""
    if isinstance(part, dict):
        if part.get("type") == "number":
            return {"anyOf": [part, {"enum": ["nan", "inf", "-inf"]}]}
        return {key: _with_infinities(value) for key, value in part.items()}
    if isinstance(part, list):
        return [_with_infinities(value) for value in part]
    return part
