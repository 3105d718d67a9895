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

    from parity.pipelines.trace import Trace
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
    documents.declare(shown)
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
        from parity.commands.records_of_runs import Golden as Listed
        from parity.commands.records_of_runs import Goldens

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
    from parity.suite import tolerance
    from parity.suite.goldens import curate, store

    directory = arguments.golden_dir
    table = tolerance.load()
    for golden in curate.choose(directory, arguments.goldens):
        trace = golden.open()
        print(f"{golden.id}: {golden.standing}")
        print(f"  picture   {golden.folder / 'image.png'}")
        print(f"  pixels    SHA-256 {golden.record['image_sha256']}")
        print(f"  drawn by  {golden.keys}")
        if golden.approval:
            print(f"  accepted  for {golden.approval.keys}")
            print(f"  anchor    {_distance(golden, directory, store, curate, table)}")
        print(f"  weights   {golden.record['weights'] or 'of a hub id'}")
        for title in ("case", "environment"):
            said = ", ".join(f"{name} {value!r}" for name, value in golden.record[title].items() if value != "")
            print(f"  {title:9} {said}")
        for point, value in trace.items():
            print(f"  holds     {point} {value.dtype} {value.shape}")
        for decision in golden.decisions:
            print(f"  {decision}")
    return 0


def _distance(golden: Golden, directory: Path, store: Any, curate: Any, table: Any) -> str:
    anchor = golden.approval.anchor if golden.approval else golden.id
    if anchor == golden.id:
        return "itself"
    there = {one.id: one for one in store.in_series(directory, golden.series, ignore_lost=True)}
    if anchor not in there:
        return f"{anchor}, which is not there"
    from parity.metrics import METRICS

    checks = curate.drift(there[anchor], golden, table)
    return f"{anchor}, {', '.join(f'{c.metric} {METRICS[c.metric].format(c.value)}' for c in checks)}"


def _diff(arguments: argparse.Namespace) -> int:
    import numpy as np

    from parity.suite.goldens import curate, store

    directory, named = arguments.golden_dir, arguments.goldens
    found = [one for word in named for one in curate.choose(directory, [word])]
    if len(named) > 2 or len(found) != len(named):
        raise UsageError(f"diff: one golden or two are compared, and {len(found)} are named")
    one = found[0]
    if len(found) == 1:
        found.insert(0, _beside(one, store.in_series(directory, one.series, ignore_lost=True)))
    first, second = found[0], found[1]
    traces = first.open(), second.open()
    print(f"A {first.id}: {first.standing}, {first.keys}")
    print(f"B {second.id}: {second.standing}, {second.keys}")
    for line in (*_records(first, second), *_traces(*traces)):
        print(f"  {line}")
    if arguments.output is not None:
        _draw(traces[0]["image"], traces[1]["image"], arguments.output)
        print(f"A, B and their difference, {_LOUDER} times amplified: {arguments.output}")
    return int(not np.array_equal(traces[0]["image"], traces[1]["image"]))


def _beside(golden: Golden, there: Sequence[Golden]) -> Golden:
    """Return what a golden is compared with by itself: its anchor, else the first accepted one of its series."""
    anchor = golden.approval.anchor if golden.approval else ""
    others = [one for one in there if one.id != golden.id]
    chosen = [one for one in others if one.id == anchor] or [one for one in others if one.approval]
    if not chosen:
        raise UsageError(f"{golden.id}: no other accepted golden in its series; name the second one")
    return chosen[0]


def _records(first: Golden, second: Golden) -> list[str]:
    lines = []
    for title in ("case", "environment"):
        a, b = first.record[title], second.record[title]
        lines += [
            f"{name}: {a.get(name)!r} -> {b.get(name)!r}"
            for name in dict.fromkeys([*a, *b])
            if a.get(name) != b.get(name)
        ]
    if first.record["weights"] != second.record["weights"]:
        lines.append(f"weights: {first.record['weights']} -> {second.record['weights']}")
    return lines


def _traces(first: Trace, second: Trace) -> list[str]:
    """Measure what both hold: pictures globally and locally, tensors by PSNR."""
    import numpy as np

    from parity.metrics import METRICS, measure

    lines = []
    for point in dict.fromkeys([*first, *second]):
        if point not in first or point not in second:
            lines.append(f"{point}: only in {'A' if point in first else 'B'}")
        elif first[point].shape != second[point].shape:
            lines.append(f"{point}: shapes differ: {first[point].shape} and {second[point].shape}")
        elif np.array_equal(first[point], second[point]):
            lines.append(f"{point}: equal")
        else:
            names = ("image_psnr", "image_window_rms") if point == "image" else ("tensor_psnr",)
            found = [f"{n} {METRICS[n].format(measure(n, first[point], second[point]))}" for n in names]
            lines.append(f"{point}: {', '.join(found)}")
    return lines


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
    for decision in curate.approve(arguments.golden_dir, chosen, wish, tolerance.load(arguments.tolerances)):
        line = "begins a line" if decision.anchor == decision.golden else f"drift is counted from {decision.anchor}"
        print(f"approved {decision.golden} for {decision.keys}; {line}")
    return 0


def _reject(arguments: argparse.Namespace) -> int:
    from parity.suite.goldens import curate, log, store

    lost = {one.golden: one for one in store.lost(arguments.golden_dir)}
    gone = [lost[word] for word in arguments.goldens if word in lost]
    words = [word for word in arguments.goldens if word not in lost]
    chosen = [*gone, *(curate.choose(arguments.golden_dir, words) if words else ())]
    for decision in curate.reject(
        arguments.golden_dir, chosen, curate.Wish(arguments.reason, log.author(arguments.author))
    ):
        print(f"rejected {decision.golden}")
    return 0


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
        for one in doomed:
            print(f"would remove {one.id}")
        return 0
    wish = curate.Wish(arguments.reason, log.author(arguments.author))
    for name in curate.prune(arguments.golden_dir, doomed, wish):
        print(f"removed {name}")
    return 0


def _migrate(arguments: argparse.Namespace) -> int:
    from parity.suite.goldens import curate, log

    for decision in curate.migrate(arguments.golden_dir, log.author(arguments.author)):
        print(f"took over {decision.golden}")
    return 0
