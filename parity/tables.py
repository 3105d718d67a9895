"""Reading TOML tables (contracts, tolerances, cases, recipes) with errors that name the file and the line."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from parity.errors import FormatError, MissingError
from parity.files import refuse_pointer

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    MissingError, FormatError
        No such file; a git-lfs pointer; not valid TOML (the message gives line and column).
    """
    refuse_pointer(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingError(f"{path}: no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise FormatError(f"{path}: not a readable TOML file: {error}") from None


def nearest(word: str, known: Iterable[str], *, most: int = 1) -> str:
    """Return a hint with the known words that are most like an unknown one, at most so many, or nothing.

    >>> nearest("boud", ["bound", "metric"])
    '; did you mean bound?'
    """
    found = difflib.get_close_matches(word, list(known), n=most)
    return f"; did you mean {' or '.join(found)}?" if found else ""
