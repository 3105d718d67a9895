"""How are files written, copied and digested, and which "files" are not there at all?

A failed run leaves nothing half-written (:func:`replacing`), a copy costs no disk space where links can be made
(:func:`link_or_copy`), and no file is read into memory for its digest (:func:`sha256`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from parity.errors import FormatError, UsageError

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

_BLOCK: Final = 1 << 22  # bytes read at a time
_POINTER = b"version https://git-lfs.github.com/spec/"
_POINTER_LIMIT = 1024  # bytes; the specification of git-lfs says that a pointer has fewer


def pointer(path: Path) -> str:
    """Say that a file is a git-lfs pointer, i.e. text in the place of a file that was not downloaded.

    Parameters
    ----------
    path : pathlib.Path
        Any file; one that cannot be read is no pointer.

    Returns
    -------
    str
        The message, without the path; empty when it is an ordinary file.
    """
    try:
        if path.stat().st_size > _POINTER_LIMIT:
            return ""
        content = path.read_bytes()
    except OSError:
        return ""
    if not content.startswith(_POINTER):
        return ""
    size = re.search(rb"^size (\d+)", content, re.M)
    missing = f" of {int(size[1]):,} bytes" if size else ""
    return f"it is a git-lfs pointer, not the file{missing}; run `git lfs pull`"


def refuse_pointer(path: Path) -> None:
    """Raise FormatError when ``path`` is a git-lfs pointer."""
    if text := pointer(path):
        raise FormatError(f"{path}: {text}")


def resolved(path: Path) -> Path:
    """Return where a path leads, links followed; a part that does not exist is kept as it is written.

    Raises
    ------
    FormatError
        Its links form a circle, or no file system has such a name (too long, or with NUL in it).
    """
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: circles, before Python 3.13
        reason = error.strerror if isinstance(error, OSError) else error
        raise FormatError(f"{path}: not a usable path: {reason}") from None


def require_writable(folder: Path, option: str) -> None:
    """Try to write in a folder, before hours are spent on what belongs there; leave everything as it was.

    Parameters
    ----------
    folder : pathlib.Path
        Need not exist; that it can be made is tried as well.
    option : str
        The option that named it, for the message.

    Raises
    ------
    UsageError
        It cannot be made or written.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"{option} {folder}: cannot be written: {error.strerror}; name another folder") from None
    finally:
        with contextlib.suppress(OSError):  # what another process needs by now stays
            for path in made:
                path.rmdir()


@contextmanager
def unless_empty(folder: Path) -> Iterator[None]:
    """Remove a folder again that was made meanwhile, with those above it, where nothing came to lie in it."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # it holds something, or was never made
            for path in made:
                path.rmdir()


@contextmanager
def replacing(target: Path | str) -> Iterator[Path]:
    """Give a temporary path beside ``target``; on success it takes the target's name, on failure it vanishes.

    Parameters
    ----------
    target : path
        File or folder to be written. Its parent is created. An existing target is replaced only at the very end.

    Yields
    ------
    pathlib.Path
        Path that does not exist yet, in the same folder, with the same suffix; write a file or create a folder there.

    Raises
    ------
    OSError
        The folder cannot be made, nothing can be written in it, the disk is full, or the target is a folder and what
        was written is a file; it names the target.
    """
    target = Path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.stem[:80]}-", dir=target.parent))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from None  # nobody named the temporary file
    try:
        path = scratch / target.name
        yield path
        _open_up(path)
        if path.is_dir() and target.exists():  # a folder cannot be renamed over another one
            target.replace(scratch / "replaced")
        path.replace(target)
    except OSError as error:
        inside = error.filename is None or str(error.filename).startswith(str(scratch))
        if error.errno is None or not inside:  # a library's own, or about another file
            raise
        raise OSError(error.errno, error.strerror, str(target)) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _open_up(path: Path) -> None:
    """Give what was written the permissions that ordinary files get; some libraries write by private temporary files.

    A file with a second name is left as it is: the other one is somebody else's.
    """
    os.umask(mask := os.umask(0o022))  # there is no other way to read it
    for each in [path, *(path.rglob("*") if path.is_dir() else ())]:
        if each.is_symlink():
            continue
        found = each.stat()
        wanted = (0o777 if each.is_dir() else 0o666) & ~mask
        if found.st_mode & wanted != wanted and (each.is_dir() or found.st_nlink == 1):
            each.chmod(stat.S_IMODE(found.st_mode) | wanted)


def link_or_copy(source: Path | str, target: Path | str) -> None:
    """Give a file a second name, or copy it where the file system cannot (another one, or without hard links)."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def absorb(total: Hash, path: Path) -> None:
    """Add a file's bytes to a digest, a block at a time."""
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            total.update(block)


def sha256(path: Path) -> Hash:
    """Return the SHA-256 of a file's bytes; ask it for ``hexdigest()`` or ``digest()``."""
    total = hashlib.sha256()
    absorb(total, path)
    return total
