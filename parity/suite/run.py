"""How are cells asked so that none is lost, and what follows from all of them?

The command line and pytest ask through :class:`Run` and conclude by :func:`conclude`. A cell always ends as a record:

* what a file or a request makes impossible (a picture is missing, a golden is damaged, a model is of another kind) is
  *unknown*, with the reason, and flagged as bad input;
* an exception that nobody foresaw *fails* the cell, with its type, message and place: what crashes has not drawn the
  picture, and no run passes with it;
* after an interruption what is finished stands, and the cells that were not asked are *unknown*.

Records are plain data (:meth:`parity.suite.outcome.Outcome.record`), so they travel between processes.
"""

from __future__ import annotations

import contextlib
import math
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import parity
from parity import memory
from parity.errors import ParityError
from parity.suite import earlier, expected
from parity.suite.comparison import Check
from parity.suite.evaluate import Evaluator, Progress
from parity.suite.options import Options
from parity.suite.outcome import Outcome, reproduce
from parity.suite.plan import Cell, by_backend
from parity.suite.verdict import Verdict

Record = dict[str, Any]

_PACKAGE = Path(parity.__file__).parent
_FRAMES = 6  # innermost places that a crash names


class Run:
    """Asks cells, one by one.

    Parameters
    ----------
    options : Options
        What to run.
    progress : callable, optional
        Told what is going on.

    Raises
    ------
    ParityError
        The table of tolerances, the list of expected failures or the earlier report cannot be read: that concerns all
        cells, so nothing begins.
    """

    def __init__(self, options: Options, progress: Progress | None = None) -> None:
        self.options = options
        self.expected = expected.load(options.expected)
        self.earlier = earlier.load(options.earlier)
        self._evaluator = Evaluator(options, progress)
        self._backend = ""  # whose models are held

    def ask(self, cell: Cell) -> Record:
        """Return the record of a cell, whatever happens in it; only an interruption is passed on."""
        record = earlier.warned(expected.applied(self._ask(cell), self.expected), self.earlier)
        memory.trim()
        return record

    def _ask(self, cell: Cell) -> Record:
        try:
            return self._evaluator.evaluate(cell).record()
        except ParityError as error:
            return _alone(cell, self.options, "nothing", f"not compared: {error}", bad_input=True)
        except (Exception, SystemExit) as error:  # a defect here or in a library: it must not cost the other cells
            return stopped(cell, self.options, f"stopped by {type(error).__name__}", crash(error))

    def close(self) -> None:
        """End what the run has started; there is nothing to end where cells are asked in this process."""

    def ask_all(
        self,
        cells: Sequence[Cell],
        begin: Callable[[Cell], None] = lambda cell: None,
        finished: Callable[[Record], None] = lambda record: None,
    ) -> list[Record]:
        """Return one record for each cell, in their order; after an interruption the rest is recorded as not asked.

        Cells of one backend are asked one after the other, and its models are let go before the next backend's.

        Parameters
        ----------
        cells : sequence of Cell
            In the order of their records.
        begin : callable
            Called with each cell before it is asked.
        finished : callable
            Called with each record before the next cell is asked; what it raises ends the run.
        """
        records: dict[int, Record] = {}
        with contextlib.suppress(KeyboardInterrupt):
            for index in by_backend(cells):
                cell = cells[index]
                self.turn_to(cell)
                begin(cell)
                records[index] = self.ask(cell)
                finished(records[index])
        return [records[i] if i in records else not_asked(cell, self.options) for i, cell in enumerate(cells)]

    def turn_to(self, cell: Cell) -> None:
        """Let go of another backend's models before a cell is asked."""
        if cell.kind != "candidate":
            return
        backend = cell.backend or cell.numerics
        if self._backend not in ("", backend):
            self.release()
        self._backend = backend

    def release(self) -> None:
        """Let go of the candidates' models."""
        self._evaluator.release()


def not_asked(cell: Cell, options: Options) -> Record:
    """Return the record of a cell whose turn did not come, or whose answer was not waited for."""
    return _alone(cell, options, "nothing", "not asked: the run was interrupted", asked=False)


def unanswered(cell: Cell, options: Options, why: str) -> Record:
    """Return the record of a cell that nobody could answer: unknown, with the reason."""
    return _alone(cell, options, "nothing", f"not compared: {why}")


