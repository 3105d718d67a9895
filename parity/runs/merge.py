"""How do the runs of several machines and workers become one?

Answers are joined only if they answer one question: equal digests, one version of the project, and the same settings
for each cell. What differs is refused with the names of both folders. A machine's answer is kept once; where two
folders answer one cell for the same machine, the worse verdict is kept and the other is counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import msgspec

from parity.errors import UsageError
from parity.files import replacing
from parity.runs import ledger, pictures
from parity.runs.ledger import Appender, Entry, Ledger
from parity.runs.schema import Session

_RANK = {"fail": 0, "unknown": 1, "pass": 2}
_NAMED = 5  # differences that a message lists


@dataclass(frozen=True)
class Merged:
    """What became of the folders.

    Attributes
    ----------
    ledger : Ledger
        The joined one.
    twice : int
        Answers that were left out, since another folder answers the same cell for the same machine.
    """

    ledger: Ledger
    twice: int


def merge(folders: Sequence[Path], target: Path) -> Merged:
    """Join runs in a new folder.

    Parameters
    ----------
    folders : sequence of path
        Two or more; their order is kept.
    target : path
        Folder that does not exist yet.

    Raises
    ------
    UsageError
        The runs ask different questions, or by different versions of the project; the target exists.
    MissingError, FormatError, UnsupportedError
        A folder without a ledger, a damaged one, or one of a newer schema.
    """
    if target.exists():
        raise UsageError(f"-o {target}: it exists; name a new folder")
    read = [ledger.read(folder) for folder in folders]
    for first, second in combinations(read, 2):
        if found := _differences(first, second):
            more = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
            raise UsageError(
                f"{first.folder} and {second.folder} cannot be merged: {'; '.join(found[:_NAMED])}{more}. Merge runs "
                "of one question, or compare them with 'parity history'"
            )
    joined, twice = _joined(read, target)
    try:
        with replacing(target) as folder:
            folder.mkdir()
            for source in read:
                pictures.copy(source.folder, folder)
            with Appender(folder) as appender:
                appender.add(*ledger.lines(joined))
    except OSError as error:
        raise UsageError(f"-o {target}: cannot be written: {error.strerror}") from None
    return Merged(joined, twice)


def _differences(first: Ledger, second: Ledger) -> list[str]:
    """Say what keeps two runs from being one."""
    ours, theirs = first.sessions[-1], second.sessions[-1]
    pairs = {"parity": (ours.parity, theirs.parity)}
    names = dict.fromkeys([*ours.question, *theirs.question])
    pairs |= {name: (ours.question.get(name, "none"), theirs.question.get(name, "none")) for name in names}
    found = [
        f"{name} {one} in {first.folder}, {other} in {second.folder}"
        for name, (one, other) in pairs.items()
        if one != other and one and other
    ]
    cells = {cell.id: cell for session in first.sessions for cell in session.planned}
    for session in second.sessions:
        for cell in session.planned:
            mine = cells.get(cell.id)
            if mine is not None and mine.digest != cell.digest:
                found.append(f"{cell.id} has other settings or pictures: {mine.settings} and {cell.settings}")
    return list(dict.fromkeys(found))


def _joined(read: Sequence[Ledger], target: Path) -> tuple[Ledger, int]:
    sessions: list[Session] = []
    kept: dict[tuple[str, str], Entry] = {}
    twice = 0
    for source in read:
        renumbered = {}
        for session in source.sessions:
            sessions.append(msgspec.structs.replace(session, session=len(sessions) + 1))
            renumbered[session.session] = sessions[-1]
        for key, entry in source.latest().items():
            other = kept.get(key)
            twice += other is not None
            if other is None or _rank(entry) < _rank(other):
                kept[key] = dataclasses.replace(entry, session=renumbered[entry.session.session])
    entries = tuple(dataclasses.replace(entry, sequence=number) for number, entry in enumerate(kept.values(), 1))
    return Ledger(target, tuple(sessions), entries, tuple(line for source in read for line in source.skipped)), twice


def _rank(entry: Entry) -> int:
    return _RANK[entry.record["verdict"]]
