"""``parity run``: the parity suite without pytest, with a progress bar; same options, cells, table and report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from parity.errors import UsageError
from parity.suite import options as suite_options

if TYPE_CHECKING:
    from parity.suite.options import Options
    from parity.suite.plan import Cell


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options that pytest has too, and ``--only``."""
    for option in suite_options.OPTIONS:
        parser.add_argument(f"--{option.name}", dest=option.key, **option.arguments())
    parser.add_argument("--only", metavar="TEXT", help="run the cells whose case name or sentence contains TEXT")


def main(arguments: argparse.Namespace) -> int:
    """Run the cells, print the table, write the report.

    Returns 0 if everything compared holds, 1 if something fails or no candidate was compared, 2 for bad input, and 130
    after an interruption; what is finished is shown and reported in any case.
    """
    options = suite_options.read(vars(arguments))
    from parity.suite import plan

    cells = [cell for cell in plan.cells(options) if _wanted(cell, arguments.only)]
    if not cells:
        where = "none of the cells named by --cell" if options.cell else "no case"
        raise UsageError(f"--only {arguments.only}: {where} has that in its name; try --only txt2img")

    from rich.console import Console

    from parity.report import html, table
    from parity.suite.run import conclude

    records = _ask(cells, options)
    conclusion = conclude(records, options)
    console = Console()
    print(table.render(records, width=console.width, color=console.is_terminal))
    for record in records:
        if record["verdict"] == "fail":
            print(f"\n{record['explanation']}", file=sys.stderr)
    if options.parity_report is not None:
        print(f"report: {html.write(records, options.parity_report, conclusion)}")
    if conclusion.messages:
        print("\n  ".join([f"parity run: {'; '.join(conclusion.messages)}", *conclusion.bad_input]), file=sys.stderr)
    return conclusion.code


def _ask(cells: Sequence[Cell], options: Options) -> list[dict[str, Any]]:
    """Ask the cells under a progress bar and return their records."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from parity.suite.run import Run

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("loading", total=len(cells))

        def begin(cell: Cell) -> None:
            progress.update(task, description=cell.sentence, completed=cells.index(cell))

        return Run(options, lambda text: progress.update(task, description=text)).ask_all(cells, begin)


def _wanted(cell: Cell, text: str | None) -> bool:
    return text is None or text in cell.case.name or text in cell.sentence
