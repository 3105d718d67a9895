"""The Swift package's schedulers, in Float32, written from their public description.

:class:`PNDM` is its linear multistep part without Runge-Kutta steps. :class:`DPMSolver` is DPM-Solver++ of second order
(midpoint), of first order at the start and, with fewer than 15 steps, in the last two; its last step leads to timestep
0. Its timesteps are spaced evenly (``linspace``, ``leading``) or by the noise levels of Karras et al. (``karras``),
whose exact values go with rounded timesteps. Coefficients are Float32 where the sources compute in Float and Double
where they do; whether Apple's BLAS fuses a product and a sum is not known.

Proved by tests: timesteps, noise levels and every coefficient equal ``fixtures/schedules``; both schedulers equal
diffusers' to float32 rounding, where the releases do not deviate from them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from parity.errors import UsageError
from parity.pipelines.draws import cumulative_alphas
from parity.pipelines.settings import TRAIN_STEPS, ConsumerFailureError, Settings

RHO = 7  # of Karras' noise levels
ZERO = np.float32(0)
SHORT = 15  # runs of fewer steps end with two steps of first order


class Schedule(Protocol):
    """A scheduler for one image.

    Attributes
    ----------
    timesteps : sequence of numbers
    estimate : numpy.ndarray
        The clean latents that the latest step implies.
    """

    timesteps: Any
    estimate: np.ndarray

    def step(self, noise: np.ndarray, timestep: Any, sample: np.ndarray) -> np.ndarray:
        """Return the sample one step cleaner."""
        ...


def make(settings: Settings) -> Schedule:
    """Return the release's scheduler for one image."""
    return PNDM(settings.steps) if settings.scheduler == "pndm" else DPMSolver(settings.steps, settings.spacing)


def pndm_timesteps(steps: int) -> list[int]:
    """Return the timesteps of PNDM: steps + 1 entries, the second one repeated.

    >>> pndm_timesteps(50)[:4]
    [981, 961, 961, 941]
    """
    if steps < 2:
        raise ConsumerFailureError("the process crashes: an empty list of timesteps is unwrapped")
    ratio = TRAIN_STEPS // steps
    forward = [index * ratio + 1 for index in range(steps)]
    return list(reversed([*forward[:-1], forward[-2], forward[-1]]))


