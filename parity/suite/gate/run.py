"""What do both models draw for the prompts, and what do the scores say?

Every prompt is drawn by the *base* (the original in PyTorch float32, or a backend that the user names) and by each
candidate, from the same seed of the same stream. After the first pairs the spread of their differences is known, and
the power is stated before the rest is drawn; nothing is decided then, so looking costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from parity.errors import UsageError
from parity.pipelines.request import Request
from parity.suite import plan
from parity.suite.case import Case
from parity.suite.gate.scores import Score
from parity.suite.gate.statistics import Finding, Plan, decide
from parity.suite.options import Options
from parity.suite.plan import Cell
from parity.suite.stage import Stage

PILOT = 16
"""Pairs after which the power is stated again, from their spread."""

Draw = Callable[[Case], np.ndarray]
"""Draws a case: uint8 (height, width, 3)."""


@dataclass(frozen=True)
class Asked:
    """What is drawn and how it is judged.

    Attributes
    ----------
    prompts : tuple of str
        The texts.
    seeds : int
        Seeds of each prompt; their scores are averaged.
    request : Request
        Scheduler, steps, guidance; its prompt is replaced.
    rng : str
        Stream of the noise.
    first_seed : int
        Seed of the first picture; each later picture has the next one.
    score : Score
        How good a picture is.
    plan : Plan
        What is to be found; ``plan.prompts`` is the number of prompts.
    """

    prompts: tuple[str, ...]
    seeds: int
    request: Request
    rng: str
    first_seed: int
    score: Score
    plan: Plan

    def cases(self, prompt: int) -> list[Case]:
        """Return the cases of a prompt, by its number."""
        request = replace(self.request, prompt=self.prompts[prompt])
        first = self.first_seed + prompt * self.seeds
        return [Case("gate", request, seed, self.rng) for seed in range(first, first + self.seeds)]


@dataclass(frozen=True)
class Answer:
    """What was found about one candidate.

    Attributes
    ----------
    finding : Finding
        Verdict and figures.
    base, candidate : numpy.ndarray
        (prompts,) scores.
    worst : tuple
        (prompt, base's picture, candidate's picture) of the largest losses, the largest first.
    """

    finding: Finding
    base: np.ndarray
    candidate: np.ndarray
    worst: tuple[tuple[str, np.ndarray, np.ndarray], ...]


def candidates(options: Options) -> list[Cell]:
    """Return one cell for each candidate that the options name.

    Raises
    ------
    UsageError
        None of them can run here; the message says why.
    """
    listed = [cell for cell in plan.cells(options) if cell.kind == "candidate"]
    named = [cell for cell in listed if not cell.backend or cell.backend in options.backend]
    found = {(cell.numerics, cell.backend): cell for cell in reversed(named)}
    able = [cell for cell in reversed(found.values()) if not cell.unavailable]
    if not able:
        reasons = dict.fromkeys(cell.unavailable for cell in named) or ["the options name no candidate"]
        raise UsageError(f"no candidate can be drawn here: {'; '.join(reasons)}")
    return able


def drawer(stage: Stage, cell: Cell | None) -> Draw:
    """Return what draws cases: the original, or a candidate."""
    backend = stage.reference if cell is None else stage.candidate(cell)

    def draw(case: Case) -> np.ndarray:
        trace, _ = stage.run(backend, case)
        return np.asarray(trace["image"][0])

    return draw


class Gate:
    """Draws and scores, keeping what the original and the base drew for all candidates.

    Parameters
    ----------
    asked : Asked
        What is drawn and how it is judged.
    original : callable
        Draws by PyTorch in float32.
    base : callable, optional
        Draws what candidates are compared with; the original by default.
    say : callable
        Receives lines for the reader while the gate runs.
    """

    def __init__(
        self, asked: Asked, original: Draw, base: Draw | None = None, *, say: Callable[[str], None] = lambda text: None
    ) -> None:
        self.asked = asked
        self._original, self._base, self._say = original, base, say
        self._drawn: dict[int, tuple[list[np.ndarray], list[np.ndarray], float]] = {}

    def compare(self, candidate: Draw) -> Answer:
        """Draw all prompts by a candidate and decide.

        Raises
        ------
        ParityError
            A picture cannot be drawn or scored.
        """
        asked, base, found = self.asked, [], []
        losses: list[tuple[float, str, np.ndarray, np.ndarray]] = []
        for number, prompt in enumerate(asked.prompts):
            originals, pictures, score = self._of_base(number)
            drawn = [candidate(case) for case in asked.cases(number)]
            base.append(score)
            found.append(self._mean(drawn, prompt, originals))
            pairs = list(zip(pictures, drawn, strict=True))
            losses.append((base[-1] - found[-1], prompt, *pairs[0]))
            losses = sorted(losses, key=lambda one: -one[0])[:8]
            if number + 1 == min(PILOT, len(asked.prompts) // 2):
                self._say(pilot(np.array(base), np.array(found), asked.plan))
        finding = decide(np.array(base), np.array(found), asked.plan)
        return Answer(finding, np.array(base), np.array(found), tuple(one[1:] for one in losses))

    def _of_base(self, number: int) -> tuple[list[np.ndarray], list[np.ndarray], float]:
        """Return the original's and the base's pictures of a prompt, and the base's score; drawn once."""
        if number not in self._drawn:
            cases, score = self.asked.cases(number), self.asked.score
            needed = self._base is None or score.compares
            originals = [self._original(case) for case in cases] if needed else []
            pictures = originals if self._base is None else [self._base(case) for case in cases]
            own = self._base is None and score.compares
            value = score.best if own else self._mean(pictures, self.asked.prompts[number], originals)
            self._drawn[number] = originals, pictures, value
        return self._drawn[number]

    def _mean(self, pictures: Sequence[np.ndarray], prompt: str, originals: Sequence[np.ndarray]) -> float:
        beside = originals or pictures
        values = [self.asked.score(a, prompt, b) for a, b in zip(pictures, beside, strict=True)]
        return float(np.mean(values))


def pilot(base: np.ndarray, candidate: np.ndarray, wanted: Plan) -> str:
    """Say from the first pairs' spread what power the whole run has; of their mean nothing is told."""
    mean = float(base.mean())
    if mean <= 0:
        raise UsageError(f"the mean score is {mean:g}: a loss is a share of it, so it must be positive")
    spread = float((base - candidate).std(ddof=1)) / mean
    reached = wanted.reached(spread)
    text = f"the first {len(base)} pairs spread by {spread:.1%}: a loss of {wanted.margin:.1%} fails with {reached:.2f}"
    return (
        text if reached >= wanted.power else f"{text}; for {wanted.power:.2f} it takes {wanted.needed(spread)} prompts"
    )
