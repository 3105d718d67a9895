"""The process that asks cells for :mod:`parity.suite.isolated`: lines of JSON on standard input and output.

The first line are the run's options, each later one names a cell. What is printed here goes to standard error, so that
no library's words get between the answers. The process ends when its input does.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

from parity.suite import options as suite_options
from parity.suite import plan
from parity.suite.run import Run


def main() -> int:
    """Answer until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interruption is the other side's to handle
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    asked = _lines()
    options = suite_options.read(next(asked))
    cells = {cell.id: cell for cell in plan.cells(options)}
    run = Run(options, lambda text: say({"progress": text}))
    for message in asked:
        say({"record": run.ask(cells[message["cell"]])})
    return 0


def _lines() -> Iterator[dict[str, Any]]:
    for line in sys.stdin.buffer:
        yield json.loads(line)


if __name__ == "__main__":
    raise SystemExit(main())
