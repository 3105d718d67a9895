"""How are cells asked so that one which ends its process, or never ends, costs itself alone?

Core ML can end a process without an exception. So cells are asked in a process of its own
(:mod:`parity.suite.worker`), which keeps models from cell to cell; when it dies or exceeds the time limit, the cell
fails with the signal and the last lines that were printed, and the next cell gets a new process.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from parity import children
from parity.errors import ParityError
from parity.suite import expected
from parity.suite.evaluate import Progress
from parity.suite.options import Options
from parity.suite.plan import Cell
from parity.suite.run import Record, Run, stopped

WORKER: Final = (sys.executable, "-m", "parity.suite.worker")
_LINES: Final = 12  # last lines of what a process printed
_WIDTH: Final = 300  # characters of a line that are quoted


class IsolatedRun(Run):
    """Asks cells in another process.

    Parameters
    ----------
    options : Options
        ``cell_timeout`` is the limit of a cell in seconds; the first one of a process includes its start and the
        loading of models. After ``cells_per_process`` cells a new process begins.
    progress : callable, optional
        Told what is going on.
    worker : sequence of str
        The command that answers.
    """

    def __init__(self, options: Options, progress: Progress | None = None, *, worker: Sequence[str] = WORKER) -> None:
        super().__init__(options, progress)
        self._progress: Progress = progress or (lambda text: None)
        self._command = tuple(worker)
        self._process: _Process | None = None
        self._asked = 0

    def ask(self, cell: Cell) -> Record:
        """Return the record of a cell, also when its process dies or its time is up."""
        if self._process is None:
            self._process, self._asked = _Process(self._command, self.options), 0
        started = time.monotonic()
        try:
            record = self._process.ask(cell.id, self.options.cell_timeout, self._progress)
        except TimeoutError:
            limit = f"{self.options.cell_timeout} s"
            return self._ended(cell, "out of time", f"it did not finish in {limit}; its process was ended")
        except (EOFError, BrokenPipeError, ValueError):
            how = self._process.death()
            return self._ended(cell, how, f"its process ended ({how}) after {time.monotonic() - started:.1f} s")
        except BaseException:  # an interruption: the answer would be taken for the next cell's
            self.close()
            raise
        self._asked += 1
        if self._asked == self.options.cells_per_process:
            self.close()
        return record

    def release(self) -> None:
        """Let go of the candidates' models with the process that holds them."""
        self.close()

    def close(self) -> None:
        """End the process; the next cell starts another one."""
        if self._process is not None:
            self._process.close()
        self._process = None

    def _ended(self, cell: Cell, how: str, message: str) -> Record:
        assert self._process is not None
        said = self._process.last_words()
        self.close()
        quoted = "".join(f"\n  | {line}" for line in said) or " (it printed nothing)"
        record = stopped(cell, self.options, how, f"{message}; the last that it said:{quoted}")
        return expected.applied(record, self.expected)  # of all others the worker has said it


def encoded(options: Options) -> dict[str, Any]:
    """Return options as JSON that :func:`parity.suite.options.read` reads; what is the default is left out."""
    plain = {}
    for field in fields(Options):
        value = getattr(options, field.name)
        if value != field.default:
            plain[field.name] = str(value) if isinstance(value, Path) else value
    return plain


class _Process:
    """A worker, and the pipes to it: lines of JSON in both directions."""

    def __init__(self, command: tuple[str, ...], options: Options) -> None:
        self._noise = tempfile.TemporaryFile()  # noqa: SIM115 (read when something goes wrong)
        try:
            self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._noise, env=_environment()
            )
        except OSError as error:
            raise ParityError(f"--isolate: no process can be started: {error}") from None
        self._rest = b""
        self.close = weakref.finalize(self, children.end, self._child, [self._noise])
        with contextlib.suppress(BrokenPipeError):  # asking says so
            self._send(encoded(options))

    def ask(self, text: str, seconds: float | None, progress: Progress) -> Record:
        """Send a cell's id and return its record.

        Raises
        ------
        TimeoutError, EOFError, BrokenPipeError, ValueError
            The time is up; the process is gone, perhaps in the middle of a line.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        self._send({"cell": text})
        while True:
            answer = json.loads(self._line(deadline))
            if "record" in answer:
                return dict(answer["record"])
            progress(answer["progress"])

    def death(self) -> str:
        """Say how the process ended."""
        return children.death(self._child)

    def last_words(self) -> list[str]:
        """Return the last lines that the process wrote to its standard output and error."""
        return [line[:_WIDTH] for line in children.said(self._noise)][-_LINES:]

    def _send(self, message: dict[str, Any]) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(message).encode() + b"\n")
        self._child.stdin.flush()

    def _line(self, deadline: float | None) -> bytes:
        assert self._child.stdout is not None
        parts = [self._rest]
        with selectors.DefaultSelector() as selector:
            selector.register(self._child.stdout, selectors.EVENT_READ)
            while b"\n" not in parts[-1]:
                if not selector.select(None if deadline is None else max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                if not (block := os.read(self._child.stdout.fileno(), 1 << 20)):
                    raise EOFError
                parts.append(block)
        line, _, self._rest = b"".join(parts).partition(b"\n")
        return line


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": children.search_path(), "PYTHONFAULTHANDLER": "1"}
