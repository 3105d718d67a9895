"""Reading TOML tables (contracts, tolerances, cases, recipes) with errors that name the file and the line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from parity.errors import FormatError, MissingError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    MissingError, FormatError
        No such file; not valid TOML (the message gives line and column).
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingError(f"{path}: no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise FormatError(f"{path}: not a readable TOML file: {error}") from None
