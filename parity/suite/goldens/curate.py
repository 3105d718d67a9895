"""How does a person accept, refuse or clear away goldens?

Whoever accepts says why, and the log keeps it. Accepting is bounded: the picture is compared with the *anchor*, the
golden that was accepted first in its line, and not with the last one, so that many small steps cannot lead far away. A
picture beyond the bound ``golden/drift`` begins a line of its own when the person says so.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from parity.errors import FormatError, ParityError, UsageError
from parity.suite import comparison, provenance, tolerance
from parity.suite.comparison import Check
from parity.suite.goldens import keys, log, store
from parity.suite.goldens.log import Decision
from parity.suite.goldens.store import Golden
from parity.suite.tolerance import Tolerance
from parity.suite.verdict import Verdict
from parity.tables import nearest

DRIFT = "golden/drift"
_MIGRATED = "accepted before there was a log; taken over as it lay there"


@dataclass(frozen=True)
class Wish:
    """What a person says while accepting.

    Attributes
    ----------
    reason : str
        Why; never empty.
    author : str
        Who.
    places : tuple of str
        ``KEY=PATTERN``: for which backends, systems, chips; without it see :func:`parity.suite.goldens.keys.default`.
    new_anchor : bool
        Whether a picture beyond the drift bound begins a line of its own.
    """

    reason: str
    author: str
    places: tuple[str, ...] = ()
    new_anchor: bool = False

    def __post_init__(self) -> None:
        if not self.reason.strip():
            raise UsageError("--reason is needed: say in a sentence why")


def choose(directory: Path, words: Sequence[str]) -> list[Golden]:
    """Return the goldens that words name: an id, its beginning, or a pattern such as ``my-sd/*``.

    Raises
    ------
    UsageError
        A word names none; the nearest ids are suggested.
    """
    there = store.everything(directory)
    found: dict[str, Golden] = {}
    for word in words:
        named = [one for one in there if one.id.startswith(word) or fnmatchcase(one.id, word)]
        if not named:
            hint = nearest(word, [*(one.id for one in there), *(one.series for one in there)], most=3)
            raise UsageError(f"{word}: no golden in {directory} has an id like that{hint}; see parity golden list")
        found |= {one.id: one for one in named}
    return list(found.values())


def drift(anchor: Golden, other: Golden, table: Sequence[Tolerance]) -> tuple[Check, ...]:
    """Compare a golden's picture with its anchor's by the bounds of ``golden/drift``.

    Raises
    ------
    MissingError, FormatError
        One of the two is damaged.
    """
    pairs = {DRIFT: (anchor.open()["image"], other.open()["image"])}
    bounds = tolerance.find_all(table, DRIFT, precision="*", numerics=other.keys.backend)
    return comparison.judge(DRIFT, pairs, bounds, names=(f"anchor {anchor.id}", other.id))


def approve(directory: Path, goldens: Sequence[Golden], wish: Wish, table: Sequence[Tolerance]) -> list[Decision]:
    """Accept goldens: all of them, or none where one cannot be.

    Parameters
    ----------
    directory : path
        Folder of goldens.
    goldens : sequence of Golden
        As :func:`choose` gives them.
    wish : Wish
        Why, who, for which places.
    table : sequence of Tolerance
        With the bounds of ``golden/drift``.

    Returns
    -------
    list of Decision
        What was added to the log.

    Raises
    ------
    UsageError
        A picture lies beyond the drift bound; the message says how far.
    MissingError, FormatError
        A golden, or the anchor of its line, is damaged.
    """
    decided: list[Decision] = []
    for golden in goldens:
        trace = golden.open()
        anchor = _anchor(directory, golden, wish, table, decided)
        places = golden.approval.keys if golden.approval else keys.default(golden.keys)
        decided.append(
            Decision(
                action="approve",
                golden=golden.id,
                picture=provenance.picture_digest(trace["image"]),
                tensors=store.tensors(trace),
                author=wish.author,
                time=log.now(),
                reason=wish.reason,
                keys=keys.changed(places, wish.places),
                anchor=anchor,
            )
        )
    log.append(directory, decided)
    return decided


def _anchor(
    directory: Path, golden: Golden, wish: Wish, table: Sequence[Tolerance], decided: Sequence[Decision]
) -> str:
    """Return the anchor of the line that a golden belongs to; itself, if it begins one."""
    if golden.approval:
        return golden.approval.anchor
    there = {one.id: one for one in store.in_series(directory, golden.series)}
    approvals = [one.approval for one in there.values() if one.approval and _same_question(one, golden)]
    approvals += [one for one in decided if one.golden.startswith(f"{golden.series}/")]
    anchors = dict.fromkeys(one.anchor for one in approvals if one.keys.takes(golden.keys))
    if not anchors or wish.new_anchor:
        return golden.id
    if gone := [name for name in anchors if name not in there]:
        raise FormatError(f"golden {directory / gone[0]}: drift is counted from it, and it is not there; restore it")
    judged = {name: drift(there[name], golden, table) for name in anchors}
    near = max(judged, key=lambda name: closeness(judged[name]))
    if any(check.verdict is not Verdict.PASS for check in judged[near]):
        raise UsageError(
            f"{golden.id} is too far from its anchor, the picture that was accepted first:\n"
            f"{comparison.messages(judged[near])}\n"
            "  compare them: parity golden diff; if it is right all the same, begin a line of its own with --new-anchor"
        )
    return near


def _same_question(one: Golden, other: Golden) -> bool:
    return all(one.record[name] == other.record[name] for name in ("weights", "case"))


def closeness(checks: Sequence[Check]) -> tuple[bool, float]:
    """Return what orders comparisons from bad to good: whether all of it holds, then the picture's margin."""
    holds = all(check.verdict is Verdict.PASS for check in checks)
    margins = [check.margin for check in checks if check.metric == "image_psnr" and not math.isnan(check.margin)]
    return holds, min(margins, default=-math.inf)


def reject(directory: Path, goldens: Sequence[Golden | Decision], wish: Wish) -> list[Decision]:
    """Refuse goldens: new ones, or take an acceptance back; of a lost one its approval is given.

    A run that draws a rejected picture again fails with the reason. The files stay until :func:`prune`.
    """
    decided = []
    for golden in goldens:
        last = golden if isinstance(golden, Decision) else golden.decisions[-1] if golden.decisions else None
        if last is None:
            assert isinstance(golden, Golden)  # a decision is its own last one
            trace = golden.open()
            picture, digest = provenance.picture_digest(trace["image"]), store.tensors(trace)
            last = Decision(
                "reject", golden.id, picture, digest, "", "", "", keys.default(golden.keys), anchor=golden.id
            )
        decided.append(replace(last, action="reject", author=wish.author, time=log.now(), reason=wish.reason))
    log.append(directory, decided)
    return decided


def prunable(directory: Path, goldens: Sequence[Golden]) -> tuple[list[Golden], list[str]]:
    """Return which of some goldens can go, and why the others stay: drift of accepted ones is counted from them."""
    gone = {golden.id for golden in goldens}
    used = {one.approval.anchor: one.id for one in store.everything(directory) if one.approval and one.id not in gone}
    kept = [f"{one.id}: it is the anchor of {used[one.id]}" for one in goldens if one.id in used]
    return [one for one in goldens if one.id not in used], kept


def prune(directory: Path, goldens: Sequence[Golden], wish: Wish) -> list[str]:
    """Remove the files of goldens; decisions about them stay in the log. Returns the ids.

    What was never decided about leaves no line: nobody accepted it.

    Raises
    ------
    ParityError
        A folder cannot be removed; those before it are gone, and the log says so.
    """
    for golden in goldens:
        if golden.decisions:
            last = golden.decisions[-1]
            line = replace(last, action="prune", author=wish.author, time=log.now(), reason=wish.reason)
            log.append(directory, [line])
        try:
            if golden.folder.is_symlink():
                golden.folder.unlink()
            else:
                shutil.rmtree(golden.folder)
        except OSError as error:
            raise ParityError(f"{golden.folder}: cannot be removed: {error.strerror}") from None
        for parent in (golden.folder.parent, golden.folder.parent.parent):
            if not any(parent.iterdir()):
                parent.rmdir()
    return [golden.id for golden in goldens]


def migrate(directory: Path, author: str) -> list[Decision]:
    """Take over goldens that lie as older releases laid them down, one in the folder of a case; no file is rewritten.

    Each is moved to its ID and enters the log as accepted, for every machine, as it was.

    Parameters
    ----------
    directory : path
        Folder of goldens.
    author : str
        Who accepted them.

    Raises
    ------
    MissingError, FormatError
        No such folder; a golden is damaged. What is taken over until then stays so.
    """
    decided: list[Decision] = []
    for file in sorted(directory.glob("*/*/provenance.json")):
        folder = file.parent
        series = folder.relative_to(directory).as_posix()
        golden = store.read(folder, f"{series}/{'0' * 12}")
        trace = golden.open()
        digest = store.tensors(trace)
        name = f"{series}/{store.identity({**golden.record, 'tensors': digest})}"
        target = directory / name
        target.mkdir()
        for path in ("trace.npz", "image.png", "provenance.json"):  # the last one: until then it lies there as before
            (folder / path).rename(target / path)
        picture = str(golden.record["image_sha256"])
        places = keys.default(golden.keys)
        line = Decision("approve", name, picture, digest, author, log.now(), _MIGRATED, places, anchor=name)
        log.append(directory, [line])
        decided.append(line)
    return decided
