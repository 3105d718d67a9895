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

from parity.coreml import COMPUTE_UNITS
from parity.errors import MissingError, UsageError
from parity.fleet import task
from parity.fleet.task import Job
from parity.suite.options import Options
from parity.suite.plan import Cell
from parity.suite.run import Record, stopped, unanswered

PATIENCE: Final = 30.0
"""Seconds in which a scheduler has to answer."""
DEATHS: Final = 100
"""Workers that may die over one cell before it fails; Dask's own limit of 3 is for tasks that kill them."""

_AGAIN: Final = "start it again, and go on with --resume"
_POLL: Final = 1.0  # seconds after which it is looked whether the scheduler is still there


def needs(cell: Cell, options: Options, others: Mapping[str, float] | None = None) -> dict[str, float]:
    """Return the resources that a worker must declare to be given a cell: a compute unit, ``cuda`` or ``mps``."""
    found = dict(others or {})
    words = cell.backend.split(":")
    if words[0] == "coreml":
        found |= {word: 1.0 for word in words[1:] if word in COMPUTE_UNITS}
    if words[0] == "torch":
        found |= {word: 1.0 for word in words[1:] if word in ("cuda", "mps")}
    if options.device != "cpu":
        found[options.device] = 1.0
    return found


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
        client.close(timeout=5)


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
    """

    client: Any
    job: Job
    options: Options
    require: Mapping[str, float] = field(default_factory=dict)
    say: Callable[[str], None] = lambda text: None
    _refused: dict[str, str] = field(default_factory=dict)
    _held: dict[str, Any] = field(default_factory=dict)
    _done: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)

    def ask_all(self, cells: Sequence[Cell], finished: Callable[[Record], None]) -> dict[str, Record]:
        """Return a record for each cell, by id.

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
        found = {
            cell.id: unanswered(cell, self.options, f"no worker of the fleet declares {', '.join(self._needs(cell))}")
            for cell in cells
            if not self._offered(cell)
        }
        waiting = {cell.id: cell for cell in cells if cell.id not in found}
        try:
            for cell in waiting.values():
                self._submit(cell)
            while waiting:
                future, cell = self._next(waiting, len(cells))
                record = self._record(future, cell)
                if record is None:
                    self._submit(cell)
                    continue
                finished(record)
                found[cell.id] = record
                del waiting[cell.id]
                self.say(f"{cell.case.name} on {record.get('worker') or 'a worker'}: {record['verdict']}")
        finally:
            self._held.clear()  # lets go of every future: what nobody waits for is cancelled
        return found

    def forget(self) -> None:
        """Have all workers remove what they keep of the run."""
        self.client.run(task.forget, self.job.run, on_error="ignore")

    def _refuse(self) -> None:
        """Ask every worker that is there whether it can answer; one that cannot is named, and nothing begins."""
        workers = self._workers()
        if not workers:
            raise UsageError(f"{self._address}: no worker has joined; 'dask worker {self._address}' starts one")
        said = self.client.run(task.refusal, self.job, on_error="return")
        bad = {address: str(why) for address, why in said.items() if why and not isinstance(why, OSError)}  # or it died
        if bad:
            named = "; ".join(
                f"worker {workers.get(one, {}).get('name', one)} ({one}): {why}" for one, why in bad.items()
            )
            raise UsageError(f"refused: {named}")

    @property
    def _address(self) -> str:
        return str(self.client.scheduler.address) if self.client.scheduler else "the scheduler"

    def _workers(self) -> dict[str, Any]:
        """Return what the scheduler knows of its workers, by address."""
        asked = {"n_workers": -1} if _takes_count(self.client) else {}
        return dict(self.client.scheduler_info(**asked)["workers"])

    def _needs(self, cell: Cell) -> dict[str, float]:
        return needs(cell, self.options, self.require)

    def _offered(self, cell: Cell) -> bool:
        """Tell whether a worker that is there declares what a cell needs."""
        wanted = self._needs(cell).items()
        offers = [worker["resources"] for worker in self._workers().values()]
        return any(all(offer.get(name, 0) >= count for name, count in wanted) for offer in offers)

    def _allow_deaths(self) -> None:
        def allow(dask_scheduler: Any = None) -> None:
            dask_scheduler.allowed_failures = max(dask_scheduler.allowed_failures, DEATHS)

        self.client.run_on_scheduler(allow)

    def _submit(self, cell: Cell) -> None:
        options: dict[str, Any] = {"resources": self._needs(cell) or None, "pure": False}
        if self._refused:
            options["workers"] = [address for address in self._workers() if address not in self._refused]
            if not options["workers"]:
                raise UsageError(f"refused: {'; '.join(self._refused.values())}; no other worker is there")
        key = f"parity-{self.job.run}-{uuid.uuid4().hex[:8]}-{cell.id}"
        future = self.client.submit(task.ask, self.job, cell.id, key=key, **options)
        self._held[cell.id] = future
        future.add_done_callback(lambda done: self._done.put((done, cell)))

    def _next(self, waiting: Mapping[str, Cell], total: int) -> tuple[Any, Cell]:
        """Return a future that has ended, and its cell.

        Raises
        ------
        UsageError
            The scheduler went away.
        """
        while True:
            ended: tuple[Any, Cell] | None = None
            with contextlib.suppress(queue.Empty):
                ended = self._done.get(timeout=_POLL)
            self._await_scheduler(total - len(waiting), total)
            if ended is not None:
                future, cell = ended
                if cell.id in self._held and self._held[cell.id].key == future.key:
                    return future, cell

    def _await_scheduler(self, done: int, total: int) -> None:
        """Wait while the connection is made anew; futures are cancelled then, and their cells are given out again."""
        until = time.monotonic() + PATIENCE
        while not self._alive():
            if self.client.status in ("closing", "closed") or time.monotonic() > until:
                raise UsageError(f"the scheduler went away: {done} of {total} cells have an answer; {_AGAIN}")
            time.sleep(_POLL / 5)

    def _alive(self) -> bool:
        comm = self.client.scheduler_comm
        return self.client.status == "running" and comm is not None and not comm.comm.closed()

    def _record(self, future: Any, cell: Cell) -> Record | None:
        """Return what a task found, letting it go; None where its worker refused and another one is to be asked."""
        del self._held[cell.id]
        if future.status == "cancelled":
            return None
        try:
            answer: Record = future.result(timeout=PATIENCE)
        except Exception as error:  # the task itself, not the cell: KilledWorker after many deaths, or a defect
            return stopped(cell, self.options, type(error).__name__, f"its task ended: {type(error).__name__}: {error}")
        finally:
            future.release()
        if "refused" in answer:
            self._refused[answer["address"]] = f"worker {answer['worker']}: {answer['refused']}"
            self.say(self._refused[answer["address"]])
            return None
        return answer


def _takes_count(client: Any) -> bool:
    """Tell whether ``scheduler_info`` has to be asked for all workers; newer releases list five by themselves."""
    import inspect

    return "n_workers" in inspect.signature(client.scheduler_info).parameters
