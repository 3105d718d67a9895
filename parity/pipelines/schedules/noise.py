"""How does a scheduler that draws noise at each step take it from the case's stream?

diffusers' schedulers draw from a ``torch.Generator``, by one function of diffusers, ``randn_tensor``. For the time of a
step that name, in the scheduler's own module, asks the case's stream instead; so any stream serves, the same noise
reaches every backend, and with the stream ``torch-cpu`` the values are those of diffusers' pipeline, which hands one
generator first to the latents and then to the steps.

DPM++ SDE (``DPMSolverSDEScheduler``) draws from a Brownian tree instead, whose generators are seeded by place in the
tree: it takes the case's seed, as k-diffusion's users do, and its noise does not depend on the stream.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from parity import quiet
from parity.errors import UsageError

Noise = Callable[[tuple[int, ...]], np.ndarray]
"""Gives the next standard normal tensor of a stream, float32, of the shape asked for."""


class Drawing:
    """One of diffusers' schedulers whose steps draw from a stream; everything else is the scheduler's own.

    Parameters
    ----------
    scheduler : object
        diffusers', fresh.
    noise : callable
        The stream.
    seed : int
        The stream's, for a Brownian tree; taken modulo 2**64, as torch's generators take it.
    eta : float
        Handed to steps that take it, as ``StableDiffusionPipeline`` does.
    """

    def __init__(self, scheduler: Any, noise: Noise, *, seed: int = 0, eta: float = 0.0) -> None:
        self._scheduler = scheduler
        self._noise = noise
        self._extra = {"eta": eta} if "eta" in inspect.signature(scheduler.step).parameters else {}
        if hasattr(scheduler, "noise_sampler_seed"):
            scheduler.noise_sampler_seed = seed % 2**64

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduler, name)

    def set_timesteps(self, steps: int) -> None:
        """Set the number of steps.

        Raises
        ------
        UsageError
            diffusers refuses it, or the first step would divide by a signal of zero.
        """
        scheduler = self._scheduler
        try:
            with quiet.loading():  # what it changes in its own configuration is diffusers' business
                scheduler.set_timesteps(steps)
        except (ValueError, IndexError) as error:
            raise UsageError(f"{type(scheduler).__name__} does not take {steps} steps: {error}") from None
        first = scheduler.timesteps[0]
        alphas: Any = getattr(scheduler, "alphas_cumprod", None)
        whole = not first.is_floating_point() and alphas is not None
        if whole and scheduler.config.prediction_type == "epsilon" and float(alphas[first]) == 0.0:
            raise UsageError(
                f"timestep {int(first)} is noise alone (rescale_betas_zero_snr), and a network that predicts noise "
                "says nothing about the picture there; rescaled betas go with prediction_type v_prediction or sample"
            )

    def step(self, predicted: Any, timestep: Any, latents: Any) -> Any:
        """Return the latents one step cleaner."""
        with self._drawing(), warnings.catch_warnings():
            # torchsde remarks on the last bits of a noise level that diffusers rounded to float32
            warnings.filterwarnings("ignore", "Should have t[ab]", UserWarning)
            return self._scheduler.step(predicted, timestep, latents, return_dict=False, **self._extra)[0]

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """Let the scheduler's module draw from the stream."""
        module: Any = sys.modules[type(self._scheduler).__module__]
        original = getattr(module, "randn_tensor", None)
        if original is None:  # a scheduler without noise
            yield
            return
        module.randn_tensor = self._draw
        try:
            yield
        finally:
            module.randn_tensor = original

    def _draw(self, shape: Any, *_: Any, dtype: Any = None, **__: Any) -> Any:
        import torch

        return torch.from_numpy(self._noise(tuple(shape))).to(dtype)
