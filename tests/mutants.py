"""How many of the planted changes were noticed, file by file? ``mutmut results --all true | python -m tests.mutants``.

Ends with 1 if fewer than nine in ten were, or if the run did not end. What no test reaches was not noticed.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable

WANTED = 0.9
NOTICED = ("killed", "timeout", "caught by type check")
_LINE = re.compile(r"(?P<file>parity\.[\w.]+)\.(?P<function>x\w+)__mutmut_\d+: (?P<status>.+)")


def count(lines: Iterable[str]) -> dict[str, Counter[str]]:
    """Return the changes of each module by status; those that mutmut was told to skip are left out."""
    found: dict[str, Counter[str]] = {}
    for line in lines:
        match = _LINE.fullmatch(line.strip())
        if match and match["status"] != "skipped":
            found.setdefault(match["file"], Counter())[match["status"]] += 1
    return found


def table(found: dict[str, Counter[str]]) -> tuple[list[str], bool]:
    """Return a table in Markdown, and whether enough was noticed in a run that ended."""
    rows = ["| file | asked | noticed |", "| --- | --- | --- |"]
    total: Counter[str] = Counter()
    for name in sorted(found):
        statuses = found[name]
        total += statuses
        noticed = sum(statuses[status] for status in NOTICED)
        rows.append(f"| `{name.removeprefix('parity.').replace('.', '/')}` | {statuses.total()} | {noticed} |")
    noticed, asked = sum(total[status] for status in NOTICED), total.total()
    rows.append(f"| together | {asked} | {noticed} ({noticed / asked if asked else 0:.1%}) |")
    ended = not total["not checked"] and not total["check was interrupted by user"]
    return rows, ended and asked > 0 and noticed >= WANTED * asked


if __name__ == "__main__":
    given = sys.stdin.read().splitlines()
    rows, enough = table(count(given))
    print("\n".join([*(line.strip() for line in given if not line.endswith(NOTICED)), *rows]))
    sys.exit(0 if enough else 1)
