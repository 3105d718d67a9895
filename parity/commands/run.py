"""``parity run``: the parity suite without pytest, with a progress bar; same options, cells, table and report."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from parity.errors import FormatError, UsageError
from parity.suite import options as suite_options

if TYPE_CHECKING:
    from parity.suite.plan import Cell


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options that pytest has too, and ``--only``."""
    for option in suite_options.OPTIONS:
        parser.add_argument(f"--{option.name}", dest=option.key, **option.arguments())
    parser.add_argument("--only", metavar="TEXT", help="run the cells whose case name or sentence contains TEXT")


def main(arguments: argparse.Namespace) -> int:
    """Run the cells, print the table, write the report; 0 pass, 1 fail (or strictly unknown), 2 bad input."""
    options = suite_options.read(vars(arguments))
    from parity.suite import plan

    cells = [cell for cell in plan.cells(options) if _wanted(cell, arguments.only)]
    if not cells:
        raise UsageError(f"--only {arguments.only}: no case has that in its name; try --only txt2img")

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from parity.report import html, table
    from parity.suite.evaluate import Evaluator
    from parity.suite.verdict import Verdict, combine

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    outcomes = []
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("loading", total=len(cells))
        evaluator = Evaluator(options, lambda text: progress.update(task, description=text))
        for cell in cells:
            progress.update(task, description=cell.sentence)
            outcomes.append(evaluator.evaluate(cell))
            progress.advance(task)

    records = [outcome.record() for outcome in outcomes]
    console = Console()
    print(table.render(records, width=console.width, color=console.is_terminal))
    for outcome in outcomes:
        if outcome.verdict is Verdict.FAIL:
            print(f"\n{outcome.explain()}", file=sys.stderr)
    if options.parity_report is not None:
        print(f"report: {html.write(records, options.parity_report)}")
    verdict = combine(outcome.verdict for outcome in outcomes)
    decided = any(outcome.verdict is not Verdict.UNKNOWN for outcome in outcomes) or options.update_golden
    if verdict is Verdict.FAIL:
        return 1
    if bad := dict.fromkeys(message for outcome in outcomes for message in outcome.bad_input):
        raise FormatError("models that could not be compared (the others were):\n  " + "\n  ".join(bad))
    return int((verdict is Verdict.UNKNOWN and options.parity_strict) or not decided)


def _wanted(cell: Cell, text: str | None) -> bool:
    return text is None or text in cell.case.name or text in cell.sentence
