"""Which models lie under a path?

Walks a folder (links that leave it are reported and not followed), groups models by the folder they lie in (models in
``controlnet/`` belong to the folder above), and notes tokenizer files, unfinished downloads and archives. A zip archive
is looked at through a temporary folder: names that leave it and links are refused, an entry never gives more than its
stated size, and :data:`LIMIT` bounds the sum. To look, weights are unpacked for text encoders only; of the others a
sparse file of the same size gets the beginning and, where the archive stores them uncompressed, all records. To run
the models everything is unpacked, up to :data:`WHOLE_LIMIT`.
"""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from parity.contracts.inspection import Finding
from parity.errors import FormatError
from parity.files import pointer
from parity.mil import blobs

LIMIT = 4 << 30  # bytes that an archive may unpack to, weights that are not needed left out
WHOLE_LIMIT = 16 << 30  # with all weights; SDXL in float16 has 7 GiB
_RATIO = 200  # a zip entry may be at most this many times smaller than its content; text compresses about 30 times
_DEPTH = 8
_HEAD = 1 << 16  # bytes of a weight file that are always unpacked
_LOCAL_NAME, _LOCAL_SIZE = 26, 30  # of a zip entry's local header: where its two variable lengths stand, and its size
_MODELS = {".mlpackage", ".mlmodelc", ".mlmodel"}
_UNFINISHED = {".incomplete", ".part", ".partial", ".crdownload", ".download", ".aria2", ".tmp"}
# What zipfile lets through for damaged, encrypted or exotic archives
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    ValueError,
)
TOKENIZER = ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json")


@dataclass
class Group:
    """Models and tokenizer files of one folder."""

    folder: Path
    models: list[Path] = field(default_factory=list)
    tokenizer: list[str] = field(default_factory=list)
    scheduler: Path | None = None


def discover(root: Path) -> tuple[list[Group], list[Finding]]:
    """Find models.

    Parameters
    ----------
    root : pathlib.Path
        An existing folder.

    Returns
    -------
    groups : list of Group
        In order of path; those without models are left out.
    findings : list of Finding
    """
    groups: dict[Path, Group] = {}
    findings: list[Finding] = []
    _walk(root, root, groups, findings, 0)
    _adopt_controlnets(groups)
    return [group for _, group in sorted(groups.items()) if group.models], findings


def _walk(folder: Path, root: Path, groups: dict[Path, Group], findings: list[Finding], depth: int) -> None:
    group = groups.setdefault(folder, Group(folder))
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        findings.append(Finding("error", _name(folder, root), f"cannot be listed: {error.strerror}"))
        return
    for entry in entries:
        path = Path(entry.path)
        where = _name(path, root)
        if entry.is_symlink() and not _inside(path, root):
            findings.append(Finding("warning", where, "a link that leaves the folder (or leads nowhere): not followed"))
            continue
        suffix = path.suffix.lower()
        if suffix in _UNFINISHED:
            findings.append(Finding("warning", where, "an unfinished download"))
        elif suffix in _MODELS and (entry.is_dir() or suffix == ".mlmodel"):
            group.models.append(path)
        elif entry.is_file():
            findings += _sort_in(path, where, group)
        elif entry.is_dir() and depth >= _DEPTH:
            findings.append(Finding("note", where, f"deeper than {_DEPTH} folders: not searched"))
        elif entry.is_dir() and not entry.is_symlink():  # a link inside the folder leads to what is found anyway
            _walk(path, root, groups, findings, depth + 1)


def _sort_in(file: Path, where: str, group: Group) -> Iterator[Finding]:
    """Note a file that lies beside models: a part of the tokenizer, a scheduler's configuration, an archive."""
    if file.name in TOKENIZER:
        if text := pointer(file):
            yield Finding("error", where, text)
        else:
            group.tokenizer.append(file.name)
    elif file.name == "scheduler_config.json":
        group.scheduler = file
    elif file.suffix.lower() == ".zip":
        text = f"an archive inside the folder; inspect it by itself: parity inspect {where}"
        yield Finding("note", where, text)


def _adopt_controlnets(groups: dict[Path, Group]) -> None:
    for folder, group in list(groups.items()):
        if folder.name.lower() in ("controlnet", "controlnets", "tokenizer", "scheduler") and folder.parent in groups:
            parent = groups[folder.parent]
            parent.models += group.models
            parent.tokenizer += group.tokenizer
            parent.scheduler = parent.scheduler or group.scheduler
            del groups[folder]


