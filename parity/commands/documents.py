"""What do commands print after ``--json``?

One JSON object and nothing else on standard output; progress and warnings go to standard error, and the exit code is
the same as without it. Each object names what it is and the number of its layout::

    {"document": "cache list", "schema": 1, "entries": […]}

The layouts are the records of :mod:`parity.commands.layouts`; ``parity schema`` prints them as JSON Schema.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parity.files import replacing


def declare(parser: argparse.ArgumentParser, what: str = "all records") -> None:
    """Declare ``--json``.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Of the command or its action.
    what : str
        What is printed, for the help.
    """
    parser.add_argument("--json", action="store_true", help=f"print {what} as JSON ('parity schema' describes it)")


def write(record: Any, target: str = "-") -> None:
    """Write a record of :mod:`parity.commands.layouts` to standard output, or to a file.

    Parameters
    ----------
    record : dataclass
        Its class is a layout.
    target : str
        ``-`` for standard output, else a path.
    """
    from parity.commands.layouts import SCHEMA, name_of

    document = {"document": name_of(record), "schema": SCHEMA, **plain(record)}
    if target == "-":
        unicode = (sys.stdout.encoding or "").lower().startswith("utf")
        sys.stdout.write(json.dumps(document, indent=1, ensure_ascii=not unicode) + "\n")
        return
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    with replacing(target) as path:
        path.write_text(text, encoding="utf-8")


def plain(record: Any) -> Any:
    """Turn a record into what JSON can hold: names by field, lists, and ``nan``, ``inf`` and ``-inf`` as texts.

    Examples
    --------
    >>> plain({"loss": float("inf"), "at": (1, 2)})
    {'loss': 'inf', 'at': [1, 2]}
    """
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {field.name: plain(getattr(record, field.name)) for field in dataclasses.fields(record)}
    if fields := getattr(type(record), "__struct_fields__", ()):  # of msgspec, which not every command imports
        return {name: plain(getattr(record, name)) for name in fields}
    if isinstance(record, Mapping):
        return {str(key): plain(value) for key, value in record.items()}
    if isinstance(record, (list, tuple)):
        return [plain(value) for value in record]
    if isinstance(record, (set, frozenset)):
        return sorted(plain(value) for value in record)
    if isinstance(record, float) and not math.isfinite(record):
        return str(record)
    if record is None or isinstance(record, (str, int, float, bool)):
        return record
    if isinstance(record, Path):
        return str(record)
    raise TypeError(f"{type(record).__name__} has no form in JSON")
