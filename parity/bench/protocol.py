"""What is measured, and in which manner?

Medians of three after a warm-up; loading, converting and progress are excluded from latencies. The first load of a
process is what a user waits for; the second one in the same process shows what the system keeps.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

REPEATS: Final = 3


@dataclass(frozen=True)
class Protocol:
    """What is drawn, and how often.

    Attributes
    ----------
    steps : int
        Denoising steps.
    guidance_scale : float
    scheduler : str
    repeats : int
        Runs after the warm-up, of which the median counts.
    """

    steps: int = 20
    guidance_scale: float = 7.5
    scheduler: str = "pndm"
    repeats: int = REPEATS


NAMED: Final = {
    "ml-stable-diffusion": Protocol(steps=50),
    "ten-steps": Protocol(steps=10),
}
"""Protocols of published tables, see ``published.toml``."""


@dataclass(frozen=True)
class Component:
    """One network of a candidate.

    Attributes
    ----------
    name : str
    first, again : float
        Seconds of the first load in a process, and of another one.
    call : float
        Seconds of one call, the median.
    calls : tuple of float
        All of them, in their order.
    memory : int
        Bytes by which the process's peak grew while it loaded and ran the component.
    stored, alive : int
        Estimate: weights as stored and values alive at once, bytes; 0 where there is no ML Program.
    """

    name: str
    first: float
    again: float
    call: float
    calls: tuple[float, ...]
    memory: int
    stored: int = 0
    alive: int = 0


@dataclass(frozen=True)
class Measured:
    """A candidate.

    Attributes
    ----------
    numerics : str
        Who computes, as reports say it.
    components : tuple of Component
    pictures : tuple of float
        Seconds of each picture after the warm-up.
    step : float
        Seconds of a step, the median of all.
    memory : int
        Peak of the process that draws, bytes, libraries included.
    problem : str
        Why nothing was measured; empty otherwise.
    """

    numerics: str
    components: tuple[Component, ...] = ()
    pictures: tuple[float, ...] = ()
    step: float = 0.0
    memory: int = 0
    problem: str = ""

    @property
    def picture(self) -> float:
        """Seconds of a picture, the median."""
        return median(self.pictures)

    def record(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {**asdict(self), "picture": self.picture}


def median(values: Sequence[float]) -> float:
    """Return the median, 0 of nothing."""
    return statistics.median(values) if values else 0.0
