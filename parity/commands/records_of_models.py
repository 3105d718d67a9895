"""What do commands print after ``--json`` about models and programs? See :mod:`parity.commands.layouts`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from parity.contracts.capability import Cell, Requirement
from parity.contracts.inspection import Inspection
from parity.contracts.memory import Memory


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
class Recipe:
    """Bits of each layer, the PSNR in decibels that each answer of the probe has with them, and their mean."""

    name: str
    layers: dict[str, int]
    psnr: tuple[float, ...]
    mean: float


@dataclass(frozen=True)
class Analysed:
    """``parity convert --analyse-bits``; ``file`` holds all figures."""

    file: str
    recipes: tuple[Recipe, ...]


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
