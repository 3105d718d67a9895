"""What is predicted at a step: the UNet's noise, guided, under ControlNets and beside a masked picture?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.pipelines.conditions import Condition
from parity.pipelines.loop import Networks


@dataclass(frozen=True)
class Control:
    """One ControlNet of a run.

    Attributes
    ----------
    name : str
        Its network: ``controlnet-1`` and so on.
    image : numpy.ndarray
        Its control image for each row, float32 (batch, 3, H, W).
    scale : float
        By which its residuals are multiplied.
    start, end : float
        Shares of the steps between which it acts.
    """

    name: str
    image: np.ndarray
    scale: float
    start: float
    end: float

    def weight(self, step: int, steps: int) -> float:
        """Return the scale at a step; outside its shares a net is asked, and counts nothing."""
        return self.scale * (1.0 - float(step / steps < self.start or (step + 1) / steps > self.end))


@dataclass(frozen=True)
class Prediction:
    """Predicts the guided noise of a step.

    Attributes
    ----------
    networks : Networks
        Who computes.
    scheduler : object
        diffusers'; scales the UNet's input.
    condition : Condition
        Texts and sizes.
    guidance : float
        Scale of classifier-free guidance, if the condition is guided.
    unet : str
        The network.
    beside : torch.Tensor, optional
        Further channels of the UNet's input, for each picture.
    controls : sequence of Control
        ControlNets, in order.
    steps : int
        Timesteps of the run, for the shares of ControlNets.
    rescale : float
        Share of the guided noise that is brought to the deviation of the prompt's: diffusers' ``guidance_rescale``.
    """

    networks: Networks
    scheduler: Any
    condition: Condition
    guidance: float
    unet: str = "unet"
    beside: Any = None
    controls: Sequence[Control] = ()
    steps: int = 0
    rescale: float = 0.0

    def __call__(self, label: str, timestep: Any, latents: Any) -> Any:
        import torch

        rows = 2 if self.condition.guided else 1
        sample = self.scheduler.scale_model_input(torch.cat([latents] * rows) if rows == 2 else latents, timestep)
        if self.beside is not None:
            sample = torch.cat([sample, torch.cat([self.beside] * rows) if rows == 2 else self.beside], dim=1)
        given = {
            "sample": sample.numpy(),
            "timestep": np.repeat(timestep.numpy(), sample.shape[0]),
            "hidden": self.condition.hidden,
            **self.condition.extra,
        }
        residuals = self._residuals(label, given)
        predicted = self.networks.call(self.unet, label, **given, **residuals)
        noise_pred = torch.from_numpy(predicted["noise_pred"])
        if rows == 1:
            return noise_pred
        negative, positive = noise_pred.chunk(2)
        guided = negative + self.guidance * (positive - negative)
        if self.rescale <= 0:
            return guided
        every = list(range(1, guided.ndim))
        scaled = guided * (positive.std(dim=every, keepdim=True) / guided.std(dim=every, keepdim=True))
        return self.rescale * scaled + (1 - self.rescale) * guided

    def _residuals(self, label: str, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for control in self.controls:
            weight = np.float32(control.weight(int(label.removeprefix("step")), self.steps))
            for name, value in self.networks.call(control.name, label, **given, cond=control.image).items():
                found[name] = found[name] + value * weight if name in found else value * weight
        return found
