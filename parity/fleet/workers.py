"""Which workers does a fleet have, what do they declare, and what is each of them asking at the moment?"""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from parity.coreml import COMPUTE_UNITS
from parity.suite.options import Options
from parity.suite.plan import Cell

JOINING: Final = 30.0
"""Seconds in which a worker has to join that declares what a cell needs."""
RETURNING: Final = 600.0
"""Seconds in which one has to come back when the last such worker has gone: what restarts it may be busy."""

_KEY = re.compile(r"parity-([0-9a-f]{32})-[0-9a-f]{8}-(.+)", re.DOTALL)


@dataclass(frozen=True)
class Worker:
    """One worker as the scheduler knows it.

    Attributes
    ----------
    address, name : str
        Where it listens, which its next process does not inherit; what it was started as, which it does.
    resources : mapping of str to float
        What it declares.
    tasks : tuple of str
        Keys that the scheduler has given it, in that order.
    """

    address: str
    name: str
    resources: Mapping[str, float] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()

    def asks(self, run: str) -> str:
        """Return the id of the cell of a run that it is asking; empty where it has none."""
        found = [match[2] for match in map(_KEY.fullmatch, self.tasks) if match and match[1] == run]
        return found[0] if found else ""

    def offers(self, wanted: Mapping[str, float]) -> bool:
        """Return whether it declares all that is wanted."""
        return all(self.resources.get(name, 0) >= count for name, count in wanted.items())


class Roll:
    """Who is there, and who was.

    Parameters
    ----------
    client : distributed.Client
    """

    def __init__(self, client: Any) -> None:
        self.workers: tuple[Worker, ...] = ()
        self.refused: dict[str, str] = {}  # reasons, by address
        self.client = client
        self._until: dict[tuple[tuple[str, float], ...], float] = {}  # when somebody has to be there, by what is needed

    def look(self) -> tuple[Worker, ...]:
        """Ask the scheduler for its workers, keep and return them.

        Raises
        ------
        OSError
            It does not answer.
        """
        self.workers = seen(self.client)
        return self.workers

    def refuse(self, address: str, why: str) -> None:
        """Take it that a worker cannot answer; the others have to be there, or to join."""
        self.refused[address] = why
        self._until.clear()

    @property
    def willing(self) -> tuple[Worker, ...]:
        """Those that did not refuse."""
        return tuple(worker for worker in self.workers if worker.address not in self.refused)

    def lacking(self, wanted: Mapping[str, float]) -> str:
        """Say which resources no worker declares; empty where one does, or may still join or come back."""
        name, now = tuple(sorted(wanted.items())), time.monotonic()
        if any(worker.offers(wanted) for worker in self.willing):
            self._until[name] = now + RETURNING
        if now < self._until.setdefault(name, now + JOINING):
            return ""
        declared = f"declares {', '.join(wanted)}" if wanted else "is there any more"
        return f"no worker of the fleet {declared}"


def key(run: str, attempt: str, cell: str) -> str:
    """Return the key of a cell's task.

    Parameters
    ----------
    run : str
        Of :class:`parity.fleet.task.Job`.
    attempt : str
        Eight hexadecimal digits, other ones for each time that it is given out.
    cell : str
        The cell's id.
    """
    return f"parity-{run}-{attempt}-{cell}"


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


def seen(client: Any) -> tuple[Worker, ...]:
    """Ask a scheduler for its workers, and for what each of them has to do."""
    asked = {"n_workers": -1} if _takes_count(client) else {}
    known = client.scheduler_info(**asked)["workers"]
    given = client.processing()
    return tuple(
        Worker(address, str(told["name"]), dict(told["resources"]), tuple(map(str, given.get(address, ()))))
        for address, told in known.items()
    )


def _takes_count(client: Any) -> bool:
    """Tell whether ``scheduler_info`` has to be asked for all workers; some releases list five by themselves."""
    return "n_workers" in inspect.signature(client.scheduler_info).parameters
