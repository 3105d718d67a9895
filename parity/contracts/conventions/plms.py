"""The package's PNDM scheduler (the linear multistep part), written from its public description.

Proved by tests: equal to diffusers' ``PNDMScheduler`` with ``skip_prk_steps`` to float32 rounding.
"""

from __future__ import annotations

import numpy as np

from parity.contracts.conventions.draws import TRAIN_STEPS, cumulative_alphas


class PLMS:
    """The package's PNDM scheduler without Runge-Kutta steps, in Float32."""

    def __init__(self, steps: int) -> None:
        self.alphas = cumulative_alphas()
        self.ratio = TRAIN_STEPS // steps
        self.history: list[np.ndarray] = []
        self.counter = 0
        self.sample: np.ndarray | None = None
        self.estimate = np.zeros(0, np.float32)

    def step(self, noise: np.ndarray, timestep: int, sample: np.ndarray) -> np.ndarray:
        """Return the sample one step cleaner; :attr:`estimate` is the clean latent that the step implies."""
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
