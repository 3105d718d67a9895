"""Where are a run's pictures, and how is each of them stored once?

A picture is the file ``pictures/SHA256.png``, named by the digest of its bytes: equal pictures are one file, and a
damaged one is recognised.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from parity.errors import FormatError
from parity.files import replacing


def folder(run: Path) -> Path:
    """Return the folder of a run's pictures."""
    return run / "pictures"


def store(run: Path, pictures: Mapping[str, str]) -> dict[str, str]:
    """Store PNG files (base64, by role) and return their digests by role; a file that is there already is kept.

    Raises
    ------
    OSError
        They cannot be written.
    """
    digests = {}
    for role, text in pictures.items():
        content = base64.b64decode(text)
        digests[role] = digest = hashlib.sha256(content).hexdigest()
        target = folder(run) / f"{digest}.png"
        if target.is_file() and target.stat().st_size == len(content):
            continue
        with replacing(target) as path, path.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    return digests


def read(run: Path, digest: str) -> str:
    """Return a picture as base64; empty where it is not there.

    Raises
    ------
    FormatError
        The file's content is not what its name says.
    """
    path = folder(run) / f"{digest}.png"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return ""
    if hashlib.sha256(content).hexdigest() != digest:
        raise FormatError(f"{path}: its content is not what its name says (SHA-256); restore it or remove it")
    return base64.b64encode(content).decode("ascii")


def copy(source: Path, target: Path) -> None:
    """Copy the pictures of one run that the other, which nobody reads yet, does not have."""
    folder(target).mkdir(exist_ok=True)
    for path in folder(source).glob("*.png"):
        wanted = folder(target) / path.name
        if not wanted.exists():
            shutil.copyfile(path, wanted)
