"""``parity merge``: one folder of the runs of several machines and workers."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from parity.commands import documents
from parity.errors import UsageError


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="DIR", help="folders that 'parity run --run-dir' wrote"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="the new folder")
    documents.declare(parser, "what was merged")


def main(arguments: argparse.Namespace) -> int:
    """Merge, say what is in the new folder; 0 when that is done, whatever the verdicts are."""
    from parity.runs.merge import merge
    from parity.runs.result import result

    if len(arguments.folders) < 2:
        raise UsageError(f"{arguments.folders[0]} alone: two runs or more are needed")
    merged = merge(arguments.folders, arguments.output)
    for line in merged.ledger.skipped:
        print(f"parity merge: {line}", file=sys.stderr)
    found = result(merged.ledger)
    if arguments.json:
        from parity.commands.records_of_runs import Merged

        verdicts = Counter(record["verdict"] for record in found.records)
        folders = tuple(map(str, arguments.folders))
        counts = (len(merged.ledger.entries), merged.twice, found.missing)
        documents.write(Merged(str(arguments.output), folders, tuple(found.machines), *counts, dict(verdicts)))
        return 0
    names = ", ".join(found.machines)
    print(f"{arguments.output}: {len(merged.ledger.entries)} cells of {len(arguments.folders)} runs on {names}")
    if merged.twice:
        print(f"{merged.twice} answers were there twice for one machine; of each pair the worse is kept")
    if found.missing:
        print(f"{found.missing} planned cells have no answer and are unknown")
    return 0
