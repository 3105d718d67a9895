"""``parity golden``: which goldens are there, what do they show, and who accepts or rejects them?

``approve``, ``reject`` and ``prune`` append to the log ``approvals.jsonl`` with author, time and reason; nothing in it
is ever changed. Neither torch nor diffusers is imported.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from parity.commands import documents
from parity.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from parity.suite.goldens.log import Decision
    from parity.suite.goldens.store import Golden

DEFAULT: Final = Path("golden")
_STANDINGS: Final = ("new", "approved", "rejected", "unused", "lost")
_LOUDER: Final = 8  # times by which the difference is amplified in the picture of diff


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    shown = _action(actions, "list", "goldens with their standing, who decided, when and why")
    shown.add_argument("series", nargs="*", metavar="GOLDEN", help="ids, their beginnings, or patterns; default: all")
    shown.add_argument("--only", action="append", choices=_STANDINGS, help="goldens of this standing; repeatable")
    shown.add_argument("--cases", type=Path, metavar="FILE", help="cases of your runs: goldens of no case are unused")
    show = _action(actions, "show", "everything about goldens: settings, versions, digests, history, drift")
    show.add_argument("goldens", nargs="+", metavar="GOLDEN", help="ids, their beginnings, or patterns")
    diff = _action(actions, "diff", "compare a golden with another one, or with its anchor")
    diff.add_argument("goldens", nargs="+", metavar="GOLDEN", help="one id or two, or their beginnings")
    diff.add_argument("-o", "--output", type=Path, metavar="FILE", help="write both pictures and their difference, PNG")
    approve = _action(actions, "approve", "accept goldens: runs pass with them")
    approve.add_argument(
        "--for", action="append", default=[], dest="places", metavar="KEY=PATTERN",
        help="accept for these places, e.g. system='macOS *', chip='*'; keys: backend, system, chip; repeatable",
    )  # fmt: skip
    approve.add_argument("--new-anchor", action="store_true", help="begin a line: drift is counted from this picture")
    approve.add_argument("--tolerances", type=Path, metavar="FILE", help="your table, for the bounds of golden/drift")
    reject = _action(actions, "reject", "refuse goldens, or take an acceptance back")
    prune = _action(actions, "prune", "remove files of goldens; the log keeps every decision")
    for action in (approve, reject):
        action.add_argument("goldens", nargs="+", metavar="GOLDEN", help="ids, their beginnings, or patterns")
        action.add_argument("--reason", required=True, metavar="TEXT", help="why, in a sentence; kept in the log")
    prune.add_argument("--rejected", action="store_true", help="those that were rejected")
    prune.add_argument("--new", action="store_true", help="those that wait for a decision")
    prune.add_argument("--unused", type=Path, metavar="FILE", help="accepted ones that no case in this file uses")
    prune.add_argument("--reason", default="pruned", metavar="TEXT", help="why; kept in the log")
    prune.add_argument("--dry-run", action="store_true", help="say what would be removed, remove nothing")
    migrate = _action(actions, "migrate", "take over goldens that older releases laid down, without redrawing them")
    for action in (approve, reject, prune, migrate):
        action.add_argument(
            "--author", metavar="NAME", help="who decides; default: PARITY_AUTHOR, git's user, the login"
        )
    for action in (shown, show, diff, approve, reject, prune, migrate):
        documents.declare(action)


def _action(actions: Any, name: str, summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + "."
    )
    parser.add_argument(
        "--golden-dir", type=Path, default=DEFAULT, metavar="DIR", help=f"folder of goldens; default: {DEFAULT}"
    )
    return parser


def main(arguments: argparse.Namespace) -> int:
    """Do it; ``diff`` returns 1 where the pictures differ, all others 0."""
    actions: dict[str, Callable[[argparse.Namespace], int]] = {
        "list": _list,
        "show": _show,
        "diff": _diff,
        "approve": _approve,
        "reject": _reject,
        "prune": _prune,
        "migrate": _migrate,
    }
    return actions[arguments.action](arguments)


def _list(arguments: argparse.Namespace) -> int:
    from parity.suite.goldens import curate, store

    directory = arguments.golden_dir
    found = curate.choose(directory, arguments.series) if arguments.series else store.everything(directory)
    unused = {one.id for one in _of_no_case(found, arguments.cases)}
    rows = [_row(one, one.id in unused) for one in found]
    rows += [
        {"golden": one.golden, "standing": "lost", "last": asdict(one), "twins": []}
        for one in ([] if arguments.series else store.lost(directory))
    ]
    twins: dict[str, list[str]] = {}
    for row in rows:
        twins.setdefault(row.get("picture", ""), []).append(row["golden"])
    for row in rows:
        row["twins"] = [name for name in twins.get(row.get("picture") or "?", ()) if name != row["golden"]]
    rows = [row for row in rows if not arguments.only or row["standing"] in arguments.only]
    if arguments.json:
        from parity.commands.records_of_goldens import Golden as Listed
        from parity.commands.records_of_goldens import Goldens

        documents.write(Goldens(tuple(Listed(**{**row, "twins": tuple(row["twins"])}) for row in rows)))
        return 0
    for row in rows:
        last = row["last"]
        told = f"{last['time'][:10]} {last['author']}: {last['reason']}" if last else "waits for a decision"
        same = f"; same picture as {', '.join(row['twins'])}" if row["twins"] else ""
        print(f"{row['standing']:8}  {row['golden']}  {told}{same}")
    print(f"{len(rows)} goldens in {directory}")
    return 0


def _of_no_case(found: Sequence[Golden], file: Path | None) -> list[Golden]:
    from parity.suite.listed import of_no_case
    from parity.suite.options import Options

    return [] if file is None else of_no_case(found, Options(cases=file))


def _row(golden: Golden, unused: bool) -> dict[str, Any]:
    return {
        "golden": golden.id,
        "standing": "unused" if unused else golden.standing,
        "drawn": asdict(golden.keys),
        "picture": golden.record["image_sha256"],
        "last": asdict(golden.decisions[-1]) if golden.decisions else None,
    }


def _show(arguments: argparse.Namespace) -> int:
    from parity.commands import golden_views
    from parity.commands.records_of_goldens import ShownGoldens
    from parity.suite import tolerance
    from parity.suite.goldens import curate

    directory, table = arguments.golden_dir, tolerance.load()
    found = [golden_views.shown(one, directory, table) for one in curate.choose(directory, arguments.goldens)]
    if arguments.json:
        documents.write(ShownGoldens(tuple(found)))
        return 0
    for one in found:
        print("\n".join(golden_views.lines(one)))
    return 0


def _diff(arguments: argparse.Namespace) -> int:
    from parity.commands import golden_views
    from parity.suite.goldens import curate, store

    directory, named = arguments.golden_dir, arguments.goldens
    chosen = [one for word in named for one in curate.choose(directory, [word])]
    if len(named) > 2 or len(chosen) != len(named):
        raise UsageError(f"diff: one golden or two are compared, and {len(chosen)} are named")
    if len(chosen) == 1:
        chosen.insert(0, _beside(chosen[0], store.in_series(directory, chosen[0].series, ignore_lost=True)))
    traces = [one.open() for one in chosen]
    found = golden_views.compared(chosen, traces, arguments.output)
    if arguments.output is not None:
        _draw(traces[0]["image"], traces[1]["image"], arguments.output)
    if arguments.json:
        documents.write(found)
        return int(not found.equal)
    print("\n".join(golden_views.lines_of_two(found)))
    if arguments.output is not None:
        print(f"A, B and their difference, {_LOUDER} times amplified: {arguments.output}")
    return int(not found.equal)


def _beside(golden: Golden, there: Sequence[Golden]) -> Golden:
    """Return what a golden is compared with by itself: its anchor, else the first accepted one of its series."""
    anchor = golden.approval.anchor if golden.approval else ""
    others = [one for one in there if one.id != golden.id]
    chosen = [one for one in others if one.id == anchor] or [one for one in others if one.approval]
    if not chosen:
        raise UsageError(f"{golden.id}: no other accepted golden in its series; name the second one")
    return chosen[0]


def _draw(first: np.ndarray, second: np.ndarray, path: Path) -> None:
    import numpy as np
    from PIL import Image

    from parity.files import replacing

    if first.shape != second.shape:
        raise UsageError(f"--output: pictures of different sizes, {first.shape[1:3]} and {second.shape[1:3]}")
    apart = np.abs(first.astype(np.int16) - second.astype(np.int16)) * _LOUDER
    rows = [np.concatenate(list(part), axis=1) for part in (first, second, np.clip(apart, 0, 255).astype(np.uint8))]
    with replacing(path) as scratch:
        Image.fromarray(np.concatenate(rows, axis=1)).save(scratch, "PNG")


def _approve(arguments: argparse.Namespace) -> int:
    from parity.suite import tolerance
    from parity.suite.goldens import curate, log

    chosen = curate.choose(arguments.golden_dir, arguments.goldens)
    wish = curate.Wish(arguments.reason, log.author(arguments.author), tuple(arguments.places), arguments.new_anchor)
    decided = curate.approve(arguments.golden_dir, chosen, wish, tolerance.load(arguments.tolerances))
    return _told(arguments, decided, _approved)


def _approved(decision: Decision) -> str:
    line = "begins a line" if decision.anchor == decision.golden else f"drift is counted from {decision.anchor}"
    return f"approved {decision.golden} for {decision.keys}; {line}"


def _told(arguments: argparse.Namespace, decided: Sequence[Decision], text: Callable[[Decision], str]) -> int:
    """Say what was decided, or print it."""
    if arguments.json:
        from parity.commands.records_of_goldens import Decided

        documents.write(Decided(tuple(decided)))
        return 0
    for decision in decided:
        print(text(decision))
    return 0


def _reject(arguments: argparse.Namespace) -> int:
    from parity.suite.goldens import curate, log, store

    lost = {one.golden: one for one in store.lost(arguments.golden_dir)}
    gone = [lost[word] for word in arguments.goldens if word in lost]
    words = [word for word in arguments.goldens if word not in lost]
    chosen = [*gone, *(curate.choose(arguments.golden_dir, words) if words else ())]
    wish = curate.Wish(arguments.reason, log.author(arguments.author))
    decided = curate.reject(arguments.golden_dir, chosen, wish)
    return _told(arguments, decided, lambda decision: f"rejected {decision.golden}")


def _prune(arguments: argparse.Namespace) -> int:
    from parity.suite.goldens import curate, log, store

    if not (arguments.rejected or arguments.new or arguments.unused):
        raise UsageError("say what to remove: --rejected, --new or --unused CASES; --dry-run shows it first")
    there = store.everything(arguments.golden_dir)
    wanted = {"rejected": arguments.rejected, "new": arguments.new}
    unused = {one.id for one in _of_no_case(there, arguments.unused)}
    doomed = [one for one in there if wanted.get(one.standing) or one.id in unused]
    doomed, kept = curate.prunable(arguments.golden_dir, doomed)
    for line in kept:
        print(f"kept {line}", file=sys.stderr)
    if arguments.dry_run:
        names = [one.id for one in doomed]
    else:
        names = curate.prune(arguments.golden_dir, doomed, curate.Wish(arguments.reason, log.author(arguments.author)))
    if arguments.json:
        from parity.commands.records_of_goldens import PrunedGoldens

        documents.write(PrunedGoldens(not arguments.dry_run, tuple(names), tuple(kept)))
        return 0
    for name in names:
        print(f"{'would remove' if arguments.dry_run else 'removed'} {name}")
    return 0


def _migrate(arguments: argparse.Namespace) -> int:
    from parity.suite.goldens import curate, log

    decided = curate.migrate(arguments.golden_dir, log.author(arguments.author))
    return _told(arguments, decided, lambda decision: f"took over {decision.golden}")
