"""What did others measure, on which device, in which manner?"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from pathlib import Path

from parity import tables

TABLE = Path(__file__).with_name("published.toml")


@dataclass(frozen=True)
class Row:
    """One published figure.

    Attributes
    ----------
    device, unit : str
        The unit is empty where it was not said.
    attention : str
        Form of attention of the converted UNet; empty where it was not said.
    seconds : float
        A picture, without loading; 0 where it was not said.
    rate : float
        Iterations a second; 0 where it was not said.
    load : dict of str to float
        Seconds of a component's first load.
    """

    device: str
    unit: str
    attention: str = ""
    seconds: float = 0.0
    rate: float = 0.0
    load: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """Who published, and how it was measured."""

    name: str
    origin: str
    protocol: str
    rows: tuple[Row, ...]


def sources(path: Path = TABLE) -> list[Source]:
    """Return all that is known, by source."""
    found = []
    for entry in tables.read(path)["source"]:
        rows = tuple(Row(**row) for row in entry["rows"])
        found.append(Source(entry["name"], entry["from"], entry["protocol"], rows))
    return found


def lines(name: str = "") -> list[str]:
    """Return the tables as text that fits 80 columns: all, or the one of a source."""
    told = ["Published by others; none of it was reproduced by this project."]
    for source in sources():
        if name and source.name != name:
            continue
        told += ["", f"{source.name}: {source.origin}", f"  {source.protocol}"]
        for row in source.rows:
            words = [f"  {row.device:<34}{row.unit:<13}"]
            words += [f"{row.seconds:g} s"] if row.seconds else []
            words += [f"{row.rate:g} it/s"] if row.rate else []
            words += [row.attention] if row.attention else []
            told.append(f"{words[0]}{'  '.join(words[1:])}".rstrip())
            if row.load:
                parts = (f"{part} {value:g} s" for part, value in row.load.items())
                told += textwrap.wrap(
                    f"first load: {', '.join(parts)}", 79, initial_indent=" " * 4, subsequent_indent=" " * 6
                )
    return told
