"""What answers for a worker in tests of fleets: cells that sleep and count, instead of models."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from parity.fleet import child
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
        if cells[cell].case.name == "die":
            os.kill(os.getpid(), 11)
        _note(notes / "ended", cell)
        check = Check("image", "image", "", float("nan"), float("nan"), Verdict.PASS, "")
        return Outcome(cells[cell], (check,), {}, "").record()

    return ask


def _note(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as stream:
        stream.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(child.main(opened))
