"""Which failures are known, who looks after each, and until when?

Expected failures are data (``--expected FILE``)::

    [[expected]]
    cell = "candidate/ring/coreml:CPU_AND_NE"  # an id, or a pattern
    points = ["vae_decoder", "image"]  # the checks that may fail; without it any
    owner = "ada@example.org"
    reason = "VAE decoder overflows on the Neural Engine; FB123456"
    until = 2026 - 12 - 31

Such a cell is asked as ever, and its record says *fail*; the run goes on without it. The list is strict: a listed cell
that passes fails, so that the entry is removed; an entry whose day is over excuses nothing; and what fails beyond its
points fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from datetime import date, datetime, timezone
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from parity import tables
from parity.errors import FormatError


@dataclass(frozen=True)
class Expected:
    """An entry of the list.

    Attributes
    ----------
    cell : str
        A cell's id, or a pattern of ids.
    owner, reason : str
        Who looks after it; why it fails.
    until : datetime.date
        The last day on which it is excused, in UTC.
    points : tuple of str
        The checks that may fail, as tolerances name them; empty for any.
    """

    cell: str
    owner: str
    reason: str
    until: date
    points: tuple[str, ...] = ()

    def speaks_of(self, cell: str) -> bool:
        """Return whether the entry is about a cell, by its id."""
        return fnmatchcase(cell, self.cell) or cell == self.cell

    def excuses(self, point: str) -> bool:
        """Return whether a check at this point may fail."""
        return not self.points or point in self.points

    def __str__(self) -> str:
        return f"until {self.until}, {self.owner}: {self.reason}"


def load(path: Path | None) -> tuple[Expected, ...]:
    """Read a list; without a file it is empty.

    Raises
    ------
    MissingError, FormatError
        No such file; a key is unknown (the nearest is suggested), missing or of another kind; the message names the
        entry.
    """
    if path is None:
        return ()
    document = tables.read(path)
    entries = document.get("expected", [])
    for key in document:
        if key != "expected":
            raise FormatError(f"{path}: unknown {key!r}{tables.nearest(key, ['expected'])}; entries are [[expected]]")
    if not isinstance(entries, list):
        raise FormatError(f"{path}: entries are tables: [[expected]]")
    return tuple(_entry(f"{path}: [[expected]] number {n}", entry) for n, entry in enumerate(entries, start=1))


def _entry(where: str, entry: object) -> Expected:
    if not isinstance(entry, dict):
        raise FormatError(f"{where}: a table is needed, not {entry!r:.60}")
    known = [field.name for field in fields(Expected)]
    needed = [field.name for field in fields(Expected) if field.default is MISSING]
    for key, value in entry.items():
        if key not in known:
            raise FormatError(f"{where}: unknown key {key!r}{tables.nearest(key, known)}; known are {', '.join(known)}")
        _check(where, key, value)
    if missing := [key for key in needed if key not in entry]:
        raise FormatError(f"{where}: {' and '.join(missing)} must be given")
    return Expected(**{**entry, "points": tuple(entry.get("points", ()))})


def _check(where: str, key: str, value: object) -> None:
    if key == "until":
        if not isinstance(value, date) or isinstance(value, datetime):
            raise FormatError(f"{where}: until must be a date such as 2026-12-31, without quotes, not {value!r:.60}")
    elif key == "points":
        if not isinstance(value, list) or not value or not all(isinstance(point, str) and point for point in value):
            raise FormatError(f'{where}: points must be a list such as ["image"], not {value!r:.60}')
    elif not isinstance(value, str) or not value.strip():
        raise FormatError(f"{where}: {key} must be a text, not {value!r:.60}")


def applied(record: dict[str, Any], entries: Sequence[Expected], today: date | None = None) -> dict[str, Any]:
    """Return a cell's record with what the list says about it.

    Parameters
    ----------
    record : dict
        From :meth:`parity.suite.outcome.Outcome.record`.
    entries : sequence of Expected
        The list.
    today : datetime.date, optional
        The day that counts; today in UTC.

    Returns
    -------
    dict
        ``expected`` says by which entries the failure is excused, and is empty where it is not. Where an entry does
        not hold any more (the cell passes, or its day is over) the record fails with a check that says so.
    """
    mine = [entry for entry in entries if entry.speaks_of(record["id"])]
    if not mine or record["verdict"] == "unknown":
        return record
    day = today or datetime.now(timezone.utc).date()
    failing = [check["point"] for check in record["checks"] if check["verdict"] == "fail"]
    stale = [_stale(entry, failing, day) for entry in mine]
    if wrong := [text for text in stale if text]:
        return _failing(record, wrong)
    if all(any(entry.excuses(point) for entry in mine) for point in failing):
        excused = "; ".join(str(entry) for entry in mine)
        remark = f"expected to fail {excused}"
        return {**record, "expected": excused, "remarks": [*record["remarks"], remark]}
    return record


def _stale(entry: Expected, failing: Sequence[str], day: date) -> str:
    """Say why an entry does not hold any more; empty if it does."""
    if not any(entry.excuses(point) for point in failing):
        what = f"{', '.join(entry.points)} of a cell" if entry.points else "a cell"
        return f"{what} that is expected to fail passes: take the entry {entry.cell!r} out of the list ({entry})"
    if day > entry.until:
        return f"the entry {entry.cell!r} of the list of expected failures has expired ({entry})"
    return ""


def _failing(record: dict[str, Any], reasons: Sequence[str]) -> dict[str, Any]:
    nothing = {"value": "nan", "bound": "nan", "margin": "nan", "metric": "", "bad_input": False}
    shown = {"value": "-", "bound": "-", "margin": "-"}
    checks = [
        {**nothing, "point": "expected", "where": "list", "verdict": "fail", "message": text, "shown": shown}
        for text in reasons
    ]
    known = record["explanation"] or f"{record['sentence']}\n  reproduce: {record['reproduce']}"
    headline, rest = known.split("\n", 1)
    explanation = "\n".join([headline, *reasons, rest])
    decisive = record["decisive"] if record["verdict"] == "fail" else len(record["checks"])
    return {
        **record,
        "verdict": "fail",
        "checks": [*record["checks"], *checks],
        "decisive": decisive,
        "explanation": explanation,
    }


def excused(record: dict[str, Any]) -> bool:
    """Return whether a record's failure is expected, and fails no run."""
    return record["verdict"] == "fail" and bool(record.get("expected"))


def unmatched(entries: Sequence[Expected], cells: Sequence[str]) -> list[str]:
    """Return a line for each entry that is about none of a run's cells."""
    return [
        f"expected failure {entry.cell!r} is about no cell of this run ({entry})"
        for entry in entries
        if not any(entry.speaks_of(cell) for cell in cells)
    ]
