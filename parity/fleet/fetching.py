"""How does a record come from the worker that holds it, when workers die at any moment?

A task that has ended is not an answer yet: its result lies in the worker until the client has it. When that worker dies
in between, Dask runs the task again by itself, in its own time, and who waits for the result waits for that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeAlias

from parity.suite.run import Record

Ending: TypeAlias = Record | BaseException | None
"""What became of a task: its record, what the task itself raised, or None: its record is lost, nobody knows it."""

_SECONDS: Final = 30.0  # for one record, where nobody can say yet that it is lost
_AT_ONCE: Final = 4  # so that one which is lost does not hold up the others


class Fetching:
    """Brings records, a few at a time."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_AT_ONCE, "parity-fleet")

    def fetch(self, future: Any, then: Callable[[Ending], None]) -> None:
        """Bring what became of a future that is done, and tell it; nothing after :meth:`close`."""
        with contextlib.suppress(RuntimeError):  # futures that nobody waits for any more end as well
            self._pool.submit(lambda: then(brought(future)))

    def close(self) -> None:
        """Bring nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def brought(future: Any) -> Ending:
    """Return what became of a future that is done.

    Parameters
    ----------
    future : distributed.Future
        Done, as Dask says: finished, in error, or cancelled since the connection to the scheduler was lost.
    """
    if future.status == "finished":
        try:
            record: Record = future.result(timeout=_SECONDS)
        except Exception:  # of the way here: the worker died that held it; a task's own error is in the status
            return future.exception(timeout=_SECONDS) if future.status == "error" else None
        return record
    return future.exception(timeout=_SECONDS) if future.status == "error" else None
