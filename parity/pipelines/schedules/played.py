"""The Swift package's schedule by diffusers' own schedulers: a witness of :mod:`parity.pipelines.schedules.swift`.

Where a release deviates from diffusers (two steps of first order at the end of short DPM-Solver++ runs, other
timesteps), the same deviation is asked of diffusers' class.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from parity.pipelines.schedules.discrete_flow import levels
from parity.pipelines.schedules.swift import SHORT, dpm_timesteps
from parity.pipelines.settings import TRAIN_STEPS, Settings

_SCHEDULE = {
    "num_train_timesteps": TRAIN_STEPS,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}


def flow(settings: Settings) -> DiffusersFlow:
    """Return diffusers' flow-matching scheduler for one image, set to the package's noise levels."""
    return DiffusersFlow(settings)


def schedule(settings: Settings) -> DiffusersPNDM | DiffusersDPM:
    """Return diffusers' scheduler for one image, set to the package's schedule."""
    return DiffusersPNDM(settings.steps) if settings.scheduler == "pndm" else DiffusersDPM(settings)


class DiffusersPNDM:
    """diffusers' ``PNDMScheduler`` without Runge-Kutta steps."""

    def __init__(self, steps: int) -> None:
        from diffusers import PNDMScheduler

        self._scheduler = PNDMScheduler(**_SCHEDULE, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)
        self._scheduler.set_timesteps(steps)
        self.timesteps = [int(timestep) for timestep in self._scheduler.timesteps]
        self.estimate = np.zeros(0, np.float32)
        self._count = 0
        self._first: Any = None

    def step(self, noise: np.ndarray, timestep: int, sample: np.ndarray) -> np.ndarray:
        """Return the sample one step cleaner."""
        import torch

        predicted, before = torch.from_numpy(noise), torch.from_numpy(sample)
        result = self._scheduler.step(predicted, timestep, before).prev_sample
        self._first = before if self._count == 0 else self._first
        start = self._first if self._count == 1 else before
        self.estimate = np.asarray(_estimate(self._scheduler, self._count, timestep, start, predicted))
        self._count += 1
        return result.numpy()


class DiffusersDPM:
    """diffusers' ``DPMSolverMultistepScheduler``, its schedule ending at timestep 0."""

    def __init__(self, settings: Settings) -> None:
        from diffusers import DPMSolverMultistepScheduler

        self.timesteps = dpm_timesteps(settings.steps, settings.spacing)
        karras = settings.spacing == "karras"
        self._scheduler = DPMSolverMultistepScheduler(
            **_SCHEDULE, final_sigmas_type="sigma_min", use_karras_sigmas=karras
        )
        self._scheduler.set_timesteps(
            **({"num_inference_steps": settings.steps} if karras else {"timesteps": self.timesteps})
        )
        self._levels = self._scheduler.sigmas.clone()
        self._index: int | None = None
        self.estimate = np.zeros(0, np.float32)

    def step(self, noise: np.ndarray, timestep: int, sample: np.ndarray) -> np.ndarray:
        """Return the sample one step cleaner."""
        import torch

        count = len(self.timesteps)
        place = self.timesteps.index(timestep)
        if count < SHORT and place == max(count - 2, 0):
            self._scheduler.lower_order_nums = 0  # the release takes this step, too, with first order
        self._look_up(place)
        result = self._scheduler.step(torch.from_numpy(noise), timestep, torch.from_numpy(sample)).prev_sample
        self.estimate = self._scheduler.model_outputs[-1].numpy()
        return result.numpy()

    def _look_up(self, place: int) -> None:
        """Give diffusers the levels that the release finds: those of a timestep's first place in the list."""
        if self._index is None:
            self._index = place
            self._scheduler.set_begin_index(place)
        for step, wanted in enumerate((place - 1, place, place + 1), start=self._index - 1):
            if 0 <= wanted < len(self.timesteps):
                self._scheduler.sigmas[step] = self._levels[self.timesteps.index(self.timesteps[wanted])]
        self._index += 1


class DiffusersFlow:
    """diffusers' ``FlowMatchEulerDiscreteScheduler``, which steps to 0 at the end."""

    def __init__(self, settings: Settings) -> None:
        from diffusers import FlowMatchEulerDiscreteScheduler

        even, _ = levels(settings.steps, settings.flow_shift)
        self._scheduler = FlowMatchEulerDiscreteScheduler(TRAIN_STEPS, shift=settings.flow_shift)
        self._scheduler.set_timesteps(sigmas=even.tolist())
        self.timesteps = [float(timestep) for timestep in self._scheduler.timesteps]
        self.estimate = np.zeros(0, np.float32)
        self._step = 0

    def step(self, noise: np.ndarray, timestep: float, sample: np.ndarray) -> np.ndarray:
        """Return the sample one step cleaner."""
        import torch

        predicted, before = torch.from_numpy(noise), torch.from_numpy(sample)
        self.estimate = (before - predicted * self._scheduler.sigmas[self._step]).numpy()
        self._step += 1
        result = self._scheduler.step(predicted, torch.tensor(timestep), before, return_dict=False)[0]
        return np.asarray(result.numpy())


def _estimate(scheduler: Any, index: int, step: int, sample: Any, noise: Any) -> Any:
    """Clean latent that diffusers' last step implies: its sample minus its combined noise.

    The second step repeats the first one from the first sample, with the mean of both noises.
    """
    past = scheduler.ets
    if index == 1:
        step += scheduler.config.num_train_timesteps // scheduler.num_inference_steps
        noise = (noise + past[-1]) / 2
    elif len(past) >= 4:
        noise = (55 * past[-1] - 59 * past[-2] + 37 * past[-3] - 9 * past[-4]) / 24
    elif len(past) == 3:
        noise = (23 * past[-1] - 16 * past[-2] + 5 * past[-3]) / 12
    elif len(past) == 2:
        noise = (3 * past[-1] - past[-2]) / 2
    alpha = scheduler.alphas_cumprod[step]
    return (sample - (1 - alpha) ** 0.5 * noise) / alpha**0.5
