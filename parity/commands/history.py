"""``parity history``: nights in a database, made of run folders: what changed, what drifts, what got slower."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from parity.commands import documents
from parity.errors import UsageError
from parity.runs.telling import counted
from parity.tables import nearest

if TYPE_CHECKING:
    from parity.commands.records_of_runs import Found, Trends
    from parity.runs.history.check import Finding
    from parity.runs.history.store import Series, Store

DEFAULT = Path("parity-history.sqlite")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = actions.add_parser("add", help="take the answers of run folders, in this order")
    add.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    show = actions.add_parser("show", help="trends of all cells, or everything about one")
    show.add_argument("cell", nargs="?", default="", metavar="CELL", help="a cell's id")
    check = actions.add_parser("check", help="say what got worse; 1 if anything did")
    check.add_argument("--recent", type=int, default=14, metavar="N", help="runs that are new; default: 14")
    check.add_argument("--all", action="store_true", help="list everything that changed")
    for action in (add, show, check):
        documents.declare(action)
    for action in (add, show, check):
        action.add_argument(
            "--db", "--history", type=Path, default=DEFAULT, metavar="FILE", help=f"the history; default: {DEFAULT}"
        )


def main(arguments: argparse.Namespace) -> int:
    """Do it; ``check`` returns 1 where something got worse, 0 otherwise."""
    return int({"add": _add, "show": _show, "check": _check}[arguments.action](arguments))


def _add(arguments: argparse.Namespace) -> int:
    from parity.commands.records_of_runs import Added, Taken
    from parity.runs.history.store import Store

    new = not arguments.db.exists()
    taken: list[Taken] = []
    try:
        with Store(arguments.db, create=True) as store:
            for folder in arguments.folders:
                taken.append(Taken(str(folder), store.add(folder)))
                if not arguments.json:
                    print(f"{folder}: {counted(taken[-1].cells, 'cell')}")
            runs = len(store.runs())
    finally:
        if new and not taken:  # the first folder was none: no history began
            arguments.db.unlink(missing_ok=True)
    if arguments.json:
        documents.write(Added(str(arguments.db), runs, tuple(taken)))
    else:
        print(f"{arguments.db}: {counted(runs, 'run')}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from parity.runs import telling
    from parity.runs.history.check import check
    from parity.runs.history.store import Store

    if arguments.recent < 1:
        raise UsageError(f"--recent {arguments.recent}: at least 1 is needed")
    with Store(arguments.db) as store:
        found = check(store, recent=arguments.recent)
        runs, series = len(store.runs()), len(store.series())
    if arguments.json:
        from parity.commands.records_of_runs import Checked

        documents.write(Checked(runs, series, tuple(_found(finding) for finding in found)))
        return int(any(finding.worse for finding in found))
    groups = telling.grouped([finding.change for finding in found])
    for line in telling.sentences(groups, most=sys.maxsize if arguments.all else 20):
        print(line)
    worse = sum(finding.worse for finding in found)
    print(f"{counted(runs, 'run')}, {series} series: {worse} got worse, {len(found) - worse} better")
    return int(worse > 0)


def _found(finding: Finding) -> Found:
    from parity.commands.records_of_runs import Found

    first, last = (None if run is None else run.id for run in (finding.first, finding.last))
    texts = (finding.machine, finding.cell, finding.what, finding.change.whole)
    return Found(finding.kind, finding.worse, *texts, first=first, last=last)


def _show(arguments: argparse.Namespace) -> int:
    from parity.runs.history.store import Store

    with Store(arguments.db) as store:
        listed = store.series(arguments.cell)
        known = store.verdicts(arguments.cell)
        if not known:
            names = sorted({cell for _, cell in store.verdicts()})
            raise UsageError(f"{arguments.db}: no cell {arguments.cell!r} in it{nearest(arguments.cell, names)}")
        if arguments.json:
            documents.write(_nights(store, listed, known))
            return 0
        for line in _trends(store, listed, known, whole=bool(arguments.cell)):
            print(line)
    return 0


def _nights(store: Store, listed: list[Series], known: dict[tuple[str, str], list[tuple[int, str]]]) -> Trends:
    """Return all series of the cells, whatever a table would choose of them."""
    import numpy as np

    from parity.commands.records_of_runs import Nights, Trend, Trends

    numbers, _, values = store.values()
    cells = []
    for (machine, cell), told in known.items():
        trends = []
        for series in listed:
            if (series.machine, series.cell) == (machine, cell):
                first, last = np.searchsorted(numbers, [series.id, series.id + 1])
                trends.append(Trend(series.what, series.unit, series.bound, tuple(values[first:last].tolist())))
        verdicts = {str(run): verdict for run, verdict in told}
        cells.append(Nights(cell, machine, verdicts, tuple(trends)))
    return Trends(tuple(cells))


def _trends(
    store: Store, listed: list[Series], known: dict[tuple[str, str], list[tuple[int, str]]], *, whole: bool
) -> list[str]:
    """Return the lines of a table: for all cells the picture's margin or what there is; for one all its series."""
    import numpy as np

    from parity.runs.history.sparkline import sparkline
    from parity.runs.history.trends import important

    numbers, _, values = store.values()
    plain = "utf" not in (sys.stdout.encoding or "").lower()
    width = max(10, min(40, shutil.get_terminal_size((100, 24)).columns - 60))
    by_cell: dict[tuple[str, str], list[Series]] = {}
    for series in listed:
        by_cell.setdefault((series.machine, series.cell), []).append(series)
    lines: list[str] = []
    runs = store.runs() if whole else {}
    for key, told in known.items():
        marks = "".join({"pass": ".", "fail": "F", "unknown": "?"}[verdict] for _, verdict in told)[-width:]
        lines.append(f"{key[1]} on {key[0]}: {told[-1][1]}, {counted(len(told), 'run')}  {marks}")
        own = by_cell.get(key, [])
        for series in own if whole else important(own):
            first, last = np.searchsorted(numbers, [series.id, series.id + 1])
            row = values[first:last].tolist()
            unit = f" {series.unit}" if series.unit else ""
            label = series.what if series.unit == "s" else f"margin of {series.what}"
            lines.append(f"  {sparkline(row, width=width, plain=plain):<{width}}  {row[-1]:.4g}{unit}  {label}")
        lines += [f"  {runs[run].title}: {verdict}" for run, verdict in told] if whole else []
    return lines
