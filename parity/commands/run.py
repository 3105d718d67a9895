"""``parity run``: the parity suite without pytest, with a progress bar; same options, cells, table and report."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from parity.commands import documents
from parity.errors import UsageError
from parity.files import require_writable
from parity.suite import options as suite_options

if TYPE_CHECKING:
    from parity.runs.folder import RunFolder
    from parity.suite.options import Options
    from parity.suite.plan import Cell


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options that pytest has too, and ``--only``."""
    for option in suite_options.OPTIONS:
        parser.add_argument(*option.flags, dest=option.key, **option.arguments())
    parser.add_argument("--only", metavar="TEXT", help="run the cells whose case name or sentence contains TEXT")
    documents.declare(parser, "what report.json holds")


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
    with opened(cells, options) as folder:
        held = folder.held if folder is not None else {}
        asked = iter(_ask([cell for cell in cells if cell.id not in held], options, folder))
        records = [held[cell.id] if cell.id in held else next(asked) for cell in cells]
    return finish(records, options, whole=not arguments.only, as_json=arguments.json)


def finish(records: Sequence[dict[str, Any]], options: Options, *, whole: bool = True, as_json: bool = False) -> int:
    """Print the table and what failed, write the report, and return the exit code.

    Parameters
    ----------
    records : sequence of dict
        One for each cell, in their order.
    options : Options
        Those of the run.
    whole : bool
        Whether these are all cells of the options, so that an entry of a list that fits none is told.
    as_json : bool
        Print the document instead of the table.
    """
    from parity.report import html, table
    from parity.suite.expected import excused
    from parity.suite.listed import unused
    from parity.suite.run import conclude

    conclusion = conclude(records, options)
    if as_json:
        from parity.commands.records_of_runs import Reported

        documents.write(Reported(**html.document(records, conclusion)))
    else:
        print(table.render(records, width=table.columns(), color=table.colored()))
    for record in records:
        if record["verdict"] == "fail" and not excused(record):
            print(f"\n{record['explanation']}", file=sys.stderr)
    if options.parity_report is not None:
        page = html.write(records, options.parity_report, conclusion)
        print(f"report: {page}", file=sys.stderr if as_json else sys.stdout)
    for line in unused(options, [record["id"] for record in records]) if whole else ():
        print(f"parity run: {line}", file=sys.stderr)
    if conclusion.messages:
        print("\n  ".join([f"parity run: {'; '.join(conclusion.messages)}", *conclusion.bad_input]), file=sys.stderr)
    return conclusion.code


@contextlib.contextmanager
def opened(cells: Sequence[Cell], options: Options) -> Iterator[RunFolder | None]:
    """Hold the run's folder, where there is to be one, and say what is taken from it; a report's has to be writable."""
    if options.parity_report is not None:
        require_writable(options.parity_report, "--parity-report")
    if options.run_dir is None:
        yield None
        return
    from parity.runs.folder import Plan, open_run
    from parity.suite.question import planned, question

    plan = Plan(question(options), planned(cells, options), options.machine)
    with open_run(options.run_dir, plan, resume=options.resume) as folder:
        told = [f"{len(folder.held)} of {len(cells)} cells are finished in {options.run_dir}"] if folder.held else []
        for line in (*folder.skipped, *told):
            print(f"parity run: {line}", file=sys.stderr)
        yield folder


def _ask(cells: Sequence[Cell], options: Options, folder: RunFolder | None) -> list[dict[str, Any]]:
    """Ask the cells, show the progress, and return their records."""
    from parity.report import progress
    from parity.suite.isolated import IsolatedRun
    from parity.suite.run import Run

    with progress.shown(len(cells)) as shown:
        count = itertools.count()

        def begin(cell: Cell) -> None:
            shown.advance(next(count))
            shown.say(cell.sentence)

        def finished(record: dict[str, Any]) -> None:
            if folder is not None:
                folder.add(record)

        kind = IsolatedRun if options.isolated else Run
        with contextlib.closing(kind(options, shown.say)) as run:
            return run.ask_all(cells, begin, finished)


def _wanted(cell: Cell, text: str | None) -> bool:
    return text is None or text in cell.case.name or text in cell.sentence
