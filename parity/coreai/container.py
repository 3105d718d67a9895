"""Is this folder an ``.aimodel`` that can be opened? Asked before any process is started for it.

A file is a folder with ``main.mlirb`` (the program and its weights), ``main.hash`` (SHA-256 of it) and
``metadata.json``. The runtime checks none of them (a damaged program ends its process or, worse, runs), so this module
does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from parity.errors import FormatError, MissingError, UnsupportedError
from parity.files import sha256

SUFFIX = ".aimodel"
PROGRAM, HASH, METADATA = "main.mlirb", "main.hash", "metadata.json"
_VERSION = 2  # assetVersion 2.0, of coreai-core 1.0
_MAGIC = b"ML\xefR"  # MLIR's bytecode


def is_aimodel(path: Path | str) -> bool:
    """Return whether the path looks like an ``.aimodel``, by its suffix."""
    return Path(path).suffix == SUFFIX


def check(path: Path) -> dict[str, Any]:
    """Check a file and return its metadata.

    Raises
    ------
    MissingError
        No such folder.
    FormatError
        It is no ``.aimodel``, a part is missing, empty or not what it should be, or the program is not the one that
        was hashed when the file was written.
    UnsupportedError
        It is of a newer format.
    """
    if not path.exists():
        raise MissingError(f"{path}: no such file")
    if not path.is_dir() or not is_aimodel(path):
        raise FormatError(f"{path}: not an .aimodel: a folder with that suffix is expected")
    about = _metadata(path)
    program = path / PROGRAM
    if not program.is_file():
        raise FormatError(f"{path}: {PROGRAM} is missing: the program was not copied, or this is no Core AI model")
    with program.open("rb") as stream:
        if stream.read(4) != _MAGIC:
            raise FormatError(f"{path}: {PROGRAM} is empty, truncated or no program (it must begin with MLIR's mark)")
    _check_hash(path)
    return about


def _metadata(path: Path) -> dict[str, Any]:
    file = path / METADATA
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        version = int(str(about["assetVersion"]).split(".")[0])
    except FileNotFoundError:
        raise FormatError(f"{path}: {METADATA} is missing") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"{path}: {METADATA}: not readable, or without an assetVersion: {error!r}") from None
    if version > _VERSION:
        raise UnsupportedError(
            f"{path}: format {about['assetVersion']}; up to {_VERSION}.x is read here: update coreai-core and parity"
        )
    return dict(about)


def _check_hash(path: Path) -> None:
    file = path / HASH
    if not file.is_file():
        return  # other writers may leave it out; the runtime does not ask for it
    if digest(path) != file.read_bytes():
        raise FormatError(f"{path}: {PROGRAM} is not what {HASH} says: the file is damaged; copy or convert it again")


def digest(path: Path) -> bytes:
    """Return the SHA-256 of a file's program."""
    return sha256(path / PROGRAM).digest()