def dpm_timesteps(steps: int, spacing: str) -> list[int]:
    """Return the timesteps of DPM-Solver++, as the UNet gets them.

    Parameters
    ----------
    steps : int
        Of the call.
    spacing : str
        ``linspace``, ``leading`` or ``karras``.

    Raises
    ------
    ConsumerFailureError
        ``karras`` needs two steps: one divides zero by zero.

    >>> dpm_timesteps(25, "linspace")[:3], dpm_timesteps(25, "leading")[:3], dpm_timesteps(25, "karras")[:3]
    ([999, 959, 919], [951, 913, 875], [999, 970, 938])

    Halves are rounded away from zero, as Swift does (833 and 167; rounding to even would give 832 and 166):

    >>> dpm_timesteps(12, "linspace")[2], dpm_timesteps(12, "linspace")[10]
    (833, 167)
    """
    last = TRAIN_STEPS - 1
    if spacing == "karras":
        return [_rounded(_timestep(level)) for level in karras_levels(steps)]
    if spacing == "linspace":
        forward = [_rounded(value) for value in linspace(0, last, steps + 1)[1:]]
    elif spacing == "leading":
        forward = [1 + index * (last // (steps + 1)) for index in range(1, steps + 1)]
    else:
        raise UsageError(f"there is no spacing '{spacing}'; there are linspace, leading, karras")
    return list(reversed(forward))


def linspace(first: float, last: float, count: int) -> np.ndarray:
    """Return ``count`` Float32 values as Swift makes them: index times step, plus the first; the end can be missed."""
    step = (np.float32(last) - np.float32(first)) / np.float32(count - 1)
    return np.arange(count, dtype=np.float32) * step + np.float32(first)


def karras_levels(steps: int) -> np.ndarray:
    """Return the noise levels of Karras' spacing, Float32, falling; one for each step.

    They run from the largest to the smallest level of the 1000 trained ones, evenly in their seventh root.

    Raises
    ------
    ConsumerFailureError
        Fewer than two steps.
    """
    if steps < 2:
        raise ConsumerFailureError("the process crashes: Karras' noise levels of fewer than two steps are not numbers")
    trained = _trained_levels()
    low, high = _power(trained[0], np.float32(1 / RHO)), _power(trained[-1], np.float32(1 / RHO))
    return _power(high + linspace(0, 1, steps) * (low - high), np.float32(RHO))


@lru_cache(maxsize=1)
def _trained_levels() -> np.ndarray:
    alphas = cumulative_alphas()
    return np.sqrt((np.float32(1) - alphas) * (np.float32(1) / alphas))


def _timestep(level: np.float32) -> np.float32:
    """Return the timestep of a noise level, between the trained ones that surround its logarithm."""
    logs, value = _log(_trained_levels()), _log(level)
    low = int(np.clip(np.count_nonzero(value - logs >= 0) - 1, 0, TRAIN_STEPS - 2))
    share = np.clip((logs[low] - value) / (logs[low] - logs[low + 1]), np.float32(0), np.float32(1))
    return (np.float32(1) - share) * np.float32(low) + share * np.float32(low + 1)


def _log(value: Any) -> Any:
    """Logarithm, rounded to Float32 once: NumPy's own of Float32 is off by several units in the last place."""
    return np.log(np.float64(value)).astype(np.float32)


def _power(value: Any, exponent: np.float32) -> Any:
    """Power, rounded to Float32 once."""
    return np.power(np.float64(value), np.float64(exponent)).astype(np.float32)


def _rounded(value: np.float32) -> int:
    """Round half away from zero; values are not negative."""
    return int(np.floor(value + np.float32(0.5)))


class PNDM:
    """The package's PNDM scheduler."""

    def __init__(self, steps: int) -> None:
        self.timesteps = pndm_timesteps(steps)
        self.alphas = cumulative_alphas()
        self.ratio = TRAIN_STEPS // steps
        self.history: list[np.ndarray] = []
        self.counter = 0
        self.sample: np.ndarray | None = None
        self.estimate = np.zeros(0, np.float32)

    def step(self, noise: np.ndarray, timestep: int, sample: np.ndarray) -> np.ndarray:
        """Return the sample one step cleaner."""
        previous = timestep - self.ratio
        if self.counter == 1:  # the repeated timestep: improve the first step with its own result
            previous, timestep = timestep, timestep + self.ratio
        else:
            self.history = [*self.history[-3:], noise]
        sample, combined = self._combine(noise, sample)
        alpha, before = (float(self.alphas[max(t, 0)]) for t in (timestep, previous))
        self.estimate = ((sample - np.sqrt(1 - alpha) * combined) / np.sqrt(alpha)).astype(np.float32)
        self.counter += 1
        coefficient = (before / alpha) ** 0.5
        denominator = alpha * (1 - before) ** 0.5 + (alpha * (1 - alpha) * before) ** 0.5
        return (coefficient * sample - (before - alpha) * combined / denominator).astype(np.float32)

    def _combine(self, noise: np.ndarray, sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        past = self.history
        if len(past) == 1 and self.counter == 0:
            self.sample = sample
            return sample, noise
        if len(past) == 1:
            assert self.sample is not None
            return self.sample, (noise + past[-1]) / 2
        if len(past) == 2:
            return sample, (3 * past[-1] - past[-2]) / 2
        if len(past) == 3:
            return sample, (23 * past[-1] - 16 * past[-2] + 5 * past[-3]) / 12
        return sample, (55 * past[-1] - 59 * past[-2] + 37 * past[-3] - 9 * past[-4]) / 24


@dataclass(frozen=True)
class Coefficients:
    """What one step of DPM-Solver++ multiplies with: scalars, Float32 but for ``change``.

    Attributes
    ----------
    order : int
        1 or 2.
    alpha, sigma : numpy.float32
        Signal and noise of the step's own latents.
    change : float
        Difference of half the logarithmic signal-to-noise ratios, in Double.
    sample, estimate : numpy.float32
        Weights of the latents and of the clean latents that the step implies.
    difference : numpy.float32
        Weight of the estimates' divided difference; 0 in a step of first order.
    ratio : numpy.float32
        What the difference of two estimates is multiplied by: this step's ``change`` over the earlier one's.
    """

    order: int
    alpha: np.float32
    sigma: np.float32
    change: float
    sample: np.float32
    estimate: np.float32
    difference: np.float32 = ZERO
    ratio: np.float32 = ZERO


class DPMSolver:
    """The package's DPM-Solver++ scheduler.

    Parameters
    ----------
    steps : int
    spacing : str
        As in :func:`dpm_timesteps`. With ``karras`` and 45 steps or more, timesteps repeat; the package looks a
        timestep up by its first position, so that the latents rest in the steps that share one.
    """

    def __init__(self, steps: int, spacing: str = "linspace") -> None:
        self.timesteps = dpm_timesteps(steps, spacing)
        self.estimate = np.zeros(0, np.float32)
        self._karras = spacing == "karras"
        if self._karras:
            levels = karras_levels(steps)
            self._alpha = np.float32(1) / np.sqrt(np.float32(1) + levels * levels)
            self._sigma = levels * self._alpha
        else:
            alphas = cumulative_alphas()
            self._alpha, self._sigma = np.sqrt(alphas), np.sqrt(np.float32(1) - alphas)
        self._lambda = _log(self._alpha) - _log(self._sigma)
        self._steps = 0

    def coefficients(self, timestep: int, *, first: bool) -> Coefficients:
        """Return the coefficients of the step at a timestep.

        Parameters
        ----------
        timestep : int
            One of :attr:`timesteps`.
        first : bool
            Whether it is the first step that is taken, of which there is no earlier estimate.
        """
        place, count = self.timesteps.index(timestep), len(self.timesteps)
        here, there = self._entry(timestep), self._entry(0 if place == count - 1 else self.timesteps[place + 1])
        change = float(self._lambda[there]) - float(self._lambda[here])
        growth = -float(self._alpha[there]) * (np.exp(-change) - 1.0)
        first = first or (count < SHORT and place >= count - 2)
        result = Coefficients(
            1 if first else 2,
            self._alpha[here],
            self._sigma[here],
            change,
            np.float32(self._sigma[there] / self._sigma[here]),
            np.float32(growth),
        )
        if first:
            return result
        before = float(self._lambda[here]) - float(self._lambda[self._entry(self.timesteps[place - 1])])
        with np.errstate(divide="ignore", invalid="ignore"):  # at rest: before over 0 is infinite, its reciprocal 0
            ratio = np.float64(1) / (np.float64(before) / np.float64(change))
        return replace(result, difference=np.float32(0.5 * growth), ratio=np.float32(ratio))

    def step(self, noise: np.ndarray, timestep: int, sample: np.ndarray) -> np.ndarray:
        """Return the sample one step cleaner."""
        weights = self.coefficients(timestep, first=self._steps == 0)
        self._steps += 1
        earlier = self.estimate
        noise, sample = noise.astype(np.float32), sample.astype(np.float32)
        self.estimate = (sample - noise * weights.sigma) / weights.alpha
        result = weights.sample * sample + weights.estimate * self.estimate
        if weights.order == 1:
            return result
        divided = weights.ratio * self.estimate + -weights.ratio * earlier
        return result + weights.difference * divided

    def _entry(self, timestep: int) -> int:
        """Return where a timestep's noise level stands: under itself, with Karras' at its first place in the list."""
        if not self._karras:
            return timestep
        return self.timesteps.index(timestep) if timestep in self.timesteps else 0
