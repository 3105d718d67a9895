"""What does a machine keep of the cells that its workers ask, until the client has their records?

A finished record, so that a worker's death repeats nothing; and a mark for each process that began a cell, so that one
which takes its worker with it again and again is told from one whose workers were merely killed.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from parity import cache
from parity.files import replacing
from parity.suite.run import Record

TOGETHER: Final = 10
"""Processes of one cell that may end together with their worker before nobody on this machine asks it again."""


def folder(run: str) -> Path:
    """Return the folder of a run's finished records on this machine."""
    assert re.fullmatch("[0-9a-f]{32}", run), run  # the schema of ledgers says so
    return cache.folder("fleet", run[:20])


def kept(spool: Path, cell: str, ask: Callable[[str], Record], given_up: Callable[[str], Record]) -> Record:
    """Return a cell's record from the spool, or ask it and put it there; only one process asks a cell at a time.

    Parameters
    ----------
    spool : pathlib.Path
        The run's :func:`folder`.
    cell : str
        The cell's id.
    ask : callable
        Gives its record.
    given_up : callable
        Gives its record where :data:`TOGETHER` processes began it and none came to an end. A worker that is killed
        does not count: the process that asks its cell lives on and ends it.
    """
    target = spool / f"{cache.key(cell=cell)}.json"
    marks = target.with_suffix(".begun")
    with cache.locked(target):  # until the process before has ended, in one way or the other
        with contextlib.suppress(FileNotFoundError):
            return dict(json.loads(target.read_bytes()))
        record = given_up(cell) if _begun(marks) >= TOGETHER else ask(cell)
        with contextlib.suppress(OSError), replacing(target) as path:  # a full disk costs the spool, not the record
            path.write_text(json.dumps(record), encoding="ascii")
        marks.unlink(missing_ok=True)
    return record


def _begun(marks: Path) -> int:
    """Return how many processes began a cell before this one, and mark that this one does."""
    with contextlib.suppress(OSError), marks.open("ab") as stream:
        before = stream.tell()
        stream.write(b".")
        return before
    return 0
