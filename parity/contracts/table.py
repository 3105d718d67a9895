"""Reading the project's tables: every value is checked when it is read, and a message names file, entry and field."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from parity import tables
from parity.errors import FormatError

_T = TypeVar("_T")
_REQUIRED: Any = object()
TABLES: Final = (
    "window",
    "component",
    "task",
    "consumer",
    "rule",
    "platform_rule",
    "specification",
    "metadata",
    "budget",
)
"""What a file can hold; each reader takes what concerns it and leaves the rest to the others."""


@dataclass(frozen=True)
class Table:
    """One table of a TOML file, with typed access.

    Attributes
    ----------
    path : pathlib.Path
        The file, for messages.
    where : str
        File and place inside it, e.g. ``apps.toml: consumer[2]``.
    values : dict
    asked : set of str
        Fields that were read, whether they are there or not; see :meth:`finish`.
    """

    path: Path
    where: str
    values: dict[str, Any]
    asked: set[str] = field(default_factory=set, repr=False, compare=False)

    def error(self, key: str, problem: str) -> FormatError:
        """Return (not raise) the error that a field deserves."""
        return FormatError(f"{self.where}: field '{key}' {problem}")

    def text(self, key: str, *, default: str = _REQUIRED) -> str:
        """Return a text."""
        return self._get(key, str, "a text", default)

    def number(self, key: str, *, default: int = _REQUIRED) -> int:
        """Return a whole number."""
        return self._get(key, int, "a whole number", default)

    def flag(self, key: str, *, default: bool = _REQUIRED) -> bool:
        """Return true or false."""
        return self._get(key, bool, "true or false", default)

    def date(self, key: str) -> datetime.date:
        """Return a date."""
        return self._get(key, datetime.date, "a date such as 2023-04-23", _REQUIRED)

    def texts(self, key: str, *, default: tuple[str, ...] = _REQUIRED) -> tuple[str, ...]:
        """Return a list of texts; a single text counts as a list of one."""
        value = self._get(key, (str, list), "a list of texts", default)
        return self._all(key, [value] if isinstance(value, str) else value, str, "a list of texts")

    def numbers(self, key: str, *, default: tuple[int, ...] = _REQUIRED) -> tuple[int, ...]:
        """Return a list of whole numbers."""
        return self._all(key, self._get(key, list, "a list of whole numbers", default), int, "a list of whole numbers")

    def table(self, key: str) -> Table:
        """Return a table inside this one; empty when absent."""
        return Table(self.path, f"{self.where}.{key}", self._get(key, dict, "a table", {}))

    def items(self, key: str) -> Iterator[Table]:
        """Iterate over a list of tables; none when absent."""
        entries = self._get(key, list, "a list of tables", [])
        for index, entry in enumerate(self._all(key, entries, dict, "a list of tables")):
            yield Table(self.path, f"{self.where}: {key}[{index}]", entry)

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Iterate over all fields, which must be texts."""
        for key in self.values:
            yield key, self.text(key)

    def finish(self) -> None:
        """Refuse fields that nobody read, once everything that there can be was read: they are misspelt."""
        for key in self.values:
            if key not in self.asked:
                raise self.error(key, f"is not known{tables.nearest(key, self.asked - self.values.keys())}")

    def _get(self, key: str, kind: Any, name: str, default: Any) -> Any:
        self.asked.add(key)
        if key not in self.values:
            if default is _REQUIRED:
                raise self.error(key, f"is missing; it must be {name}")
            return default
        value = self.values[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.error(key, f"must be {name}, not {value!r}")
        return value

    def _all(self, key: str, values: Any, kind: type[_T], name: str) -> tuple[_T, ...]:
        if not all(isinstance(value, kind) and (kind is bool or not isinstance(value, bool)) for value in values):
            raise self.error(key, f"must be {name}, not {values!r}")
        return tuple(values)


def read(path: Path) -> Table:
    """Read a TOML file of such tables.

    Raises
    ------
    MissingError, FormatError
        As :func:`parity.tables.read`; also where it has none of :data:`TABLES`, or something else beside them.
    """
    values = tables.read(path)
    for name in values:
        if name not in TABLES:
            known = f"there are {', '.join(TABLES)}"
            raise FormatError(f"{path}: table '{name}' is not known{tables.nearest(name, TABLES)}; {known}")
    if not values:
        raise FormatError(f"{path}: nothing in it; a table has {', '.join(f'[[{name}]]' for name in TABLES)}")
    return Table(path, path.name, values)
