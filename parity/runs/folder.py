"""How does a run write its folder, and when does it go on with what lies there?

``open_run`` takes the folder for this process, finds out before anything is computed whether it can be written, and
refuses to go on with the answers to another question. Each finished cell is on the disk before the next one begins.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from parity import __version__
from parity.errors import MissingError, UsageError
from parity.runs import ledger, machine, pictures
from parity.runs.ledger import Appender, Entry, Ledger
from parity.runs.schema import SCHEMA, Planned, Provenance, Session

_LOCK: Final = "lock"
_ROOM: Final = 2 << 20  # bytes that a cell may take: two pictures of 512 x 512 pixels are at most 1.5 MiB
_NAMED: Final = 5  # differences that a message lists


@dataclass(frozen=True)
class Plan:
    """What a run is going to ask.

    Attributes
    ----------
    question : mapping of str to str
        What decides all cells, by name: digests of weights, packages and tolerances, options. An empty value is one
        that is not known yet, and differs from nothing.
    cells : sequence of mapping
        The fields of :class:`parity.runs.schema.Planned`, in the order of the run.
    machine : str
        Name of this machine in trends; its chip by default.
    """

    question: Mapping[str, str]
    cells: Sequence[Mapping[str, Any]]
    machine: str = ""


@dataclass
class RunFolder:
    """A run's folder, held by this process for writing.

    Attributes
    ----------
    path : path
    session : Session
        This one.
    held : dict
        Records by id that the ledger held already, pictures as base64: they need not be asked again.
    skipped : tuple of str
        Lines of the ledger that cannot be read.
    """

    path: Path
    session: Session
    held: dict[str, dict[str, Any]]
    skipped: tuple[str, ...]
    _appender: Appender = field(repr=False)
    _sequence: int = field(repr=False)
    _digests: dict[str, str] = field(repr=False)

    def add(self, record: Mapping[str, Any]) -> None:
        """Write one finished cell; when this returns, no kill can take it away. What was not asked is not written.

        Parameters
        ----------
        record : mapping
            From :meth:`parity.suite.outcome.Outcome.record`.

        Raises
        ------
        UsageError
            The disk is full, or the folder can no longer be written; what is finished before is kept.
        """
        if not record["asked"]:
            return
        try:
            stored = pictures.store(self.path, record["pictures"])
            line = {
                "line": "cell",
                "sequence": self._sequence + 1,
                "session": self.session.session,
                "finished": _now(),
                "digest": self._digests[record["id"]],
                "record": {**record, "pictures": stored},
            }
            self._appender.add(ledger.encode(line))
        except OSError as error:
            kept = f"{self._sequence} finished cells are kept in it; make room and go on with --resume"
            raise UsageError(f"--run-dir {self.path}: cannot be written: {error.strerror}; {kept}") from None
        self._sequence += 1


@contextlib.contextmanager
def open_run(path: Path, plan: Plan, *, resume: bool = False) -> Iterator[RunFolder]:
    """Take a folder for a run.

    Parameters
    ----------
    path : path
        Made if needed.
    plan : Plan
        What is asked.
    resume : bool
        Whether to go on with a run that lies there; without one a new run begins.

    Raises
    ------
    UsageError
        It holds a run and ``resume`` is False, or answers to another question; another process writes it; it cannot be
        written, or its disk has too little room.
    """
    _writable(path)
    with _locked(path):
        there = _there(path)
        if there is not None and there.sessions and not resume:
            raise UsageError(
                f"--run-dir {path}: it holds a run of {len(there.latest())} finished cells; go on with it by --resume, "
                "or name another folder"
            )
        yield from _begun(path, plan, there or Ledger(path, (), ()))


def _begun(path: Path, plan: Plan, there: Ledger) -> Iterator[RunFolder]:
    session = _session(plan, there)
    held = _held(path, session, there)
    _room(path, len(session.planned) - len(held))
    try:
        appender = Appender(path)
    except OSError as error:
        raise UsageError(f"--run-dir {path}: {ledger.NAME} cannot be written: {error.strerror}") from None
    with appender:
        try:
            appender.add(ledger.encode(session))
        except OSError as error:
            raise UsageError(f"--run-dir {path}: cannot be written: {error.strerror}; make room") from None
        last = there.entries[-1].sequence if there.entries else 0
        digests = {cell.id: cell.digest for cell in session.planned}
        yield RunFolder(path, session, held, there.skipped, appender, last, digests)


def _there(path: Path) -> Ledger | None:
    try:
        return ledger.scan(path)
    except MissingError:
        return None


def _session(plan: Plan, there: Ledger) -> Session:
    here = machine.provenance()
    return Session(
        schema=SCHEMA,
        run=there.sessions[0].run if there.sessions else uuid.uuid4().hex,
        session=len(there.sessions) + 1,
        parity=__version__,
        started=_now(),
        machine=plan.machine or here.chip,
        provenance=here,
        question=dict(plan.question),
        planned=msgspec.convert(list(plan.cells), list[Planned]),
    )


def _held(path: Path, session: Session, there: Ledger) -> dict[str, dict[str, Any]]:
    """Return the records that answer this session's question; of an answer to another one say what differs."""
    found = [text for old in there.sessions for text in differences(old, session)]
    latest = {key[1]: entry for key, entry in there.latest().items() if key[0] == session.machine}
    held = {}
    for cell in session.planned:
        entry = latest.get(cell.id)
        if entry is None or entry.record["bad_input"]:  # a file was at fault, and may have been put right
            continue
        if entry.digest != cell.digest:
            found.append(_cell_difference(entry, cell))
        held[cell.id] = filled(path, entry)
    if found:
        listed = list(dict.fromkeys(found))
        more = f"; and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
        raise UsageError(
            f"--resume: {path} answers another question: {'; '.join(listed[:_NAMED])}{more}. Begin a new folder, or "
            "restore what it was asked with"
        )
    return held


