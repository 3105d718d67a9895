"""``parity schema``: the JSON Schema of what a command prints after ``--json``, or a list of these documents."""

from __future__ import annotations

import argparse
import json
from typing import Final

LEDGER: Final = "ledger"
"""Name of the one schema that is of a file: a line of a run's ledger."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the argument."""
    parser.add_argument("document", nargs="*", metavar="DOCUMENT", help=f"such as: mil profile; or {LEDGER}")


def main(arguments: argparse.Namespace) -> int:
    """Print a schema, or the names that there are."""
    from parity.commands.layouts import LAYOUTS, layout, schema

    name = " ".join(arguments.document)
    if not name:
        for listed in LAYOUTS:
            print(f"{listed:<16} {' '.join((layout(listed).__doc__ or '').split()).partition('. ')[0]}")
        print(f"{LEDGER:<16} A line of a run's ledger.")
        return 0
    if name == LEDGER:
        from parity.runs.schema import json_schema

        print(json.dumps(json_schema(), indent=1))
        return 0
    print(json.dumps(schema(name), indent=1))
    return 0
