"""What does a ledger hold, and how is a line added so that no kill can take a finished one away?

A line is written by one ``write`` to a file opened for appending, then synchronised with the disk. A process that dies
meanwhile leaves at most one incomplete line, which readers name, skip and count. What is finished before is never
touched again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from parity.errors import FormatError, MissingError, UnsupportedError
from parity.files import refuse_pointer
from parity.runs.schema import SCHEMA, Line, Session

NAME = "ledger.jsonl"


@dataclass(frozen=True)
class Entry:
    """A finished cell.

    Attributes
    ----------
    sequence : int
        Its place in the ledger, from 1.
    session : Session
        The session that asked it.
    finished : str
        Wall clock, UTC, ISO 8601.
    digest : str
        What decided it beside the run's question, see :class:`parity.runs.schema.Planned`.
    record : dict
        As written, with fields that this release does not know; pictures by digest.
    """

    sequence: int
    session: Session
    finished: str
    digest: str
    record: dict[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        """Machine and id: what a merged run holds once."""
        return self.session.machine, str(self.record["id"])


@dataclass(frozen=True)
class Ledger:
    """Everything that a run's folder says.

    Attributes
    ----------
    folder : path
    sessions : tuple of Session
        In the order in which they began; more than one after a resumption or a merge.
    entries : tuple of Entry
        By sequence number; of a cell that was asked again, all answers.
    skipped : tuple of str
        Lines that cannot be read, one sentence each.
    """

    folder: Path
    sessions: tuple[Session, ...]
    entries: tuple[Entry, ...]
    skipped: tuple[str, ...] = ()

    def latest(self) -> dict[tuple[str, str], Entry]:
        """Return the last answer of each cell on each machine."""
        return {entry.key: entry for entry in self.entries}


def read(folder: Path) -> Ledger:
    """Read a run's folder.

    Raises
    ------
    MissingError
        No such folder, or no ledger in it.
    UnsupportedError
        The ledger is of a newer schema.
    FormatError
        No line of it says what was run.
    """
    ledger = scan(folder)
    if not ledger.sessions:
        raise FormatError(f"{folder / NAME}: no line of it says what was run{_why(ledger.skipped)}")
    return ledger


def scan(folder: Path) -> Ledger:
    """As :func:`read`; a ledger whose first line is not complete is an empty one."""
    path = folder / NAME
    if not path.is_file():
        wanted = "a folder that 'parity run --run-dir' wrote is needed"
        raise MissingError(f"{folder}: no {NAME} in it; {wanted}" if folder.exists() else f"{folder}: no such folder")
    sessions: dict[int, Session] = {}
    entries: list[Entry] = []
    skipped: list[str] = []
    refuse_pointer(path)
    content = path.read_bytes()
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            raw = json.loads(line)
            _refuse_newer(path, raw)
            parsed = msgspec.convert(raw, Line)
        except (ValueError, msgspec.ValidationError, RecursionError) as error:
            half = number == content.count(b"\n") + 1
            skipped.append(f"{path}: line {number} is {'half-written' if half else f'not readable ({error})'}, skipped")
            continue
        if isinstance(parsed, Session):
            sessions[parsed.session] = parsed
        elif parsed.session in sessions:
            values = (parsed.finished, parsed.digest, raw["record"])
            entries.append(Entry(parsed.sequence, sessions[parsed.session], *values))
        else:
            skipped.append(f"{path}: line {number} belongs to session {parsed.session}, which is not there, skipped")
    entries.sort(key=lambda entry: entry.sequence)
    return Ledger(folder, tuple(sessions.values()), tuple(entries), tuple(skipped))


def _refuse_newer(path: Path, raw: object) -> None:
    found = raw.get("schema") if isinstance(raw, dict) else None
    if isinstance(found, int) and found > SCHEMA:
        written = f"parity {raw.get('parity', '?')}" if isinstance(raw, dict) else "a newer parity"
        raise UnsupportedError(
            f"{path}: schema {found}, written by {written}; this release reads schemas up to {SCHEMA}: update parity"
        )


def _why(skipped: Sequence[str]) -> str:
    return f": {skipped[0]}" if skipped else " (it is empty)"


def encode(line: Line | Mapping[str, Any]) -> bytes:
    """Return a line's bytes, checked against the schema, with its end.

    Raises
    ------
    msgspec.ValidationError, ValueError
        It is not what the schema says: a defect of who made it.
    """
    raw = msgspec.to_builtins(line) if isinstance(line, msgspec.Struct) else line
    text = json.dumps(raw, separators=(",", ":"), allow_nan=False)  # ASCII: names of files may be no Unicode
    msgspec.convert(json.loads(text), Line)
    return text.encode("ascii") + b"\n"


class Appender:
    """Adds lines to a ledger; makes it if needed.

    Raises
    ------
    OSError
        The file cannot be opened for writing.
    """

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / NAME, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":  # an incomplete line stays one of its own
            os.write(self._file, b"\n")

    def add(self, *lines: bytes) -> None:
        """Write lines and wait until they are on the disk.

        Raises
        ------
        OSError
            They could not be written; nothing of them is left.
        """
        before = os.fstat(self._file).st_size
        content = b"".join(lines)
        try:
            written = os.write(self._file, content)
            while written < len(content):  # the rest fails with the reason: full, or a limit
                written += os.write(self._file, content[written:])
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, before)
            raise

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def __enter__(self) -> Appender:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def lines(ledger: Ledger) -> Iterator[bytes]:
    """Give the lines of a ledger anew, sessions first."""
    for session in ledger.sessions:
        yield encode(session)
    for entry in ledger.entries:
        yield encode(cell(entry))


def cell(entry: Entry) -> dict[str, Any]:
    """Return an entry as a line's data."""
    return {
        "line": "cell",
        "sequence": entry.sequence,
        "session": entry.session.session,
        "finished": entry.finished,
        "digest": entry.digest,
        "record": entry.record,
    }
