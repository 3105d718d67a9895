"""How does a run's cells get to a fleet, and their records back, so that none is lost and none is asked twice?

Each cell is one task with the resources that it needs. A record is on the disk before its future is let go: Dask then
cannot take a finished cell for a lost one when the worker that held the result dies. A worker that dies costs a task
another start, and where its machine is still there, the finished or begun record is taken from that machine's spool.
"""

from __future__ import annotations

import contextlib
import queue
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from parity.errors import MissingError, UsageError
from parity.fleet import task, workers
from parity.fleet.fetching import Ending, Fetching
from parity.fleet.task import Job
from parity.fleet.workers import Roll, Worker, needs
from parity.suite.options import Options
from parity.suite.plan import Cell
from parity.suite.run import Record, stopped, unanswered

PATIENCE: Final = 30.0
"""Seconds in which a scheduler has to answer."""
DEATHS: Final = 100
"""Workers that may die over one cell before it fails; Dask's own limit of 3 is for tasks that kill them."""

_AGAIN: Final = "start it again, and go on with --resume"
_POLL: Final = 1.0  # seconds after which it is looked whether the scheduler and its workers are still there
_SHARE: Final = 10  # a scheduler that takes long to say who is there is asked more rarely: records come first


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Give a client of a scheduler.

    Raises
    ------
    MissingError
        distributed is not installed.
    UsageError
        No scheduler answers at this address.
    """
    try:
        from distributed import Client
    except ImportError:
        raise MissingError("a fleet needs Dask distributed; pip install 'coreml-parity[fleet]'") from None
    try:
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"--scheduler {address}: no scheduler answers ({error}); 'dask scheduler' starts one"
        ) from None
    try:
        yield client
    finally:
        _close(client)


def _close(client: Any) -> None:
    """Close a client; one whose connection broke raises whatever broke it, which would hide why the run ended."""
    with contextlib.suppress(Exception):
        client.close(timeout=5)


@dataclass
class _Held:
    """A cell that was given out; without a future where nobody is there yet who may take it."""

    cell: Cell
    future: Any = None
    only: frozenset[str] | None = None  # addresses of the workers that may take it, where others refused


@dataclass
class Fleet:
    """Asks cells through a scheduler.

    Parameters
    ----------
    client : distributed.Client
    job : Job
        What all tasks have in common.
    options : Options
        Those of the run.
    require : mapping of str to float
        Resources that every cell needs beside its own.
    say : callable
        Told what is going on.
    watch : callable
        Told about once a second, more rarely where the scheduler is slow, which workers there are and what they ask.
    """

    client: Any
    job: Job
    options: Options
    require: Mapping[str, float] = field(default_factory=dict)
    say: Callable[[str], None] = lambda text: None
    watch: Callable[[Sequence[Worker]], None] = lambda workers: None
    _held: dict[str, _Held] = field(default_factory=dict)
    _done: queue.SimpleQueue[tuple[Any, Cell, Ending]] = field(default_factory=queue.SimpleQueue)
    _fetching: Fetching = field(default_factory=Fetching)
    _roll: Roll = field(init=False)
    _look_again: float = 0.0
    _address: str = "the scheduler"  # its address
    _own: bool = False  # whether the client was made here

    def __post_init__(self) -> None:
        self._roll = Roll(self.client)
        if self.client.scheduler:
            self._address = str(self.client.scheduler.address)

    def ask_all(self, cells: Sequence[Cell], finished: Callable[[Record], None]) -> dict[str, Record]:
        """Return a record for each cell, by id.

        A cell that no worker can take is unknown. It is not ``finished``, so a resumed run asks it.

        Parameters
        ----------
        cells : sequence of Cell
            What is asked.
        finished : callable
            Called with each record as soon as it is here; what it raises ends the run.

        Raises
        ------
        UsageError
            Workers of another version, or that would answer another question; the scheduler went away.
        """
        self._refuse()
        self._allow_deaths()
        found: dict[str, Record] = {}
        try:
            for cell in cells:
                self._submit(cell)
            while self._held:
                ended = self._next(len(found), len(cells))
                if ended is not None:
                    cell, record = ended
                    finished(record)
                    found[cell.id] = record
                    self._let_go(cell)
                    self.say(f"{cell.case.name} on {record.get('worker') or 'a worker'}: {record['verdict']}")
                found |= self._look()
        finally:
            self._held.clear()  # lets go of every future: what nobody waits for is cancelled
            self._fetching.close()
        return found

    def forget(self) -> None:
        """Have all workers remove what they keep of the run."""
        self.client.run(task.forget, self.job.run, on_error="ignore")

    def close(self) -> None:
        """Close the connection that was made in the place of a broken one; the first one is its owner's."""
        if self._own:
            _close(self.client)

    def _refuse(self) -> None:
        """Ask every worker that is there whether it can answer; one that cannot is named, and nothing begins."""
        names = {worker.address: worker.name for worker in self._roll.look()}
        if not names:
            raise UsageError(f"{self._address}: no worker has joined; 'dask worker {self._address}' starts one")
        said = self.client.run(task.refusal, self.job, on_error="return")
        bad = {address: str(why) for address, why in said.items() if why and not isinstance(why, OSError)}  # or it died
        if bad:
            named = "; ".join(f"worker {names.get(one, one)} ({one}): {why}" for one, why in bad.items())
            raise UsageError(f"refused: {named}")

    def _allow_deaths(self) -> None:
        def allow(dask_scheduler: Any = None) -> None:
            dask_scheduler.allowed_failures = max(dask_scheduler.allowed_failures, DEATHS)

        self.client.run_on_scheduler(allow)

    def _submit(self, cell: Cell) -> None:
        """Give a cell out: to anybody, or where somebody refused to those who are there and did not."""
        held = self._held[cell.id] = _Held(cell)
        options: dict[str, Any] = {"resources": needs(cell, self.options, self.require) or None, "pure": False}
        if self._roll.refused:
            held.only = frozenset(worker.address for worker in self._roll.willing)
            options["workers"] = sorted(held.only)
            if not held.only:
                return
        key = workers.key(self.job.run, uuid.uuid4().hex[:8], cell.id)
        held.future = self.client.submit(task.ask, self.job, cell.id, key=key, **options)
        held.future.add_done_callback(
            lambda done: self._fetching.fetch(done, lambda ending: self._done.put((done, cell, ending)))
        )

    def _let_go(self, cell: Cell) -> None:
        held = self._held.pop(cell.id)
        if held.future is not None:
            held.future.release()

    def _next(self, done: int, total: int) -> tuple[Cell, Record] | None:
        """Return a cell that has ended with its record; None where none did for a while.

        Raises
        ------
        UsageError
            The scheduler went away.
        """
        ended: tuple[Any, Cell, Ending] | None = None
        with contextlib.suppress(queue.Empty):
            ended = self._done.get(timeout=_POLL)
        self._await_scheduler(done, total)
        if ended is None:
            return None
        future, cell, ending = ended
        held = self._held.get(cell.id)
        if held is None or held.future is None or held.future.key != future.key:
            return None  # of a task that was given up
        record = self._record(cell, ending)
        if record is None:
            self._submit(cell)
            return None
        return cell, record

    def _record(self, cell: Cell, ending: Ending) -> Record | None:
        """Return what a task found; None where it is to be given out again: its record is lost, its worker refused."""
        if isinstance(ending, BaseException):  # of the task, not of the cell: KilledWorker after many deaths, a defect
            name = type(ending).__name__
            return stopped(cell, self.options, name, f"its task ended: {name}: {ending}")
        if ending is not None and "refused" in ending:
            why = f"worker {ending['worker']}: {ending['refused']}"
            self._roll.refuse(ending["address"], why)
            self.say(why)
            return None
        return ending

    def _look(self) -> dict[str, Record]:
        """See who is there; give out again what its workers left, and return the records of what nobody can take.

        Raises
        ------
        UsageError
            All workers refused.
        """
        began = time.monotonic()
        if began < self._look_again:
            return {}
        try:
            self._roll.look()
        except OSError:  # the connection is being made anew, or not: that is seen elsewhere
            return {}
        finally:
            now = time.monotonic()
            self._look_again = now + max(_POLL, _SHARE * (now - began))
        self.watch(self._roll.workers)
        willing = {worker.address for worker in self._roll.willing}
        for held in list(self._held.values()):
            if held.only is not None and willing and not held.only & willing:
                self._let_go(held.cell)
                self._submit(held.cell)
        found = {}
        for held in list(self._held.values()):
            if why := self._roll.lacking(needs(held.cell, self.options, self.require)):
                if self._roll.refused and not willing:
                    raise UsageError(f"refused: {'; '.join(self._roll.refused.values())}; no other worker is there")
                self._let_go(held.cell)
                found[held.cell.id] = unanswered(held.cell, self.options, why)
        return found

    def _await_scheduler(self, done: int, total: int) -> None:
        """Wait while Dask makes the connection anew: futures are cancelled then, and their cells are given out again.

        Where it does not (its client may stop trying for good, on a loaded machine), another client takes its place.

        Raises
        ------
        UsageError
            Nobody answers.
        """
        since = time.monotonic()
        while not self._alive():
            waited = time.monotonic() - since
            if waited > PATIENCE:
                raise UsageError(f"the scheduler went away: {done} of {total} cells have an answer; {_AGAIN}")
            if (waited > PATIENCE / 2 or self.client.status in ("closing", "closed")) and self._connect_anew():
                return
            time.sleep(_POLL / 5)

    def _connect_anew(self) -> bool:
        """Put another client into the place of a broken one, and give all cells out again; tell whether it answers."""
        broken, own = self.client, self._own
        try:
            self.client = type(broken)(self._address, timeout=PATIENCE / 4, set_as_default=False)
        except (OSError, ValueError):
            return False
        self._own = True
        self.say("the connection to the scheduler broke, and was made anew")
        self._roll.client = self.client
        self._allow_deaths()
        for held in list(self._held.values()):
            self._submit(held.cell)
        if own:
            _close(broken)
        return True

    def _alive(self) -> bool:
        comm = self.client.scheduler_comm
        return self.client.status == "running" and comm is not None and not comm.comm.closed()
