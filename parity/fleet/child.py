"""The process in which a worker of a fleet asks cells: as :mod:`parity.suite.worker`, and what is finished is kept.

A finished record is written into the spool (:mod:`parity.fleet.spool`) before it is sent. When the worker dies
meanwhile, this process still ends its cell and keeps it, and whoever is to ask that cell on this machine next waits for
it and takes it. So a worker's death repeats nothing that was finished, and on its own machine not even what was begun.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from parity.fleet import spool
from parity.suite import options as suite_options
from parity.suite import plan
from parity.suite.options import Options
from parity.suite.run import Record, Run, stopped

Say = Callable[[dict[str, Any]], None]
Ask = Callable[[str], Record]

GRACE: Final = 10
"""Seconds that a worker has to end a cell whose time is up, before the cell's process does it."""


def main(opened: Callable[[Options, Say], Ask] | None = None) -> int:
    """Answer until the input ends; the one argument is the spool's folder.

    Parameters
    ----------
    opened : callable, optional
        Gives, for a run's options, what asks a cell by its id; the suite's own by default.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interruption is the other side's to handle
    folder = Path(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(message: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # nobody listens any more; the cell is finished all the same
            answers.write(json.dumps(message) + "\n")
            answers.flush()

    options = suite_options.read(json.loads(sys.stdin.buffer.readline()))
    ask = (opened or _suite)(options, say)

    def asked(cell: str) -> Record:
        with _limited(options.cell_timeout):
            return ask(cell)

    def given_up(cell: str) -> Record:
        (one,) = (known for known in plan.cells(options) if known.id == cell)
        often = f"{spool.TOGETHER} processes that asked it ended without an answer, each together with its worker"
        return stopped(one, options, "ended each time", f"{often}; it is not asked again")

    for line in sys.stdin.buffer:
        say({"record": spool.kept(folder, json.loads(line)["cell"], asked, given_up)})
    with contextlib.suppress(BrokenPipeError):
        answers.close()
    return 0


@contextlib.contextmanager
def _limited(seconds: float | None) -> Iterator[None]:
    """End this process where a cell takes too long and the worker is not there any more to see it."""
    if seconds is None or not hasattr(signal, "alarm"):
        yield
        return
    signal.alarm(math.ceil(seconds) + GRACE)
    try:
        yield
    finally:
        signal.alarm(0)


def _suite(options: Options, say: Say) -> Ask:
    run = Run(options, lambda text: say({"progress": text}))
    cells = {cell.id: cell for cell in plan.cells(options)}
    return lambda cell: run.ask(cells[cell])


if __name__ == "__main__":
    raise SystemExit(main())
