"""``parity cache``: what lies in the cache folder, how large and how old is it, and what of it can go?

Everything there can be made again, so removing costs time alone. Only what this project put there is touched: entries
of known kinds whose names carry a hash, and scratch folders of runs that were killed. Links are not followed, entries
that another process is making are left alone, and an entry is renamed before it is removed, so that nobody finds half
of one.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from parity import cache
from parity.commands import documents
from parity.commands.records import Entry
from parity.errors import ParityError, UsageError

KINDS: Final = {
    "recipes": "diffusers models built from recipes",
    "converted": "converted packages",
    "compiled": "models that Core ML compiled, one for each version of the system",
    "assembled": "diffusers models with other VAEs, LoRAs or embeddings, or from single files",
    "coreai": "Core AI files converted for the backend coreai",
    "controlnets": "ControlNets drawn for the compatibility cells",
    "safety": "safety checkers drawn for the compatibility cells",
    "hub": "converted models of the hub, as files",
    "yardsticks": "half precision's outputs and pictures, by digest of weights and inputs",
    "fleet": "records that a fleet's client has not confirmed",
    "hashes": "hashes of large weight files",
}
"""Folders of the cache, by what :func:`parity.cache.folder` is called with, and what they hold."""

LEFTOVER: Final = "leftover"
"""Kind of the scratch folders that killed runs left behind."""

_ENTRY: Final = re.compile(r"(?:[\w.+-]+-)?[0-9a-f]{20}")  # a hash of parity.cache.key, perhaps behind a name
_SCRATCH: Final = re.compile(r"\.[\w.+-]+-[\w]{8}|\.[\w.+-]+\.removed")  # of parity.files.replacing; of remove()
_YOUNG: Final = 24 * 3600.0  # seconds; a scratch folder below this age may belong to a run
_UNITS: Final = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_TIMES: Final = {"h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    shown = actions.add_parser("list", help="list what lies there", description="List what lies in the cache.")
    documents.declare(shown)
    prune = actions.add_parser(
        "prune",
        help="remove what is old or too much",
        description="Remove from the cache; scratch folders that killed runs left a day ago or more always go.",
    )
    prune.add_argument("--older-than", metavar="AGE", help="what was made longer ago than, e.g. 12h, 30d, 8w")
    prune.add_argument("--max-size", metavar="SIZE", help="the oldest, until the rest fits into, e.g. 500MB, 2GiB")
    prune.add_argument("--all", action="store_true", help="everything")
    prune.add_argument("--kind", action="append", metavar="KIND", help=f"only of {', '.join(KINDS)}; repeatable")
    prune.add_argument("--dry-run", action="store_true", help="say what would be removed, remove nothing")
    documents.declare(prune, "what was removed")


def main(arguments: argparse.Namespace) -> int:
    """List or prune; 0, or 1 when something could not be removed."""
    root = cache.root()
    if arguments.action == "list":
        found = entries(root)
        if arguments.json:
            from parity.commands.records import Cached

            documents.write(Cached(tuple(found)))
        else:
            _print(found, f"in {root}")
        return 0
    doomed = select(entries(root), arguments)
    if arguments.dry_run:
        _print_removed(doomed, arguments)
        return 0
    removed, kept = [], []
    for entry in doomed:
        reason = remove(root, entry)
        if reason:
            kept.append(f"{entry.name}: {reason}")
        else:
            removed.append(entry)
    _print_removed(removed, arguments)
    for line in kept:
        sys.stderr.write(f"kept {line}\n")
    return 1 if kept else 0


def entries(root: Path) -> list[Entry]:
    """Return what the project put into a cache folder, the oldest first.

    Raises
    ------
    ParityError
        The folder cannot be read.
    """
    found = []
    try:
        for kind in KINDS:
            folder = root / kind
            if folder.is_symlink() or not folder.is_dir():
                continue
            for path in folder.iterdir():
                if entry := _entry(root, kind, path):
                    found.append(entry)
    except OSError as error:
        raise ParityError(f"{root}: the cache cannot be read: {error.strerror}") from None
    return sorted(found, key=lambda entry: (-entry.seconds, entry.name))


def _entry(root: Path, kind: str, path: Path) -> Entry | None:
    if path.is_symlink() or path.name.endswith(".lock"):
        return None
    age = max(0.0, time.time() - path.stat().st_mtime)
    if path.is_dir() and _SCRATCH.fullmatch(path.name):
        return (
            Entry(LEFTOVER, str(path.relative_to(root)), _size(path), age, "scratch of a run that ended")
            if (age > _YOUNG or path.name.endswith(".removed"))
            else None
        )
    if not _ENTRY.fullmatch(path.name):
        return None
    return Entry(kind, str(path.relative_to(root)), _size(path), age, _what(kind, path))


def _what(kind: str, path: Path) -> str:
    if kind == "recipes":
        return path.name.rpartition("-")[0]
    if kind == "converted":
        names = sorted(item.name for item in path.iterdir() if not item.name.startswith("."))
        shared = "program that packages of several releases share"
        return ", ".join(shared if name == "program.mlpackage" else name for name in names) or "nothing yet"
    return KINDS[kind]


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(item.lstat().st_size for item in path.rglob("*") if item.is_file() and not item.is_symlink())


def select(found: Iterable[Entry], arguments: argparse.Namespace) -> list[Entry]:
    """Return what the options of ``prune`` ask to remove.

    Raises
    ------
    UsageError
        No option says what, or a value is not understood.
    """
    if arguments.older_than is None and arguments.max_size is None and not arguments.all:
        raise UsageError("say what to remove: --older-than AGE, --max-size SIZE or --all; --dry-run shows it first")
    kinds = set(arguments.kind or (*KINDS, LEFTOVER))
    for kind in sorted(kinds - {*KINDS, LEFTOVER}):
        raise UsageError(f"--kind {kind}: not known; there are {', '.join((*KINDS, LEFTOVER))}")
    chosen = [entry for entry in found if entry.kind in kinds]
    doomed = {entry.name for entry in chosen if arguments.all or entry.kind == LEFTOVER}
    if arguments.older_than is not None:
        limit = age(arguments.older_than)
        doomed |= {entry.name for entry in chosen if entry.seconds > limit}
    if arguments.max_size is not None:
        room = size(arguments.max_size)
        for entry in sorted((e for e in chosen if e.name not in doomed), key=lambda e: e.seconds):
            room -= entry.bytes
            if room < 0:
                doomed.add(entry.name)
    return [entry for entry in chosen if entry.name in doomed]


def age(text: str) -> float:
    """Return seconds of an age such as ``12h``, ``30d``, ``8w``; a number alone counts days.

    >>> age("2w") == age("14") == 14 * 24 * 3600
    True
    """
    match = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?)([hdw]?)", text.strip())
    if match is None:
        raise UsageError(f"--older-than {text}: an age such as 12h, 30d or 8w is needed")
    return float(match[1]) * _TIMES[match[2] or "d"]


def size(text: str) -> int:
    """Return bytes of a size such as ``500MB`` or ``2GiB``.

    >>> size("2GiB"), size("500 MB")
    (2147483648, 500000000)
    """
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?)\s*([A-Za-z]*)", text.strip())
    if match is None or match[2].upper() not in _UNITS:
        raise UsageError(f"--max-size {text}: a size such as 500MB or 2GiB is needed")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def remove(root: Path, entry: Entry) -> str:
    """Remove an entry; return why not, or the empty string.

    Parameters
    ----------
    root : pathlib.Path
        The cache folder.
    entry : Entry
        As :func:`entries` gave it.
    """
    path = root / entry.name
    with _unused(path) as free:
        if not free:
            return "another process is making it"
        try:
            if path.is_file():
                path.unlink()
                return ""
            gone = path if path.name.endswith(".removed") else path.with_name(f".{path.name.lstrip('.')}.removed")
            if gone != path:
                path.rename(gone)
            shutil.rmtree(gone)  # does not follow links
        except FileNotFoundError:
            return ""  # another prune was faster
        except OSError as error:
            return error.strerror or str(error)
    return ""


@contextmanager
def _unused(path: Path) -> Iterator[bool]:
    """Hold the entry's lock (:func:`parity.cache.locked`) if nobody else does; the lock file stays, it is empty."""
    lock = path.with_name(f".{path.name}.lock")
    if not lock.is_file():
        yield True
        return
    try:
        import fcntl
    except ImportError:  # pragma: no cover (Windows)
        yield True
        return
    with lock.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


def _print_removed(found: list[Entry], arguments: argparse.Namespace) -> None:
    if arguments.json:
        from parity.commands.records import Pruned

        documents.write(Pruned(not arguments.dry_run, tuple(found)))
        return
    _print(found, "would be removed; nothing was, because of --dry-run" if arguments.dry_run else "removed")


def _print(found: list[Entry], ending: str) -> None:
    for entry in found:
        sys.stdout.write(f"{entry.bytes / 1e6:9.1f} MB  {_days(entry.seconds):>6}  {entry.name}  {entry.what}\n")
    total = sum(entry.bytes for entry in found)
    noun = "entry" if len(found) == 1 else "entries"
    sys.stdout.write(f"{total / 1e6:9.1f} MB  {len(found)} {noun} {ending}\n")


def _days(seconds: float) -> str:
    return f"{seconds / 86400:.0f} d" if seconds >= 86400 else f"{seconds / 3600:.1f} h"
