"""What does a worker of a fleet do for one cell?

These functions run in Dask's workers. They refuse to answer for another version of the project, or where the models,
tables or goldens are not the client's: such an answer would be one to another question.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from parity import __version__
from parity.errors import ParityError
from parity.files import require_writable
from parity.fleet import spool
from parity.suite import options as suite_options
from parity.suite import plan
from parity.suite.isolated import IsolatedRun
from parity.suite.plan import Cell
from parity.suite.run import Record

FROM_OUTSIDE: Final = ("SIGHUP", "SIGINT", "SIGKILL", "SIGTERM")
"""Signals that somebody sends to a process: the system, out of memory or going down; what crashes has other ones."""
TIMES: Final = 3
"""How often a cell is asked in all whose process is ended from outside while its worker lives on."""


@dataclass(frozen=True)
class Job:
    """What all tasks of a run have in common.

    Attributes
    ----------
    run : str
        Of :class:`parity.runs.schema.Session`.
    version : str
        The client's version of the project.
    options : mapping
        As :func:`parity.suite.isolated.encoded` gives them.
    question : mapping of str to str
        What the client takes for decisive, with digests.
    command : tuple of str
        What answers, in the place of :mod:`parity.fleet.child`.
    """

    run: str
    version: str
    options: Mapping[str, Any]
    question: Mapping[str, str]
    command: tuple[str, ...] = ()


class PatientRun(IsolatedRun):
    """Asks a cell again whose process somebody else ended; one that crashes or is out of time has its answer."""

    _ended_before: int = 0

    def ask(self, cell: Cell) -> Record:
        """Return the record of a cell, as :meth:`IsolatedRun.ask`, after at most :data:`TIMES` processes."""
        self._ended_before = 0
        return super().ask(cell)

    def _ended(self, cell: Cell, how: str, message: str) -> Record:
        self._ended_before += 1
        if how not in FROM_OUTSIDE:
            return super()._ended(cell, how, message)
        if self._ended_before < TIMES:
            self.close()
            return super().ask(cell)
        return super()._ended(cell, how, f"{message}, as {TIMES - 1} others did before")


@dataclass
class _Held:
    """What this worker's process keeps between tasks."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    run: PatientRun | None = None
    job: str = ""
    refusal: str = ""
    cells: dict[str, plan.Cell] = field(default_factory=dict)


_HELD = _Held()


def ask(job: Job, cell: str) -> dict[str, Any]:
    """Return a cell's record, with the ``worker`` that answered.

    Where this worker cannot answer for the client, its reason, name and address under ``refused``, ``worker`` and
    ``address``. One cell at a time is asked in a worker, whatever number of threads it has.
    """
    with _HELD.lock:
        if _HELD.job != job.run:
            _begin(job)
        if _HELD.refusal or _HELD.run is None:
            return _refused(_HELD.refusal)
        known = _HELD.cells.get(cell)
        if known is None:
            return _refused(f"it knows no cell {cell}")
        return {**_HELD.run.ask(known), "worker": name()}


def _begin(job: Job) -> None:
    """Open a run in this process, closing the one before."""
    if _HELD.run is not None:
        _HELD.run.close()
    _HELD.job, _HELD.run, _HELD.refusal, _HELD.cells = job.run, None, refusal(job), {}
    if _HELD.refusal:
        return
    options = suite_options.read(dict(job.options))
    command: Sequence[str] = job.command or (sys.executable, "-m", "parity.fleet.child")
    _HELD.cells = {cell.id: cell for cell in plan.cells(options)}
    _HELD.run = PatientRun(options, worker=(*command, str(spool.folder(job.run))))


def refusal(job: Job) -> str:
    """Say why this worker cannot answer for the client; empty where it can."""
    if job.version != __version__:
        return f"it has parity {__version__}, the client {job.version}: install the same version"
    from parity.suite.question import question

    place = spool.folder(job.run).parent
    with contextlib.suppress(OSError):  # for good: workers of one machine would take it from each other
        place.mkdir(parents=True, exist_ok=True)
    try:
        require_writable(place, "its cache")
        own = question(suite_options.read(dict(job.options)))
    except ParityError as error:
        return str(error)
    names = dict.fromkeys([*job.question, *own])
    pairs = {name: (job.question.get(name, "none"), own.get(name, "none")) for name in names}
    told = [f"{name} {here} there, {there} at the client" for name, (there, here) in pairs.items() if here != there]
    return f"it would answer another question: {'; '.join(told[:5])}" if told else ""


def _refused(why: str) -> dict[str, str]:
    from distributed import get_worker

    return {"refused": why, "worker": name(), "address": str(get_worker().address)}


def name() -> str:
    """Return the name of the worker that runs this task, with its chip."""
    from distributed import get_worker

    return f"{get_worker().name} ({_chip()})"


@cache
def _chip() -> str:
    from parity.runs.machine import provenance

    return provenance().chip


def forget(run: str) -> None:
    """Remove what this machine keeps of a run, and end the process that asks its cells."""
    if _HELD.run is not None and run == _HELD.job:
        _HELD.run.close()
        _HELD.run, _HELD.job = None, ""
    shutil.rmtree(spool.folder(run), ignore_errors=True)
