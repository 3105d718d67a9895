"""What do commands find out that no other room has a record of?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One thing in the cache.

    Attributes
    ----------
    kind : str
        One of :data:`parity.commands.cache.KINDS`, or ``leftover``.
    name : str
        Path below the cache folder.
    bytes : int
        Size of all its files.
    seconds : float
        Age: since it was made.
    what : str
        What a reader would call it: files of a converted entry, name of a recipe.
    """

    kind: str
    name: str
    bytes: int
    seconds: float
    what: str


@dataclass(frozen=True)
class Package:
    """One package that the project needs or can use.

    Attributes
    ----------
    name : str
        As on the package index.
    tested : str
        Range of versions that the project was tested with, e.g. ``>=2.4,<2.14``; empty for any.
    installed : str
        Version found; empty when it is not installed.
    extra : str
        The extra that asks for it, e.g. ``compress``; empty for what the project always needs.
    state : str
        ``ok``, ``missing``, ``outside`` (the tested range) or ``optional`` (of an extra, not installed).
    """

    name: str
    tested: str
    installed: str
    extra: str
    state: str


@dataclass(frozen=True)
class Report:
    """Everything that the command prints.

    Attributes
    ----------
    parity, platform, cache, devices, environment : dict
        Facts by name. ``devices`` is empty when torch was not asked.
    packages : tuple of Package
        In the order of the project's own list.
    problems : tuple of str
        What is missing or outside the tested ranges, one sentence each with what to do.
    """

    parity: dict[str, Any]
    platform: dict[str, Any]
    packages: tuple[Package, ...]
    devices: dict[str, Any]
    cache: dict[str, Any]
    environment: dict[str, str]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Cached:
    """``parity cache list``, the oldest first; ``seconds`` are ages."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Pruned:
    """``parity cache prune``: what was removed, or with ``--dry-run`` would be."""

    removed: bool
    entries: tuple[Entry, ...]
