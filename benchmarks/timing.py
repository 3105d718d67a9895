"""Measuring two ways of doing the same thing, alternating, so that a busy machine slows both; peak memory."""

from __future__ import annotations

import re
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ratio:
    """Median times in seconds of a subject and of what the user would run instead."""

    name: str
    subject: float
    instead: float
    target: float | None = None

    @property
    def ratio(self) -> float:
        """Subject divided by what the user would run instead; below 1 is faster."""
        return self.subject / self.instead

    def __str__(self) -> str:
        bound = "" if self.target is None else f"  (target ≤ {self.target:g})"
        return f"{self.name:<58}{_time(self.subject):>10} /{_time(self.instead):>10} = {self.ratio:5.2f}{bound}"


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def compare(
    name: str,
    subject: Callable[[], object],
    instead: Callable[[], object],
    *,
    repeats: int = 20,
    target: float | None = None,
) -> Ratio:
    """Time both callables ``repeats`` times in alternation after one warm-up each; medians decide."""
    subject(), instead()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for which, call in enumerate((subject, instead)):
            start = time.perf_counter()
            call()
            times[which].append(time.perf_counter() - start)
    return Ratio(name, statistics.median(times[0]), statistics.median(times[1]), target)


def peak() -> float:
    """Return this process's own peak of resident memory in GiB; Linux's ``ru_maxrss`` may be that of its parent."""
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s*(\d+)", status.read_text())):
        return int(found[1]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
