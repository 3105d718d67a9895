"""What is a run doing now? A bar where there is a terminal, else a line every half minute.

Both go to standard error, so that what a run finds can be piped.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Final, Protocol

EVERY: Final = 30.0
"""Seconds between two lines where there is no terminal."""


class Progress(Protocol):
    """Told how far a run is."""

    def say(self, text: str) -> None:
        """Take what is done at the moment."""

    def advance(self, done: int) -> None:
        """Take the number of finished cells."""


@contextlib.contextmanager
def shown(total: int, *, every: float = EVERY) -> Iterator[Progress]:
    """Show the progress of a run on standard error while the context lasts.

    Parameters
    ----------
    total : int
        Cells to ask; 0 where nobody knows.
    every : float
        Seconds between two lines where there is no terminal.
    """
    if sys.stderr.isatty():
        with _bar(total) as progress:
            yield progress
        return
    lines = _Lines(total, every)
    lines.start()
    try:
        yield lines
    finally:
        lines.stop()


@contextlib.contextmanager
def _bar(total: int) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar
    from rich.table import Column

    told = TextColumn(
        "{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"), markup=False
    )
    columns = (BarColumn(bar_width=16), MofNCompleteColumn(), TimeElapsedColumn(), told)
    with Bar(*columns, console=Console(stderr=True), transient=True, expand=True) as bar:
        task = bar.add_task("loading", total=total or None)

        class Shown:
            def say(self, text: str) -> None:
                bar.update(task, description=text)

            def advance(self, done: int) -> None:
                bar.update(task, completed=done)

        yield Shown()


class _Lines:
    """Says on lines of their own what the last word was; short runs say nothing."""

    def __init__(self, total: int, every: float) -> None:
        self._total, self._every = total, every
        self._done, self._text = 0, "loading"
        self._started = time.monotonic()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)

    def say(self, text: str) -> None:
        self._text = text

    def advance(self, done: int) -> None:
        self._done = done

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        self._thread.join()

    def _tell(self) -> None:
        while not self._end.wait(self._every):
            minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
            done = f"{self._done} of {self._total} cells " if self._total else ""
            line = f"{done}after {minutes}:{seconds:02d}: {self._text}"
            print(line, file=sys.stderr, flush=True)
