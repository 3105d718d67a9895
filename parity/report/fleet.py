"""What is each worker of a fleet doing now? A live table where there is a terminal, else a line every half minute.

Both go to standard error, so that what a run finds can be piped.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from parity.report import progress

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from parity.fleet.workers import Worker

_SHOWN: Final = 4  # times a second
_AROUND: Final = 5  # rows of a terminal that the table leaves to its heading and to what stands around it
_STYLES: Final = {"fail": "bold red", "unknown": "yellow"}


@dataclass(frozen=True)
class Row:
    """A worker, as the table shows it.

    Attributes
    ----------
    worker : str
        Its name.
    cell : str
        What it is asking; empty where it has nothing to do.
    seconds : float
        How long for, as far as the client has seen.
    done : int
        Records that it has sent.
    """

    worker: str
    cell: str
    seconds: float
    done: int


class Board:
    """What is known of a fleet that works.

    Parameters
    ----------
    run : str
        Of the run's session: other runs may use the same scheduler.
    total : int
        Cells to ask.
    """

    def __init__(self, run: str, total: int) -> None:
        self.total = total
        self.lines: progress.Progress | None = None
        self._run = run
        self._started = time.monotonic()
        self._verdicts: Counter[str] = Counter()
        self._sent: Counter[str] = Counter()
        self._asking: dict[str, tuple[str, float]] = {}  # cell, and when it was seen there first, by worker
        self._note = ""

    def seen(self, workers: Sequence[Worker]) -> None:
        """Take which workers there are and what they ask."""
        now, before = time.monotonic(), self._asking
        asked = {worker.name: worker.asks(self._run) for worker in workers}
        self._asking = {
            name: before[name] if before.get(name, ("", now))[0] == cell and name in before else (cell, now)
            for name, cell in asked.items()
        }
        self._tell()

    def finished(self, record: dict[str, Any]) -> None:
        """Take a record that has arrived."""
        self._verdicts[record["verdict"]] += 1
        self._sent[str(record.get("worker", "")).partition(" (")[0]] += 1
        self._tell()

    def say(self, text: str) -> None:
        """Take what is not a record: that a worker refused, for example."""
        self._note = text
        self._tell()

    @property
    def done(self) -> int:
        """Cells that have an answer."""
        return self._verdicts.total()

    def rows(self) -> list[Row]:
        """Return the workers that are there, those that have been at their cell longest first."""
        now = time.monotonic()
        found = [Row(name, cell, now - since, self._sent[name]) for name, (cell, since) in self._asking.items()]
        return sorted(found, key=lambda row: (not row.cell, -row.seconds, row.worker))

    def counts(self) -> str:
        """Return the verdicts so far that are not a pass, and what was said last."""
        told = [f"{self._verdicts[name]} {name}" for name in _STYLES if self._verdicts[name]]
        return "; ".join(filter(None, [", ".join(told), self._note]))

    def line(self) -> str:
        """Return all of it in one line."""
        rows = self.rows()
        told = [f"{len(rows)} worker{'s' * (len(rows) != 1)}", self.counts()]
        if rows and rows[0].cell:
            told.append(f"longest {rows[0].cell} on {rows[0].worker} for {clock(rows[0].seconds)}")
        return "; ".join(filter(None, told))

    def _tell(self) -> None:
        if self.lines is not None:
            self.lines.advance(self.done)
            self.lines.say(self.line())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the table: as many workers as fit, the longest at their cell first."""
        from rich.progress_bar import ProgressBar
        from rich.table import Column, Table
        from rich.text import Text

        head = Table.grid(Column(no_wrap=True), Column(no_wrap=True), Column(ratio=1, no_wrap=True), padding=(0, 1))
        head.expand = True
        state = f"{self.done} of {self.total} cells, {clock(time.monotonic() - self._started)}"
        style = _STYLES["fail"] if self._verdicts["fail"] else ""
        head.add_row(
            state, ProgressBar(self.total or None, self.done, width=16), Text(self.counts(), style, overflow="ellipsis")
        )
        yield head
        table = Table(box=None, expand=True, pad_edge=False, header_style="dim")
        table.add_column("worker", no_wrap=True, max_width=24, overflow="ellipsis")
        table.add_column("cell", no_wrap=True, ratio=1, overflow="ellipsis")
        table.add_column("for", no_wrap=True, justify="right")
        table.add_column("done", no_wrap=True, justify="right")
        rows, room = self.rows(), max(1, (options.max_height or console.height) - _AROUND)
        for row in rows[:room]:
            table.add_row(
                Text(row.worker),
                Text(row.cell or "waits", "" if row.cell else "dim"),
                clock(row.seconds) if row.cell else "",
                str(row.done),
            )
        yield table
        if len(rows) > room:
            yield Text(f"and {len(rows) - room} more", "dim")


@contextlib.contextmanager
def shown(board: Board, *, every: float = progress.EVERY) -> Iterator[None]:
    """Show a board on standard error while the context lasts.

    Parameters
    ----------
    board : Board
        Told what is going on meanwhile.
    every : float
        Seconds between two lines where there is no terminal.
    """
    if not sys.stderr.isatty():
        with progress.shown(board.total, every=every) as board.lines:
            yield
        return
    from rich.console import Console
    from rich.live import Live

    with Live(board, console=Console(stderr=True), refresh_per_second=_SHOWN, transient=True):
        yield


def clock(seconds: float) -> str:
    """Return a duration as minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
