"""Who accepted or rejected which golden, when and why?

``approvals.jsonl`` is a log: a line of JSON for each decision, only ever appended to, by one write. What holds is what
the last line about a golden says; all earlier ones stay, so accepting never overwrites history. A line binds its
decision to digests of the pixels and of the tensors: a golden that was changed afterwards is not the accepted one.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from parity.errors import FormatError, ParityError, UsageError
from parity.files import refuse_pointer
from parity.suite.goldens import keys
from parity.suite.goldens.keys import Keys

NAME: Final = "approvals.jsonl"
SCHEMA: Final = 1
ACTIONS: Final = ("approve", "reject", "prune")
AUTHOR: Final = "PARITY_AUTHOR"
_ID = re.compile(r"(?:(?!\.)[^/\\\0]{1,200}/){2}[0-9a-f]{12}")  # no part begins with a dot
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LONGEST = 1 << 16  # bytes of a line
_PATIENCE = 10  # seconds


@dataclass(frozen=True)
class Decision:
    """One line of the log.

    Attributes
    ----------
    action : str
        ``approve``, ``reject`` or ``prune`` (its files were removed; the decisions about it stay).
    golden : str
        ``MODEL/CASE-RNG-SEED/ID``, where it lies in the folder of goldens.
    picture, tensors : str
        SHA-256 of the decoded pixels and of the trace's tensors.
    author, time, reason : str
        Who decided, when (UTC, ISO 8601), why.
    keys : Keys
        Patterns of the places for which it is accepted.
    anchor : str
        The golden from which drift is counted: the first one that was approved in its line, itself at first.
    """

    action: str
    golden: str
    picture: str
    tensors: str
    author: str
    time: str
    reason: str
    keys: Keys
    anchor: str

    def __str__(self) -> str:
        return f"{self.time} {self.action} by {self.author}: {self.reason}"


def read(directory: Path) -> list[Decision]:
    """Return all decisions about a folder of goldens, in their order; none where there is no log.

    Raises
    ------
    FormatError
        A line is damaged, or of a newer release; the message names file, line and field. An incomplete last line too:
        it may be a decision.
    """
    path = directory / NAME
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from None
    refuse_pointer(path)
    return list(_decisions(path, content))


def _decisions(path: Path, content: bytes) -> Iterator[Decision]:
    for number, line in enumerate(content.splitlines(), start=1):
        where = f"{path}: line {number}"
        if not line.strip():
            continue
        if len(line) > _LONGEST:
            raise FormatError(f"{where}: longer than {_LONGEST} bytes, which no decision is")
        try:
            yield _decision(json.loads(line))
        except RecursionError:
            raise FormatError(f"{where}: nested too deeply to be a decision") from None
        except ValueError as error:
            raise FormatError(
                f"{where}: not a decision: {error}; take the file from the history of your repository"
            ) from None


def _decision(record: object) -> Decision:
    if not isinstance(record, dict):
        raise ValueError(f"an object is needed, not {record!r:.60}")
    if record.get("schema") != SCHEMA:
        raise ValueError(f"schema is {record.get('schema')!r:.60}, and this release reads {SCHEMA}")
    texts = {name: _text(record, name) for name in Decision.__dataclass_fields__ if name != "keys"}
    if texts["action"] not in ACTIONS:
        raise ValueError(f"action must be one of {', '.join(ACTIONS)}, not {texts['action']!r:.60}")
    for name in ("golden", "anchor"):
        if not _ID.fullmatch(texts[name]):
            raise ValueError(f"{name} must be MODEL/CASE/ID, not {texts[name]!r:.60}")
    for name in ("picture", "tensors"):
        if not _DIGEST.fullmatch(texts[name]):
            raise ValueError(f"{name} must be a SHA-256, not {texts[name]!r:.60}")
    places = record.get("keys")
    if not isinstance(places, dict):
        raise ValueError(f"keys must be an object, not {places!r:.60}")
    return Decision(**texts, keys=keys.read(places))


def _text(record: dict[str, Any], name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} must be a text, not {value!r:.60}")
    return value


def append(directory: Path, decisions: Sequence[Decision]) -> None:
    """Add decisions at the end of the log, all by one write that is on the disk when this returns.

    Raises
    ------
    FormatError
        The log that is there cannot be read: nothing is added to a damaged one.
    ParityError
        It cannot be written.
    """
    read(directory)
    path = directory / NAME
    lines = "".join(json.dumps({"schema": SCHEMA, **asdict(one)}, ensure_ascii=False) + "\n" for one in decisions)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(handle).st_size
            torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"  # an editor left the last line without its end
            data = (("\n" if torn else "") + lines).encode()
            if os.write(handle, data) != len(data):
                raise ParityError(f"{path}: the disk is full; its last line is incomplete, remove that one")
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise ParityError(f"{path}: cannot be written: {error.strerror}") from None


def now() -> str:
    """Return the time as the log writes it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


def author(given: str | None = None) -> str:
    """Return who decides: the one given, ``PARITY_AUTHOR``, git's user, or the login's name.

    Raises
    ------
    UsageError
        In a job of continuous integration (``CI`` is set) nobody was named: what a machine accepts by itself is no
        golden.
    """
    named = (given or os.environ.get(AUTHOR, "")).strip()
    if named:
        return named
    if os.environ.get("CI"):
        raise UsageError(f"who accepts? CI is set, so a person must be named: --author NAME, or {AUTHOR} for a run")
    name, mail = _git("user.name"), _git("user.email")
    if name:
        return f"{name} <{mail}>" if mail else name
    return getpass.getuser()


def _git(key: str) -> str:
    try:
        done = subprocess.run(("git", "config", key), capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