def differences(old: Session, new: Session) -> list[str]:
    """Say what differs between two sessions: question, versions, machine; what is unknown on one side does not."""
    pairs = {name: (old.question.get(name, "none"), value) for name, value in new.question.items()}
    pairs |= {name: (value, "none") for name, value in old.question.items() if name not in new.question}
    pairs |= {name: (_versions(old)[name], _versions(new)[name]) for name in sorted(_versions(old).keys())}
    pairs["machine"] = (old.machine, new.machine)
    return [f"{name} {was} there, {now} here" for name, (was, now) in pairs.items() if was != now and was and now]


def _versions(session: Session) -> dict[str, str]:
    here: Provenance = session.provenance
    versions = {name: here.packages.get(name, "none") for name in machine.PACKAGES}
    return {"parity": session.parity, "python": here.python, "system": f"{here.system} {here.build}", **versions}


def _cell_difference(entry: Entry, cell: Planned) -> str:
    old, new = entry.record["settings"], cell.settings
    names = sorted(name for name in {**old, **new} if old.get(name) != new.get(name))
    told = [f"{name} {old.get(name, 'none')} there, {new.get(name, 'none')} here" for name in names]
    return f"{cell.id}: {', '.join(told) or 'a picture of another content, or other numerics'}"


def filled(path: Path, entry: Entry) -> dict[str, Any]:
    """Return an entry's record with pictures as base64; one that is not there is left out, and a remark says so.

    Raises
    ------
    FormatError
        A picture is damaged.
    """
    found = {role: pictures.read(path, digest) for role, digest in entry.record["pictures"].items()}
    lost = tuple(f"its picture ({role}) is no longer in the run's folder" for role, text in found.items() if not text)
    there = {role: text for role, text in found.items() if text}
    return {**entry.record, "pictures": there, "remarks": [*entry.record["remarks"], *lost]}


def _writable(path: Path) -> None:
    try:
        pictures.folder(path).mkdir(parents=True, exist_ok=True)
        trial = pictures.folder(path) / f".trial-{uuid.uuid4().hex}"
        trial.touch()  # permissions alone do not know read-only file systems
        trial.unlink()
    except OSError as error:
        raise UsageError(f"--run-dir {path}: cannot be written: {error.strerror}; name another folder") from None


def _room(path: Path, cells: int) -> None:
    free, wanted = shutil.disk_usage(path).free, (cells + 1) * _ROOM
    if free < wanted:
        raise UsageError(
            f"--run-dir {path}: {free >> 20} MiB are free on its disk, {cells} cells may take {wanted >> 20} MiB; make "
            "room or name another folder"
        )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the folder; the system lets it go when this process ends, however it ends."""
    with (path / _LOCK).open("a+", encoding="utf-8") as stream:
        try:
            import fcntl
        except ImportError:  # pragma: no cover (Windows)
            yield
            return
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            who = stream.read().strip() or "?"
            raise UsageError(
                f"--run-dir {path}: process {who} writes it now; wait for its end or name another folder"
            ) from None
        except OSError:  # a file system without locks
            yield
            return
        stream.truncate(0)
        stream.write(f"{os.getpid()}\n")
        stream.flush()
        yield


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
