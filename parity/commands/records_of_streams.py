"""What do commands print after ``--json`` about streams of random numbers? See :mod:`parity.commands.layouts`."""

from __future__ import annotations

from dataclasses import dataclass

from parity.streams.compare import Cause, Difference


@dataclass(frozen=True)
class Drawn:
    """``parity latents``: what was drawn, its first values, the SHA-256 of its bytes, and the file."""

    name: str
    seeds: tuple[int, ...]
    dtype: str
    shape: tuple[int, ...]
    first: tuple[float, ...]
    sha256: str
    file: str | None


@dataclass(frozen=True)
class Compared:
    """``parity latents --compare``; ``difference`` is null where shapes differ."""

    equal: bool
    difference: Difference | None
    causes: tuple[Cause, ...]


@dataclass(frozen=True)
class Detected:
    """``parity latents --detect``: torch's version, kernel and rules; empty texts are none that is known."""

    torch: str
    kernel: str
    half_rule: str
