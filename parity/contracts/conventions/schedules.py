"""The Swift package's schedulers, in Float32, written from their public description.

:class:`PNDM` is its linear multistep part without Runge-Kutta steps. :class:`DPMSolver` is DPM-Solver++ of second order
(midpoint), of first order at the start and, with fewer than 15 steps, in the last two; its last step leads to timestep
0. The facts of the spacing ``karras`` leave open which noise levels go with its rounded timesteps, so it is not played.

Proved by tests: equal to diffusers' ``PNDMScheduler`` and ``DPMSolverMultistepScheduler`` to float32 rounding, where
the releases do not deviate from them.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from parity.contracts.conventions.draws import TRAIN_STEPS, ConsumerFailureError, Settings, cumulative_alphas
from parity.errors import UnsupportedError


class Schedule(Protocol):
    """A scheduler for one image.

    Attributes
    ----------
    timesteps : list of int
    estimate : numpy.ndarray
        The clean latents that the latest step implies.
    """

    timesteps: list[int]
    estimate: np.ndarray

    def step(self, noise: np.ndarray, timestep: int, sample: np.ndarray) -> np.ndarray:
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
    """Return the timesteps of DPM-Solver++.

    >>> dpm_timesteps(25, "linspace")[:3], dpm_timesteps(25, "leading")[:3]
    ([999, 959, 919], [951, 913, 875])
    """
    last = TRAIN_STEPS - 1
    if spacing == "linspace":
        forward = [round(value) for value in np.linspace(0, last, steps + 1)[1:]]
    elif spacing == "leading":
        forward = [1 + index * (last // (steps + 1)) for index in range(1, steps + 1)]
    else:
        raise UnsupportedError(f"spacing {spacing}: the noise levels of its timesteps are not known; not played")
    return list(reversed(forward))


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


class DPMSolver:
    """The package's DPM-Solver++ scheduler."""

    def __init__(self, steps: int, spacing: str = "linspace") -> None:
        self.timesteps = dpm_timesteps(steps, spacing)
        self.estimate = np.zeros(0, np.float32)
        alphas = cumulative_alphas().astype(np.float64)
        self._alpha, self._sigma = np.sqrt(alphas), np.sqrt(1 - alphas)
        self._lambda = np.log(self._alpha) - np.log(self._sigma)
        self._steps = 0

    def step(self, noise: np.ndarray, timestep: int, sample: np.ndarray) -> np.ndarray:
        """Return the sample one step cleaner."""
        index = self.timesteps.index(timestep)
        count = len(self.timesteps)
        following = 0 if index == count - 1 else self.timesteps[index + 1]
        earlier = self.estimate
        self.estimate = ((sample - self._sigma[timestep] * noise) / self._alpha[timestep]).astype(np.float32)
        first_order = self._steps == 0 or (count < 15 and index >= count - 2)
        self._steps += 1
        change = self._lambda[following] - self._lambda[timestep]
        ratio, growth = self._sigma[following] / self._sigma[timestep], self._alpha[following] * np.expm1(-change)
        result = ratio * sample - growth * self.estimate
        if not first_order:
            before = self._lambda[timestep] - self._lambda[self.timesteps[index - 1]]
            result = result - 0.5 * growth * (self.estimate - earlier) * (change / before)
        return result.astype(np.float32)
