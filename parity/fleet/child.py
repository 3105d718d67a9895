"""The process in which a worker of a fleet asks cells: as :mod:`parity.suite.worker`, and what is finished is kept.

A finished record is written into the spool before it is sent. When the worker dies meanwhile, this process still ends
its cell and keeps it, and whoever is to ask that cell on this machine next waits for it and takes it. So a worker's
death repeats nothing that was finished, and on its own machine not even what was begun.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from parity import cache
from parity.files import replacing
from parity.suite import options as suite_options
from parity.suite import plan
from parity.suite.options import Options
from parity.suite.run import Record, Run

Say = Callable[[dict[str, Any]], None]
Ask = Callable[[str], Record]


def main(opened: Callable[[Options, Say], Ask] | None = None) -> int:
    """Answer until the input ends; the one argument is the spool's folder.

    Parameters
    ----------
    opened : callable, optional
        Gives, for a run's options, what asks a cell by its id; the suite's own by default.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interruption is the other side's to handle
    spool = Path(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(message: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # nobody listens any more; the cell is finished all the same
            answers.write(json.dumps(message) + "\n")
            answers.flush()

    ask = (opened or _suite)(suite_options.read(json.loads(sys.stdin.buffer.readline())), say)
    for line in sys.stdin.buffer:
        say({"record": kept(spool, json.loads(line)["cell"], ask)})
    with contextlib.suppress(BrokenPipeError):
        answers.close()
    return 0


def kept(spool: Path, cell: str, ask: Ask) -> Record:
    """Return a cell's record from the spool, or ask it and put it there; only one process asks a cell at a time."""
    target = spool / f"{cache.key(cell=cell)}.json"
    with cache.locked(target):
        with contextlib.suppress(FileNotFoundError):
            return dict(json.loads(target.read_bytes()))
        record = ask(cell)
        with replacing(target) as path:
            path.write_text(json.dumps(record), encoding="ascii")
    return record


def spool_of(run: str) -> Path:
    """Return the folder of a run's finished records on this machine."""
    assert re.fullmatch("[0-9a-f]{32}", run), run  # the schema of ledgers says so
    return cache.folder("fleet", run[:20])


def _suite(options: Options, say: Say) -> Ask:
    run = Run(options, lambda text: say({"progress": text}))
    cells = {cell.id: cell for cell in plan.cells(options)}
    return lambda cell: run.ask(cells[cell])


if __name__ == "__main__":
    raise SystemExit(main())
