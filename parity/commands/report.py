"""``parity report``: table, page, JSON and summary of a run that lies in a folder."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from parity.errors import UsageError

if TYPE_CHECKING:
    from parity.runs.result import Result
    from parity.suite.run import Conclusion


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("folder", nargs="?", type=Path, metavar="DIR", help="folder of a run, or of merged ones")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="write index.html and report.json there")
    parser.add_argument(
        "--summary", type=Path, metavar="FILE", help="write a summary in Markdown, for a workflow's page"
    )
    parser.add_argument(
        "--history", type=Path, metavar="FILE", help="say in the summary what changed since earlier nights"
    )
    parser.add_argument("--strict", action="store_true", help="unknown verdicts fail")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of a ledger's lines, and end")


def main(arguments: argparse.Namespace) -> int:
    """Print the table and write what was asked for.

    Returns as the run would have: 0 if everything compared holds, 1 if something fails, is missing, or no candidate was
    compared, 2 for bad input.
    """
    if arguments.schema:
        from parity.runs.schema import json_schema

        print(json.dumps(json_schema(), indent=1))
        return 0
    if arguments.folder is None:
        raise UsageError("a run's folder is needed: parity report DIR")
    from rich.console import Console

    from parity.report import html, summary, table
    from parity.runs import ledger
    from parity.runs.result import result

    read = ledger.read(arguments.folder)
    found = result(read)
    conclusion = conclude(found, strict=arguments.strict)
    console = Console()
    print(table.render(found.records, width=console.width, color=console.is_terminal))
    for line in (*read.skipped, *conclusion.messages):
        print(f"parity report: {line}", file=sys.stderr)
    if arguments.output is not None:
        written = html.write(found.records, arguments.output, conclusion, machine=found.described)
        print(f"report: {written}")
    if arguments.summary is not None:
        messages = (*conclusion.messages, *read.skipped)
        changes = _changes(arguments.history) if arguments.history is not None else ()
        written = summary.write(found.records, arguments.summary, messages=messages, changes=changes)
        print(f"summary: {written}")
    return conclusion.code


def _changes(path: Path) -> list[str]:
    from parity.runs.history.check import check, lines
    from parity.runs.history.store import Store

    with Store(path) as store:
        return lines(check(store)) or ["nothing got worse or better"]


def conclude(found: Result, *, strict: bool = False) -> Conclusion:
    """Decide a run from its folder; one in which planned cells have no answer fails."""
    from parity.suite import run
    from parity.suite.options import Options

    answered = [record for record in found.records if record["asked"]]
    conclusion = run.conclude(answered, Options(parity_strict=strict, update_golden=found.accepting))
    if not found.missing:
        return conclusion
    message = f"missing: {found.missing} of {len(found.records)} planned cells have no answer"
    return run.Conclusion(conclusion.code or 1, (*conclusion.messages, message), conclusion.bad_input)
