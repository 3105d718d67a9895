"""The result of one cell: checks, verdict, pictures, and the command that reproduces it."""

from __future__ import annotations

import base64
import io
import math
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from parity.coreml import COMPUTE_UNITS
from parity.metrics import registry
from parity.suite import comparison
from parity.suite.comparison import Check
from parity.suite.course import METRIC, Course
from parity.suite.options import OPTIONS, Options
from parity.suite.plan import Cell
from parity.suite.tolerance import PICTURES
from parity.suite.verdict import Verdict, combine

_NOT_REPEATED = {  # options that do not decide a cell
    "cell",
    "run_dir",
    "resume",
    "traces",
    "machine",
    "isolate",
    "cell_timeout",
    "cells_per_process",
    "parity_report",
    "update_golden",
    "earlier",
    "expected",
    "parity_strict",
    "reduce_memory",
}


@dataclass(frozen=True)
class Outcome:
    """What was found for a cell.

    Attributes
    ----------
    cell : Cell
        The question.
    checks : tuple of Check
        One per point compared; never empty.
    seconds : dict
        Wall time of the runs, by role.
    pictures : dict
        uint8 (images, height, width, 3) by role: ``reference``, ``candidate``.
    reproduce : str
        One command that repeats this cell alone.
    remarks : tuple of str
        What a reader must know whatever the verdict, see :mod:`parity.suite.remarks`.
    asked : bool
        False where the run was interrupted before this cell's turn.
    course : Course, optional
        How the latents part, where two runs were compared.
    golden : mapping, optional
        Which golden was compared and who accepted it, see :class:`parity.suite.questions.golden.Accepted`, with its
        sentence.
    """

    cell: Cell
    checks: tuple[Check, ...]
    seconds: dict[str, float]
    reproduce: str
    pictures: dict[str, np.ndarray] = field(default_factory=dict, compare=False)
    remarks: tuple[str, ...] = ()
    asked: bool = True
    course: Course | None = field(default=None, compare=False)
    golden: Mapping[str, str | int] | None = None

    @property
    def bad_input(self) -> tuple[str, ...]:
        """Messages of checks that could not be made because a file is at fault."""
        return tuple(check.message for check in self.checks if check.bad_input)

    @property
    def verdict(self) -> Verdict:
        """Combination of the checks' verdicts."""
        return combine(check.verdict for check in self.checks)

    @property
    def decisive(self) -> Check:
        """The check that a table shows: the first failure, else the first unknown, else the image, else the closest."""
        for verdict in (Verdict.FAIL, Verdict.UNKNOWN):
            if found := [check for check in self.checks if check.verdict is verdict]:
                return found[0]
        return next((check for check in self.checks if check.point in PICTURES), self.checks[0])

    def explain(self) -> str:
        """Return everything a reader needs about what did not pass, ending with the command that repeats it."""
        return f"{self.cell.sentence}\n{comparison.messages(self.checks)}\n  reproduce: {self.reproduce}"

    def record(self) -> dict[str, Any]:
        """Return the outcome as JSON-serialisable data; pictures become PNG in base64, NaN and infinity text."""
        sheets = {"latents": self.course.sheet} if self.course else {}
        return {
            "id": self.cell.id,
            "case": self.cell.case.name,
            "sentence": self.cell.sentence,
            "model": self.cell.model,
            "kind": self.cell.kind,
            "backend": self.cell.numerics,
            "units": list(self.cell.units),
            "producer": self.cell.case.producer,
            "against": self.cell.against,
            "settings": self.cell.case.settings(),
            "verdict": str(self.verdict),
            "asked": self.asked,
            "bad_input": list(self.bad_input),
            "expected": "",  # see parity.suite.expected
            "warnings": [],  # see parity.suite.earlier
            "decisive": self.checks.index(self.decisive),
            "checks": [_check(check) for check in self.checks],
            "seconds": {role: round(value, 3) for role, value in self.seconds.items()},
            "reproduce": self.reproduce,
            "remarks": list(self.remarks),
            "explanation": self.explain() if self.verdict is not Verdict.PASS else "",
            "pictures": {role: _png(pixels) for role, pixels in (self.pictures | sheets).items()},
            "course": _course(self.course) if self.course else None,
            "golden": None if self.golden is None else dict(self.golden),
            "worker": "",
        }


def _course(course: Course) -> dict[str, Any]:
    return {
        "metric": METRIC,
        "points": list(course.points),
        "values": [_number(value) for value in course.values],
        "shown": list(course.shown),
        "scale": _number(course.scale),
    }


def _check(check: Check) -> dict[str, Any]:
    metric = registry.get(check.metric) if check.metric else None
    return {
        "point": check.point,
        "where": check.where,
        "metric": check.metric,
        "value": _number(check.value),
        "bound": _number(check.bound),
        "margin": _number(check.margin),
        "shown": {
            "value": metric.format(check.value) if metric else "-",
            "bound": metric.format(check.bound) if metric else "-",
            "margin": metric.format(check.margin) if metric else "-",
        },
        "verdict": str(check.verdict),
        "message": check.message,
        "bad_input": check.bad_input,
        "yardstick": None if check.score is None else {key: _number(n) for key, n in asdict(check.score).items()},
    }


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _png(pixels: np.ndarray) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(list(pixels), axis=1)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def reproduce(options: Options, cell: Cell) -> str:
    """Return the ``parity run`` command that repeats exactly one cell: the run's options and the cell's id."""
    given = replace(options, backend=(cell.backend,), compute_unit=COMPUTE_UNITS) if cell.backend else options
    given = replace(given, producers=(cell.case.producer,) if options.producers else ())
    words = ["parity", "run"]
    for option in OPTIONS:
        value = getattr(given, option.key)
        if option.key in _NOT_REPEATED or value == getattr(Options(), option.key):
            continue
        for entry in value if isinstance(value, tuple) else (value,):
            words += [f"--{option.name}", str(entry)]
    return shlex.join([*words, "--cell", cell.id])
