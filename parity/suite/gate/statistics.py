"""Which loss would be found, and was one found? Statistics of paired scores.

Two models draw the same prompts from the same seeds, and a score says how good each picture is. What differs between
the two pictures of a pair is the model alone, so differences of scores spread less than scores do, and few pictures
tell much. A *loss* is the mean difference as a share of the mean score of the first model.

Three verdicts, by two one-sided tests:

* **pass**: a loss as large as the margin is excluded (Student's t on differences less the margin's share, at *risk*);
* **fail**: it is not, and that the second model scores lower is no chance (signs of the differences flipped at random,
  at *alarms*: exact whatever the distribution, for if the models are equally good each sign is a coin's);
* **unknown**: neither; too few pictures for how much the scores spread.

So a model that is as good fails with probability ``alarms`` at most. With which probability a loss of the margin's size
fails is the *power*; it depends on the spread and is stated before the run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from parity.errors import UsageError
from parity.suite.verdict import Verdict

FEWEST: Final = 8  # prompts; below it no pattern of signs is rarer than one in a hundred
MOST: Final = 100_000
_FLIPS: Final = 9_999
_SEED: Final = 93
_RATIOS: Final = 1000
_ROWS: Final = 1000  # sign patterns at a time
_ROUNDING: Final = 1e-9  # standard deviations; what differs by less is equal


@dataclass(frozen=True)
class Plan:
    """What a gate is asked to find.

    Attributes
    ----------
    prompts : int
        Number of prompts, which are what is sampled: several seeds of one prompt are averaged.
    margin : float
        The loss that must be found, as a share of the mean score: 0.03.
    alarms : float
        Largest probability that a model which is as good fails.
    power : float
        Wanted probability that a model which lost the margin fails.
    risk : float
        Largest probability that a model which lost the margin passes.

    Raises
    ------
    UsageError
        A number outside what can be asked.
    """

    prompts: int
    margin: float = 0.03
    alarms: float = 0.01
    power: float = 0.9
    risk: float = 0.05

    def __post_init__(self) -> None:
        if not FEWEST <= self.prompts <= MOST:
            raise UsageError(f"{self.prompts} prompts: between {FEWEST} and {MOST} are needed")
        for name in ("margin", "alarms", "power", "risk"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise UsageError(f"{name} {value:g}: a share between 0 and 1 is needed, such as 0.03 for 3 %")
        if self.alarms < 5 / _FLIPS:
            raise UsageError(f"alarms {self.alarms:g}: at least {5 / _FLIPS:.1g} can be told apart")

    def reached(self, spread: float) -> float:
        """Return the power: with which probability at least a loss of the margin's size fails.

        It counts on the sum of differences alone; where all pictures lose a little, more is found.

        Parameters
        ----------
        spread : float
            Standard deviation of the paired differences, as a share of the mean score.
        """
        from scipy.stats import norm

        estimated, distance = _estimated(self.prompts - 1), self._distance(spread)
        found = self._critical(self.alarms / 2) * estimated - distance  # two statistics share the false alarms
        not_excluded = -self._critical(self.risk) * estimated
        return float(np.mean(norm.sf(np.maximum(found, not_excluded))))

    def passes(self, spread: float) -> float:
        """Return with which probability a model that is as good passes; parameters as :meth:`reached`."""
        from scipy.stats import norm

        estimated, distance = _estimated(self.prompts - 1), self._distance(spread)
        return float(np.mean(norm.cdf(distance - self._critical(self.risk) * estimated)))

    def largest_spread(self) -> float:
        """Return the spread up to which the wanted power is reached, as a share of the mean score."""
        from scipy.optimize import brentq

        if self.reached(1e-6) < self.power:
            raise UsageError(f"power {self.power:g} and risk {self.risk:g}: their sum must be below 1")
        return float(brentq(lambda spread: self.reached(spread) - self.power, 1e-6, 100.0, xtol=1e-9))

    def needed(self, spread: float) -> int:
        """Return how many prompts reach the wanted power; parameters as :meth:`reached`."""
        low, high = FEWEST, MOST
        while low < high:
            middle = (low + high) // 2
            enough = self._with(middle).reached(spread) >= self.power
            low, high = (low, middle) if enough else (middle + 1, high)
        return low

    def _with(self, prompts: int) -> Plan:
        return Plan(prompts, self.margin, self.alarms, self.power, self.risk)

    def _distance(self, spread: float) -> float:
        """Return the margin in standard errors."""
        return self.margin * math.sqrt(self.prompts) / spread if spread > 0 else math.inf

    def _critical(self, probability: float) -> float:
        from scipy.stats import t

        return float(t.isf(probability, self.prompts - 1))

    def sentence(self) -> str:
        """Say before a run what it will find."""
        return (
            f"{self.prompts} prompts: a model as good fails with probability {self.alarms:.2g} at most; one that lost "
            f"{self.margin:.1%} fails with probability {self.power:.2g} or more if differences of paired scores spread "
            f"by {self.largest_spread():.1%} of the mean score or less"
        )


@lru_cache(maxsize=64)
def _estimated(degrees: int) -> np.ndarray:
    """Return equally probable ratios of an estimated standard error to the true one, for a mean over them."""
    from scipy.stats import chi2

    return np.sqrt(chi2.ppf((np.arange(_RATIOS) + 0.5) / _RATIOS, degrees) / degrees)


@dataclass(frozen=True)
class Finding:
    """What the scores say.

    Attributes
    ----------
    plan : Plan
        What was asked.
    first, second : float
        Mean scores of the two models.
    loss, low, high : float
        The loss as a share of the first model's mean score, and its two-sided interval at 1 - 2 ``risk``.
    spread : float
        Standard deviation of the paired differences, as a share of the mean score.
    chance : float
        Probability of such a loss, or a larger one, if the models are equally good.
    excluded : float
        Probability of so small a loss, or a smaller one, if the margin was lost.
    equivalent : float
        The same for losses and gains (two one-sided tests): at most ``risk`` if the scores are the same within the
        margin both ways.
    verdict : Verdict
        See the module.
    """

    plan: Plan
    first: float
    second: float
    loss: float
    low: float
    high: float
    spread: float
    chance: float
    excluded: float
    equivalent: float
    verdict: Verdict

    def sentence(self) -> str:
        """Say what was found, with everything a reader needs."""
        plan = self.plan
        found = (
            f"mean score {self.first:.4g} and {self.second:.4g}, loss {self.loss:+.2%} "
            f"({1 - 2 * plan.risk:.0%} interval {self.low:+.2%} to {self.high:+.2%}), "
            f"differences spread by {self.spread:.1%}"
        )
        if self.verdict is Verdict.PASS:
            small = f"; a small loss is no chance (p {self.chance:.2g})" if self.chance <= plan.alarms else ""
            return f"{found}: a loss of {plan.margin:.1%} is excluded (p {self.excluded:.2g}){small}"
        if self.verdict is Verdict.FAIL:
            return f"{found}: it scores lower, and that is no chance (p {self.chance:.2g})"
        return (
            f"{found}: neither a loss (p {self.chance:.2g}) nor its absence (p {self.excluded:.2g}) is shown; "
            f"{plan.needed(self.spread)} prompts would do"
        )


def decide(first: np.ndarray, second: np.ndarray, plan: Plan) -> Finding:
    """Compare paired scores.

    Parameters
    ----------
    first, second : numpy.ndarray
        (prompts,) float64: scores of the two models for the same prompts; higher is better.
    plan : Plan
        What is asked; ``plan.prompts`` is their number.

    Raises
    ------
    UsageError
        Other shapes, scores that are not finite, or a mean of the first model that is not positive: then no loss is a
        share of it.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape != (plan.prompts,) or second.shape != first.shape:
        raise UsageError(f"scores of shapes {first.shape} and {second.shape}; ({plan.prompts},) each is needed")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise UsageError("scores must be finite numbers")
    mean = float(first.mean())
    if mean <= 0:
        raise UsageError(f"the mean score is {mean:g}: a loss is a share of it, so it must be positive")
    lost = first - second
    spread = float(lost.std(ddof=1))
    half = plan._critical(plan.risk) * spread / math.sqrt(plan.prompts)
    chance, excluded = _by_flipped_signs(lost), _below(lost - plan.margin * first)
    equivalent = max(excluded, _below(-lost - plan.margin * first))
    shown = Verdict.FAIL if chance <= plan.alarms else Verdict.UNKNOWN
    verdict = Verdict.PASS if excluded <= plan.risk else shown
    loss = float(lost.mean())
    shares = (loss / mean, (loss - half) / mean, (loss + half) / mean, spread / mean)
    return Finding(plan, mean, float(second.mean()), *shares, chance, excluded, equivalent, verdict)


