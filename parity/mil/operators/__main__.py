"""List the operators, or write the page about them: ``python -m parity.mil.operators [--table PATH]``."""

from __future__ import annotations

import argparse
from pathlib import Path

from parity.files import replacing
from parity.mil.operators.registry import versions
from parity.mil.operators.table import page


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m parity.mil.operators", description=__doc__)
    parser.add_argument("--table", type=Path, metavar="PATH", help="write the page about all operators to PATH")
    path: Path | None = parser.parse_args().table
    if path is None:
        for kind, known in versions().items():
            print(kind, *(operator.since for operator in known))
        return
    with replacing(path) as temporary:
        temporary.write_text(page(), encoding="utf-8")


main()
