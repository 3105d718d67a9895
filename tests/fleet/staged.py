"""What answers for a worker in tests of fleets: cells that sleep and count, instead of models."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from parity.fleet import child, spool
from parity.suite import plan
from parity.suite.comparison import Check
from parity.suite.outcome import Outcome
from parity.suite.run import Record
from parity.suite.verdict import Verdict


def opened(options: Any, say: child.Say) -> child.Ask:
    """Return what asks a cell: it notes beginning and end, sleeps for the seconds of the environment, and passes."""
    cells = {cell.id: cell for cell in plan.cells(options)}
    notes, seconds = Path(os.environ["PARITY_STAGED"]), float(os.environ["PARITY_STAGED_SECONDS"])

    def ask(cell: str) -> Record:
        _note(notes / "begun", cell)
        say({"progress": cell})
        time.sleep(seconds)
        _end(cells[cell].case.name, notes / f"{cells[cell].case.name}.once")
        _note(notes / "ended", cell)
        check = Check("image", "image", "", float("nan"), float("nan"), Verdict.PASS, "")
        return Outcome(cells[cell], (check,), {}, "").record()

    return ask


def _end(name: str, once: Path) -> None:
    """End this process, where a cell's name says so, and with its worker."""
    if name == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "deadly":
        os.kill(os.getppid(), signal.SIGKILL)
    if name in ("killed", "deadly") or (name == "killed-once" and not once.exists()):
        once.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def _note(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as stream:
        stream.write(f"{line}\n")


if __name__ == "__main__":
    vars(spool)["TOGETHER"] = int(os.environ.get("PARITY_STAGED_TOGETHER", spool.TOGETHER))
    vars(child)["GRACE"] = 1
    sys.exit(child.main(opened))
