"""``parity fleet run``: a run on the machines of a Dask cluster, one task a cell, into one folder."""

from __future__ import annotations

import argparse
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from parity.commands import documents
from parity.errors import UsageError
from parity.suite import options as suite_options

if TYPE_CHECKING:
    from parity.runs.folder import RunFolder
    from parity.suite.options import Options
    from parity.suite.plan import Cell


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the action, and the options that ``parity run`` has too."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    run = actions.add_parser("run", help="ask the cells of a run on all workers of a scheduler")
    run.add_argument("--scheduler", required=True, metavar="ADDRESS", help="of Dask's scheduler: tcp://host:8786")
    run.add_argument(
        "--require",
        action="append",
        default=[],
        metavar="NAME=COUNT",
        help="resource that a worker must declare, repeatable: m2=1 keeps a trend to one kind of machine",
    )
    for option in suite_options.OPTIONS:
        run.add_argument(*option.flags, dest=option.key, **option.arguments())
    documents.declare(run, "what report.json holds")


def main(arguments: argparse.Namespace) -> int:
    """Ask the cells, print the table, write the report; returns as ``parity run`` does."""
    options = suite_options.read(vars(arguments))
    if options.run_dir is None:
        raise UsageError("parity fleet run needs --run-dir DIR: records are written as they arrive")
    if options.traces:
        raise UsageError(
            "--traces: a fleet's workers do not share the run's folder; ask the cell again by --cell there"
        )
    require = _resources(arguments.require)
    from parity.commands.run import finish, opened
    from parity.fleet.client import connected
    from parity.suite import plan

    options = replace(options, machine=options.machine or "fleet")
    cells = plan.cells(options)
    with connected(arguments.scheduler) as client, opened(cells, options) as folder:
        assert folder is not None
        records = _ask(client, [cell for cell in cells if cell.id not in folder.held], (options, require), folder)
    return finish([folder.held.get(cell.id) or records[cell.id] for cell in cells], options, as_json=arguments.json)


def _ask(
    client: Any, cells: list[Cell], how: tuple[Options, dict[str, float]], folder: RunFolder
) -> dict[str, dict[str, Any]]:
    from parity import __version__
    from parity.fleet.client import Fleet
    from parity.fleet.task import Job
    from parity.report.fleet import Board, shown
    from parity.suite.isolated import encoded
    from parity.suite.question import question
    from parity.suite.run import not_asked

    options, require = how
    own = replace(options, run_dir=None, resume=False, parity_report=None)
    job = Job(folder.session.run, __version__, encoded(own), question(options))
    done: dict[str, dict[str, Any]] = {}
    board = Board(folder.session.run, len(cells))

    def finished(record: dict[str, Any]) -> None:
        folder.add(record)
        done[record["id"]] = record
        board.finished(record)

    with shown(board):
        fleet = Fleet(client, job, options, require, board.say, board.seen)
        with contextlib.closing(fleet):
            try:
                found = fleet.ask_all(cells, finished)
            except KeyboardInterrupt:
                return {cell.id: done.get(cell.id) or not_asked(cell, options) for cell in cells}
            fleet.forget()
            return found


def _resources(texts: list[str]) -> dict[str, float]:
    found = {}
    for text in texts:
        name, _, count = text.partition("=")
        try:
            found[name] = float(count or 1)
        except ValueError:
            raise UsageError(f"--require {text}: NAME=COUNT is needed, e.g. m2=1") from None
        if not name or not found[name] > 0:
            raise UsageError(f"--require {text}: NAME=COUNT is needed, e.g. m2=1")
    return found
