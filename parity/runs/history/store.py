"""Where are nights kept, so that ten thousand cells load in a moment?

An SQLite file that holds no more than run folders do, and can be made of them again at any time. Runs are ordered as
they were added, never by a clock. A *series* is one number of a cell on a machine: the margin of a check, or seconds.
The numbers of a run are four arrays in its row (little endian): ids of cells and their verdicts, ids of series and
their values; a row for each number would take four times as long to load.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from parity.errors import FormatError, MissingError, UnsupportedError, UsageError
from parity.runs import ledger
from parity.runs.ledger import Entry, Ledger
from parity.runs.schema import Session
from parity.runs.since import facts

SCHEMA: Final = 1
CAP: Final = 200.0
"""Where an infinite margin (equal arrays) stands in a series, so that leaving it is a change."""

_TABLES: Final = """
CREATE TABLE environment (id INTEGER PRIMARY KEY, facts TEXT NOT NULL UNIQUE);
CREATE TABLE run (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, machine TEXT NOT NULL, started TEXT NOT NULL,
    environment INTEGER NOT NULL REFERENCES environment,
    cells BLOB, verdicts BLOB, series BLOB, numbers BLOB, UNIQUE (name, machine)
);
CREATE TABLE cell (
    id INTEGER PRIMARY KEY, machine TEXT NOT NULL, name TEXT NOT NULL, sentence TEXT NOT NULL, UNIQUE (machine, name)
);
CREATE TABLE series (
    id INTEGER PRIMARY KEY, cell INTEGER NOT NULL REFERENCES cell, what TEXT NOT NULL, unit TEXT NOT NULL,
    bound REAL, UNIQUE (cell, what)
);
"""
_ID: Final = np.dtype("<i4")
_CODE: Final = np.dtype("<i1")
_NUMBER: Final = np.dtype("<f8")
VERDICTS: Final = ("pass", "fail", "unknown")
"""Verdicts by their code in :meth:`Store.answers`."""


@dataclass(frozen=True)
class Run:
    """A run on one machine.

    Attributes
    ----------
    id : int
        Its place among all that were added.
    machine, started : str
    facts : mapping
        Versions, system, and the digests of what was asked.
    """

    id: int
    machine: str
    started: str
    facts: Mapping[str, str]

    @property
    def title(self) -> str:
        """The run of its machine in a few words."""
        return f"run {self.id} ({self.started[:16].replace('T', ' ')})"


@dataclass(frozen=True)
class Series:
    """One number over runs.

    Attributes
    ----------
    id : int
    machine, cell : str
        The cell by its id.
    what : str
        Point and metric (``image image_psnr``), or ``seconds candidate``.
    unit : str
        ``dB``, ``s`` or empty.
    bound : float or None
        The latest bound; None for seconds, and where it is infinite.
    """

    id: int
    machine: str
    cell: str
    what: str
    unit: str
    bound: float | None


class Store:
    """A history in a file; use as a context manager.

    Parameters
    ----------
    path : path
    create : bool
        Whether a new file is made where there is none.

    Raises
    ------
    MissingError, FormatError, UnsupportedError, UsageError
        No such file; not a history; one of a newer release; it cannot be written.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        if not create and not path.is_file():
            raise MissingError(f"{path}: no such history; 'parity history add DIR' makes one of run folders")
        self.path = path
        with self._told():
            self._base = sqlite3.connect(path, timeout=30)
            version = self._base.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA:
                raise UnsupportedError(f"{path}: a history of a newer parity (schema {version}); update parity")
            if version == 0 and self._base.execute("SELECT 1 FROM sqlite_master").fetchone():
                raise FormatError(f"{path}: an SQLite file, but no history")
            if version == 0:
                self._base.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;")

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self._base.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            damaged = "not a database" in str(error) or "malformed" in str(error)
            if damaged:
                raise FormatError(f"{self.path}: {error}; make it anew of the run folders") from None
            raise UsageError(f"{self.path}: {error}") from None

    def add(self, folder: Path) -> int:
        """Take the answers of a run's folder, or take them again where it was resumed since; return their number.

        Raises
        ------
        UsageError
            It is a run of another model than the runs before.
        ParityError
            The folder cannot be read; nothing of it is taken then.
        """
        read = ledger.read(folder)
        latest = read.latest().values()
        with self._told(), self._base:
            self._refuse_other(folder, read.sessions[-1].question.get("model", ""))
            for machine, sessions in _by_machine(read).items():
                own = [entry for entry in latest if entry.session.machine == machine]
                self._keep(self._run(sessions), own)
        return len(latest)

    def _refuse_other(self, folder: Path, model: str) -> None:
        """Cells of two models have the same ids."""
        there = self._base.execute("SELECT facts FROM environment LIMIT 1").fetchone()
        known = json.loads(there[0]).get("model", "") if there else model
        if known != model:
            raise UsageError(f"{folder}: a run of {model}; {self.path} is the history of {known}: keep a file a model")

    def _keep(self, run: int, entries: Sequence[Entry]) -> None:
        cells, verdicts, series, numbers = [], [], [], []
        for entry in entries:
            record = entry.record
            cell = self._number("cell", machine=entry.session.machine, name=record["id"], others=(record["sentence"],))
            cells.append(cell)
            verdicts.append(VERDICTS.index(record["verdict"]))
            for what, (unit, bound, value) in _numbers(record).items():
                series.append(self._number("series", cell=cell, what=what, others=(unit, bound)))
                numbers.append(value)
        given = ((cells, _ID), (verdicts, _CODE), (series, _ID), (numbers, _NUMBER))
        arrays = [np.array(values, kind).tobytes() for values, kind in given]
        self._base.execute(
            "UPDATE run SET cells = ?, verdicts = ?, series = ?, numbers = ? WHERE id = ?", (*arrays, run)
        )

    def _run(self, sessions: Sequence[Session]) -> int:
        """Return the row of a machine's runs in a folder; a merged folder may hold several, which are one night."""
        session, names = sessions[-1], sorted({session.run for session in sessions})
        name = names[0] if len(names) == 1 else hashlib.sha256("".join(names).encode()).hexdigest()[:32]
        environment = self._number("environment", facts=json.dumps(facts(session), sort_keys=True))
        others = (session.started, environment, *[None] * 4)
        number = self._number("run", name=name, machine=session.machine, others=others)
        self._base.execute("UPDATE run SET environment = ? WHERE id = ?", (environment, number))
        return number

    def _number(self, table: str, *, others: tuple[Any, ...] = (), **key: Any) -> int:
        """Return the row of a key, made if there is none; ``others`` are the columns behind it."""
        where = " AND ".join(f"{column} = ?" for column in key)
        found = self._base.execute(f"SELECT id FROM {table} WHERE {where}", tuple(key.values())).fetchone()
        if found:
            return int(found[0])
        values = (None, *key.values(), *others)
        made = self._base.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(values))})", values)
        return int(made.lastrowid or 0)

    def runs(self) -> dict[int, Run]:
        """Return all runs in their order."""
        with self._told():
            rows = self._base.execute(
                "SELECT run.id, machine, started, facts FROM run JOIN environment ON environment.id = environment "
                "ORDER BY run.id"
            ).fetchall()
        return {number: Run(number, machine, started, json.loads(facts)) for number, machine, started, facts in rows}

    def series(self, cell: str = "") -> list[Series]:
        """Return the series, of one cell if it is named, by machine and cell."""
        with self._told():
            rows = self._base.execute(
                "SELECT series.id, machine, name, what, unit, bound FROM series JOIN cell ON cell.id = cell "
                "WHERE name = ? OR ? = '' ORDER BY machine, name, series.id",
                (cell, cell),
            ).fetchall()
        return [Series(*row) for row in rows]

    def values(self, since: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return values as three arrays: series (int64), run (int64), value (float64), by series and run.

        Parameters
        ----------
        since : int
            The first run that is wanted.
        """
        return self._arrays("series", "numbers", _NUMBER, since)

    def answers(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return verdicts as three arrays, by cell and run: cell, run (int64), index in :data:`VERDICTS` (int8)."""
        return self._arrays("cells", "verdicts", _CODE, 0)

    def _arrays(self, ids: str, values: str, kind: np.dtype, since: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        with self._told():
            rows = self._base.execute(
                f"SELECT id, {ids}, {values} FROM run WHERE id >= ? ORDER BY id", (since,)
            ).fetchall()
        own = [np.frombuffer(row[1], _ID).astype(np.int64) for row in rows]
        whose = np.concatenate([np.empty(0, np.int64), *own])
        when = np.repeat(np.array([row[0] for row in rows], np.int64), [len(found) for found in own])
        what = np.concatenate([np.empty(0, kind), *(np.frombuffer(row[2], kind) for row in rows)])
        order = np.argsort(whose, kind="stable")  # runs are in order already
        return whose[order], when[order], what[order]

    def cells(self) -> dict[int, tuple[str, str]]:
        """Return machine and id of each cell, by its number in :meth:`answers`."""
        with self._told():
            return {
                number: (machine, name)
                for number, machine, name in self._base.execute(
                    "SELECT id, machine, name FROM cell ORDER BY machine, name"
                )
            }

    def verdicts(self, cell: str = "") -> dict[tuple[str, str], list[tuple[int, str]]]:
        """Return runs and verdicts by machine and cell, in the order of the runs; of one cell if it is named."""
        whose, when, codes = self.answers()
        found: dict[tuple[str, str], list[tuple[int, str]]] = {}
        for number, key in self.cells().items():
            if cell in ("", key[1]):
                own = slice(*np.searchsorted(whose, [number, number + 1]))
                told = zip(when[own].tolist(), codes[own].tolist(), strict=True)
                found[key] = [(run, VERDICTS[code]) for run, code in told]
        return found

    def flaky(self) -> list[tuple[str, str, int, int]]:
        """Return machine, cell, passes and failures of cells that went to and fro with the same question and versions.

        One turn is a change whose cause nothing here names; a cell that turns back did not change.
        """
        whose, when, codes = self.answers()
        with self._told():
            rows = self._base.execute("SELECT id, environment FROM run").fetchall()
        if not rows:
            return []
        environments = np.zeros(max(run for run, _ in rows) + 1, np.int64)
        for run, environment in rows:
            environments[run] = environment
        decided = codes < VERDICTS.index("unknown")
        whose, when, codes = whose[decided], when[decided], codes[decided]
        keys = whose * (len(environments) + 1) + environments[when]
        order = np.argsort(keys, kind="stable")  # runs are in order already
        whose, keys, codes = whose[order], keys[order], codes[order]
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        turns = (np.diff(keys, prepend=-1) == 0) & (np.diff(codes.astype(np.int64), prepend=0) != 0)
        told = np.add.reduceat(np.stack([turns, codes == 0, codes == 1]).astype(np.int64), starts, axis=1)
        cells = self.cells()
        found = zip(whose[starts].tolist(), *told.tolist(), strict=True)
        return [(*cells[cell], passes, failures) for cell, turned, passes, failures in found if turned > 1]


def _by_machine(read: Ledger) -> dict[str, list[Session]]:
    found: dict[str, list[Session]] = {}
    for session in read.sessions:
        found.setdefault(session.machine, []).append(session)
    return found


def _numbers(record: Mapping[str, Any]) -> dict[str, tuple[str, float | None, float]]:
    """Return unit, bound and value of each number of a record; what was not measured is left out."""
    found: dict[str, tuple[str, float | None, float]] = {}
    for check in record["checks"]:
        margin, bound = float(check["margin"]), float(check["bound"])
        if check["metric"] and not np.isnan(margin):
            unit = "dB" if check["shown"]["margin"].endswith("dB") else ""
            finite = bound if np.isfinite(bound) else None
            found[f"{check['point']} {check['metric']}"] = unit, finite, float(np.clip(margin, -CAP, CAP))
    for role, seconds in record["seconds"].items():
        if seconds > 0:
            found[f"seconds {role}"] = "s", None, float(seconds)
    return found
