"""The trained models that the project ships: diffusers folders in ``fixtures/models``, checked by their digests.

A recipe's bits follow from its text; a trained model's only from its files, so each folder has a ``SHA256SUMS`` (the
format of ``sha256sum``), and a model whose files are not those is refused before anything is compared with it.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from parity import assets
from parity.errors import FormatError, MissingError
from parity.files import sha256

_SUMS = "SHA256SUMS"


def names() -> list[str]:
    """Return the trained models that the project ships."""
    return sorted(path.parent.name for path in (assets.fixtures() / "models").glob(f"*/{_SUMS}"))


def folder(name: str) -> Path:
    """Return a trained model's folder after checking every file; treat it as read-only.

    Raises
    ------
    MissingError
        No model of that name, or a file that ``SHA256SUMS`` lists is not there.
    FormatError
        A file differs from what was shipped; the message names it.
    """
    if name not in names():
        raise MissingError(f"no trained model named {name!r}; there are {', '.join(names()) or 'none'}")
    target = assets.fixtures() / "models" / name
    check(target)
    return target


@lru_cache
def check(target: Path) -> None:
    """Compare a folder's files with its ``SHA256SUMS``, once a process.

    Raises
    ------
    MissingError, FormatError
        As :func:`folder`.
    """
    for number, line in enumerate((target / _SUMS).read_text(encoding="utf-8").splitlines(), 1):
        digest, gap, relative = line.partition("  ")
        path = target / relative
        if len(digest) != 64 or not gap or not path.resolve().is_relative_to(target.resolve()):
            raise FormatError(
                f"{target / _SUMS}, line {number}: expected 64 hex digits, two spaces and a path in the folder"
            )
        if not path.is_file():
            raise MissingError(
                f"{path}: this file of the shipped model is missing; restore it (git checkout, or reinstall)"
            )
        if sha256(path).hexdigest() != digest:
            raise FormatError(
                f"{path}: its SHA-256 is not the one in {_SUMS}: the file is damaged or was changed; restore it "
                "(git checkout, or reinstall)"
            )