def _by_flipped_signs(lost: np.ndarray) -> float:
    """Return the share of sign patterns under which the differences speak as much for a loss, their own included.

    They speak by their sum, which a few broken pictures decide, or by the sum of their signed ranks (Wilcoxon), which
    finds what is a little worse everywhere; of both, each in its own standard deviations, the larger one counts.
    """
    from scipy.stats import rankdata

    size = np.abs(lost)
    if not size.any():
        return 1.0
    both = np.stack([size, rankdata(size) * (size > 0)], axis=1)
    both /= np.sqrt(np.square(both).sum(axis=0))
    wanted = float((np.sign(lost) @ both).max()) - _ROUNDING
    if len(lost) <= _ROWS:
        parts: Iterable[np.ndarray] = [_signs(len(lost))]
    else:
        rng = np.random.default_rng(_SEED)
        rows = [min(_ROWS, _FLIPS - start) for start in range(0, _FLIPS, _ROWS)]
        parts = (rng.choice([-1.0, 1.0], (count, len(lost))) for count in rows)
    larger = sum(int(np.count_nonzero((signs @ both).max(axis=1) >= wanted)) for signs in parts)
    return (larger + 1) / (_FLIPS + 1)


@lru_cache(maxsize=2)
def _signs(count: int) -> np.ndarray:
    return np.random.default_rng(_SEED).choice([-1.0, 1.0], (_FLIPS, count))


def _below(values: np.ndarray) -> float:
    """Return the probability of a mean so far below zero, or farther, if the true mean is zero (Student's t)."""
    if values.std() <= 1e-12 * float(np.abs(values).max()):
        return 0.0 if values.mean() < 0 else 1.0
    from scipy.stats import ttest_1samp

    return float(ttest_1samp(values, 0.0, alternative="less").pvalue)
