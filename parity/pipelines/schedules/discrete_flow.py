"""The Swift package's scheduler for Stable Diffusion 3, in Float32, written from its public description.

Noise levels run evenly in the shifted level, to which the shift is applied a second time; the model is told 1000 times
the level, not rounded. Steps are Euler's. The last step adds the level where it should take it away, which nobody sees:
what is decoded is the estimate of that step, not its result.

Proved by tests: keys, levels and timesteps equal ``fixtures/schedules/discrete_flow.csv``, the estimates those of
diffusers' flow-matching scheduler with the same levels.
"""

from __future__ import annotations

import numpy as np

from parity.pipelines.schedules.swift import linspace
from parity.pipelines.settings import TRAIN_STEPS, ConsumerFailureError


def levels(steps: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the evenly spaced levels, falling from 1, and the noise levels that follow from them; Float32.

    Raises
    ------
    ConsumerFailureError
        One step divides zero by zero.

    Examples
    --------
    >>> [round(float(level), 4) for level in levels(4, 3.0)[1]]
    [1.0, 0.8577, 0.6022, 0.0089]
    """
    if steps < 2:
        text = "the process crashes: the noise levels of a single step are not numbers"
        raise ConsumerFailureError(text, rule="sd3-one-step")
    ends = _shifted(np.array([1, TRAIN_STEPS], np.float32), shift)
    even = linspace(ends[0], ends[1], steps)[::-1]
    return even, _shifted(even * np.float32(TRAIN_STEPS), shift)


def _shifted(timestep: np.ndarray, shift: float) -> np.ndarray:
    level, by = timestep / np.float32(TRAIN_STEPS), np.float32(shift)
    return by * level / (np.float32(1) + (by - np.float32(1)) * level)


class DiscreteFlow:
    """The package's scheduler.

    Parameters
    ----------
    steps : int
        At least 2.
    shift : float
        Of the noise levels; 3 with the command line's ``--sd3`` and by default.

    Attributes
    ----------
    timesteps : list of float
        As the model gets them.
    keys : list of int
        The same, cut: under these the package looks a step up, and shows them.
    estimate : numpy.ndarray
        The clean latents that the latest step implies.
    """

    def __init__(self, steps: int, shift: float = 3.0) -> None:
        even, self._levels = levels(steps, shift)
        self.keys = [int(level * np.float32(TRAIN_STEPS)) for level in even]
        self.timesteps = [float(level * np.float32(TRAIN_STEPS)) for level in self._levels]
        self.estimate = np.zeros(0, np.float32)
        self._step = 0

    def step(self, flow: np.ndarray, timestep: float, sample: np.ndarray) -> np.ndarray:
        """Return the sample one step cleaner."""
        level, last = self._levels[self._step], self._step == len(self._levels) - 1
        change = level if last else self._levels[self._step + 1] - level
        self._step += 1
        self.estimate = sample - flow * level
        return sample + (sample - self.estimate) / level * change