def _inside(path: Path, root: Path) -> bool:
    try:
        target, top = path.resolve(strict=True), root.resolve()
    except (OSError, RuntimeError):
        return False
    return target == top or top in target.parents


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path != root else "."


@contextmanager
def unpacked(archive: Path, *, whole: bool = False) -> Iterator[tuple[Path, list[Finding], frozenset[Path]]]:
    """Unpack what inspection needs of a zip archive into a temporary folder that vanishes afterwards.

    Parameters
    ----------
    archive : pathlib.Path
        The zip file.
    whole : bool
        Unpack all weights, too: the models are going to run.

    Yields
    ------
    folder : pathlib.Path
    findings : list of Finding
        Entries that were refused.
    outlined : frozenset of pathlib.Path
        Weight files of which only beginning and size are real.

    Raises
    ------
    FormatError
        When it is not a zip archive, is damaged, or unpacks to more than :data:`LIMIT` (:data:`WHOLE_LIMIT`).
    """
    with tempfile.TemporaryDirectory(prefix="parity-inspect-") as name:
        folder = Path(name) / "content"
        folder.mkdir()
        try:
            with zipfile.ZipFile(archive) as file:
                findings, outlined = _extract(file, folder, archive, whole=whole)
        except FormatError:
            raise
        except _DAMAGED as error:
            raise FormatError(f"{archive}: not a readable zip archive (an unfinished download?): {error}") from None
        except OSError as error:
            raise FormatError(f"{archive}: cannot be unpacked: {error}") from None
        yield folder, findings, frozenset(outlined)


def _extract(file: zipfile.ZipFile, folder: Path, archive: Path, *, whole: bool) -> tuple[list[Finding], list[Path]]:
    findings = []
    outlined = []
    total = 0
    limit = WHOLE_LIMIT if whole else LIMIT
    for entry in file.infolist():
        parts = entry.filename.replace("\\", "/").split("/")
        if entry.filename.endswith("/") or PurePosixPath(entry.filename).parts[:1] == ("__MACOSX",):
            continue
        if all(part in ("", ".") for part in parts):
            findings.append(Finding("error", archive.name, "an entry of the archive has no name: it is damaged"))
            continue
        if entry.filename.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\0" in entry.filename:
            findings.append(
                Finding("error", repr(entry.filename)[:200], "the archive names a path outside itself: refused")
            )
            continue
        if stat.S_ISLNK(entry.external_attr >> 16):
            findings.append(Finding("warning", entry.filename, "a link in the archive: not followed"))
            continue
        path = folder.joinpath(*[part for part in parts if part not in ("", ".")])
        weights = path.parent.name == "weights"
        if not whole and weights and "text" not in entry.filename.lower() and entry.file_size > _HEAD:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not _outline(file, entry, path, archive):
                outlined.append(path)
            continue
        total += entry.file_size
        if total > limit or entry.file_size > _RATIO * max(entry.compress_size, 4096):
            raise FormatError(
                f"{archive}: '{entry.filename[:200]}' unpacks to {entry.file_size:,} bytes: refused as a zip bomb"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with file.open(entry) as source, path.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)  # zipfile stops at the stated size
    return findings, outlined


def _outline(file: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, archive: Path) -> bool:
    """Write a sparse stand-in for a weight file; tell whether it has all records."""
    with path.open("wb") as target:
        target.truncate(entry.file_size)
        with file.open(entry) as source:
            target.write(source.read(_HEAD))
        if entry.compress_type != zipfile.ZIP_STORED:
            return False
        with archive.open("rb") as raw:
            raw.seek(entry.header_offset + _LOCAL_NAME)
            start = entry.header_offset + _LOCAL_SIZE + sum(struct.unpack("<HH", raw.read(4)))
            raw.seek(start)
            (count,) = struct.unpack("<I", raw.read(4))
            offset = blobs.ALIGNMENT
            for _ in range(count):
                raw.seek(start + offset)
                record = raw.read(blobs.ALIGNMENT)
                if offset + blobs.ALIGNMENT > entry.file_size or len(record) < blobs.ALIGNMENT:
                    break
                target.seek(offset)
                target.write(record)
                sentinel, _, size, data, _ = struct.unpack_from("<IIQQQ", record)
                following = -(-(data + size) // blobs.ALIGNMENT) * blobs.ALIGNMENT
                if sentinel != blobs.SENTINEL or following <= offset:
                    break  # damaged: whoever reads this record finds out
                offset = following
    return True