def stopped(cell: Cell, options: Options, where: str, message: str) -> Record:
    """Return the record of a cell that began and did not end: it fails.

    Parameters
    ----------
    cell : Cell
        The question.
    options : Options
        Those of the run.
    where : str
        What stopped it, in a few words.
    message : str
        All that is known about it.
    """
    return _alone(cell, options, where, message, verdict=Verdict.FAIL)


def _alone(
    cell: Cell,
    options: Options,
    where: str,
    message: str,
    *,
    verdict: Verdict = Verdict.UNKNOWN,
    bad_input: bool = False,
    asked: bool = True,
) -> Record:
    """Return the record of a cell with one statement in the place of its checks."""
    check = Check("cell", where, "", math.nan, math.nan, verdict, message, bad_input)
    return Outcome(cell, (check,), {}, reproduce(options, cell), asked=asked).record()


def crash(error: BaseException) -> str:
    """Describe an exception that nobody foresaw: type, message, and the places that led to it, innermost last."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    own = [number for number, frame in enumerate(frames) if _PACKAGE in Path(frame.filename).parents]
    named = sorted({*own[-_FRAMES:], *range(len(frames))[-1:]})
    lines = [f"stopped by {type(error).__name__}: {error}"]
    lines += [f"  at {_shown(frames[number])}" for number in named]
    lines.append("  not foreseen: a fault of a runtime, a library or parity; add what 'parity doctor' says to a report")
    return "\n".join(lines)


def _shown(frame: traceback.FrameSummary) -> str:
    path = Path(frame.filename)
    below = path.relative_to(_PACKAGE.parent) if _PACKAGE in path.parents else path
    return f"{below}:{frame.lineno} in {frame.name}: {frame.line}"


@dataclass(frozen=True)
class Conclusion:
    """What follows from a run.

    Attributes
    ----------
    code : int
        Exit code: 0 everything that was compared holds; 1 something does not, or nothing was compared; 2 bad input;
        130 interrupted.
    messages : tuple of str
        Why it is not 0, where no failed cell says it.
    bad_input : tuple of str
        What is wrong with the user's files and requests; the notes below a table say it too.
    """

    code: int
    messages: tuple[str, ...] = ()
    bad_input: tuple[str, ...] = ()


def conclude(records: Sequence[Record], options: Options) -> Conclusion:
    """Decide a run: a failure that is not expected weighs more than bad input, and that more than what is unknown.

    Unknown cells are counted and do not fail a run, unless it is strict, or no candidate was compared at all: what then
    passed (PyTorch against its own goldens, old models) says nothing about a candidate.
    """
    failed = any(record["verdict"] == "fail" and not expected.excused(record) for record in records)
    spoiled = sum(bool(record["bad_input"]) for record in records)
    bad = tuple(dict.fromkeys(message for record in records for message in record["bad_input"]))
    interrupted = sum(not record["asked"] for record in records)
    undecided = () if bad or interrupted else tuple(_undecided(records, options))
    messages = list(undecided)
    if bad:
        messages.append(f"bad input: {spoiled} of {len(records)} cells could not be compared as asked")
    if interrupted:
        messages.append(f"interrupted: {interrupted} of {len(records)} cells were not asked")
    code = 130 if interrupted else 1 if failed else 2 if bad else int(bool(undecided))
    return Conclusion(code, tuple(messages), bad)


def _undecided(records: Sequence[Record], options: Options) -> Iterator[str]:
    unknown = [record for record in records if record["verdict"] == "unknown"]
    if unknown and options.parity_strict:
        yield f"{len(unknown)} of {len(records)} cells are unknown, and the run is strict"
    if options.update_golden:
        return
    candidates = [record for record in records if record["kind"] == "candidate"]
    if candidates and all(record["verdict"] == "unknown" for record in candidates):
        others = sorted({str(record["kind"]) for record in records if record["verdict"] != "unknown"})
        rest = f"; what was decided beside them ({', '.join(others)}) says nothing about a candidate" if others else ""
        yield f"no candidate was compared, {len(candidates)} unknown{rest}"
    elif records and len(unknown) == len(records):
        yield f"nothing was compared, {len(unknown)} unknown"
