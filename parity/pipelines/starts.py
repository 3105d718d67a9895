"""Where does a picture begin: in noise, in another picture, or in a picture of which a mask is drawn anew?

The order of random draws is diffusers': the picture's sample, then the noise, then (inpainting) the masked picture's
sample. Strength skips the first steps. All arithmetic is torch's on the CPU, so the latents are diffusers' bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.models.model import Model
from parity.pipelines import pictures
from parity.pipelines.loop import Networks
from parity.pipelines.request import Request, read_picture
from parity.pipelines.schedules.noise import Noise


@dataclass(frozen=True)
class Start:
    """Where the denoising loop begins.

    Attributes
    ----------
    latents : torch.Tensor
        (images, L, h, w).
    timesteps : torch.Tensor
        Those that are run.
    beside : torch.Tensor, optional
        What a UNet of 9 channels gets beside the latents: mask and masked picture, (images, 1 + L, h, w).
    kept : Kept, optional
        What a UNet of 4 channels must leave as it was.
    """

    latents: Any
    timesteps: Any
    beside: Any = None
    kept: Kept | None = None


@dataclass(frozen=True)
class Kept:
    """The picture outside the mask, which is put back after every step."""

    scheduler: Any
    timesteps: Any
    picture: Any
    noise: Any
    mask: Any

    def blend(self, step: int, latents: Any) -> Any:
        """Return latents whose kept part is the picture's, as noisy as the next step expects it."""
        import torch

        kept = self.picture
        if step < len(self.timesteps) - 1:
            kept = self.scheduler.add_noise(kept, self.noise, torch.tensor([self.timesteps[step + 1]]))
        return (1 - self.mask) * kept + self.mask * latents


def begin(request: Request, model: Model, networks: Networks, scheduler: Any, noise: Noise) -> Start:
    """Return where a request begins, once its scheduler knows its steps."""
    starts = {"img2img": from_picture, "inpaint": inpaint}
    return starts.get(request.task, from_noise)(request, model, networks, scheduler, noise)


def from_noise(request: Request, model: Model, networks: Networks, scheduler: Any, noise: Noise) -> Start:
    """Begin in noise, as strong as the scheduler wants it."""
    import torch

    drawn = noise((request.images, *model.latent_shape))
    return Start(torch.from_numpy(drawn) * scheduler.init_noise_sigma, scheduler.timesteps)


def from_picture(request: Request, model: Model, networks: Networks, scheduler: Any, noise: Noise) -> Start:
    """Begin in a picture with noise for its strength."""
    import torch

    assert request.image is not None  # Request refuses it
    rows = request.images if request.generators == "each" else 1
    start = _encoded(read_picture(request.image, model), "start", model, networks, _rows(noise, rows))
    start = torch.cat([start] * (request.images // rows))
    timesteps = _skip(request, scheduler)
    drawn = torch.from_numpy(noise(tuple(start.shape)))
    return Start(scheduler.add_noise(start, drawn, timesteps[:1].repeat(request.images)), timesteps)


def inpaint(request: Request, model: Model, networks: Networks, scheduler: Any, noise: Noise) -> Start:
    """Begin with a picture and a mask; at full strength in noise alone."""
    import torch

    assert request.image is not None  # Request refuses it
    picture = torch.from_numpy(read_picture(request.image, model))
    mask = pictures.read_mask(request, model)
    timesteps = _skip(request, scheduler)
    pure = request.strength == 1.0
    start = None
    if model.unet_channels == model.latent_shape[0] or not pure:
        start = _encoded(picture.numpy(), "start", model, networks, noise).repeat(request.images, 1, 1, 1)
    drawn = torch.from_numpy(noise((request.images, *model.latent_shape)))
    latents = drawn * scheduler.init_noise_sigma if pure else None
    if latents is None:
        latents = scheduler.add_noise(start, drawn, timesteps[:1].repeat(request.images))
    small = torch.nn.functional.interpolate(mask, size=model.latent_shape[1:])
    small = small.repeat(request.images, 1, 1, 1)
    if model.unet_channels == model.latent_shape[0]:
        noise((1, *model.latent_shape))  # of the masked picture, which diffusers encodes here too and does not use
        return Start(latents, timesteps, kept=Kept(scheduler, timesteps, start, drawn, small))
    masked = _encoded((picture * (mask < 0.5)).numpy(), "masked", model, networks, noise)
    return Start(latents, timesteps, torch.cat([small, masked.repeat(request.images, 1, 1, 1)], dim=1))


def _rows(noise: Noise, rows: int) -> Noise:
    return lambda shape: noise((rows, *shape[1:]))


def _encoded(pixels: np.ndarray, label: str, model: Model, networks: Networks, noise: Noise) -> Any:
    """Sample the latents of a picture and scale them; of several draws one row each."""
    import torch
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    moments = networks.call("vae_encoder", label, image=pixels)["moments"]
    distribution = DiagonalGaussianDistribution(torch.from_numpy(moments))
    sample = distribution.mean + distribution.std * torch.from_numpy(noise(tuple(distribution.mean.shape)))
    if (statistics := model.latent_statistics) is None:
        return model.scaling_factor * sample
    mean, deviation = (torch.tensor(values).view(1, -1, 1, 1) for values in statistics)
    return (sample - mean) * model.scaling_factor / deviation


def _skip(request: Request, scheduler: Any) -> Any:
    """Leave out the steps before a picture's strength and return the rest."""
    skipped = max(request.steps - min(int(request.steps * request.strength), request.steps), 0) * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skipped)
    return scheduler.timesteps[skipped:]
