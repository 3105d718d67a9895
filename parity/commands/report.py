"""``parity report``: table, page, JSON and summary of a run that lies in a folder."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from parity.commands import documents
from parity.errors import UsageError

if TYPE_CHECKING:
    from parity.report.page.view import Context
    from parity.runs.ledger import Ledger
    from parity.runs.result import Result
    from parity.suite.run import Conclusion


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("folder", nargs="?", type=Path, metavar="DIR", help="folder of a run, or of merged ones")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="write index.html and report.json there")
    parser.add_argument(
        "--summary", type=Path, metavar="FILE", help="write a summary in Markdown, for a workflow's page"
    )
    parser.add_argument("--since", type=Path, metavar="DIR", help="say what changed since this earlier run")
    parser.add_argument(
        "--history",
        "--db",
        type=Path,
        metavar="FILE",
        help="say what changed since earlier nights, and draw trends",
    )
    parser.add_argument("--strict", action="store_true", help="unknown verdicts fail")
    documents.declare(parser, "what report.json holds")
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
    from parity.report import html, summary, table
    from parity.runs import ledger
    from parity.runs.result import result
    from parity.runs.telling import counted

    read = ledger.read(arguments.folder)
    found = result(read)
    conclusion = conclude(found, strict=arguments.strict)
    context = _context(found, read, arguments)
    told = sys.stdout
    if arguments.json:
        from parity.commands.records_of_runs import Reported

        documents.write(Reported(**html.document(found.records, conclusion, context=context)))
        told = sys.stderr
    else:
        print(table.render(found.records, width=table.columns(), color=table.colored()))
    for line in (*read.skipped, *conclusion.messages):
        print(f"parity report: {line}", file=sys.stderr)
    if context.since:
        worse = {(change.machine, change.cell) for change in context.changes if change.worse}
        others = sum((change.machine, change.cell) not in worse for change in context.changes)
        said = f"{counted(len(worse), 'cell')} got worse, {counted(others, 'other change')}"
        print(f"since {context.since}: {said}", file=told)
    if arguments.output is not None:
        print(f"report: {html.write(found.records, arguments.output, conclusion, context=context)}", file=told)
    if arguments.summary is not None:
        messages = (*conclusion.messages, *read.skipped)
        page = summary.write(found.records, arguments.summary, messages=messages, context=context)
        print(f"summary: {page}", file=told)
    return conclusion.code


def _context(found: Result, read: Ledger, arguments: argparse.Namespace) -> Context:
    """Collect what changed since an earlier run or earlier nights, and the trends."""
    from parity.report.page.view import Context
    from parity.runs import ledger, since
    from parity.runs.history.check import check
    from parity.runs.history.store import Store
    from parity.runs.history.trends import trends

    changes: list[since.Change] = []
    told = []
    if arguments.since is not None:
        earlier = ledger.read(arguments.since)
        changes += since.changes(earlier, read)
        told.append(f"{arguments.since} ({earlier.sessions[-1].started[:16].replace('T', ' ')})")
    if arguments.history is None:
        return Context(found.described, changes, " and ".join(told))
    with Store(arguments.history) as store:
        changes += [finding.change for finding in check(store)]
        told.append("earlier nights")
        return Context(found.described, changes, " and ".join(told), trends(store))


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
