"""What does a release draw, in which order, and which noise level and latents follow from it?

Facts of the public Swift sources: one stream for each call, from which image after image takes its tensors; 0.3.0 draws
an image's latent sample first and then its noise, both as whole tensors; later releases draw all noise first and then
the sample, value by value and once for all images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.pipelines.settings import TRAIN_STEPS, ConsumerFailureError, Settings


@dataclass(frozen=True)
class Draws:
    """Random numbers of one image: noise of the schedule, noise that samples the latent (img2img)."""

    noise: np.ndarray
    latent: np.ndarray | None = None


def draw(settings: Settings, shape: tuple[int, ...]) -> list[Draws]:
    """Draw for all images of a call in the release's order."""
    stream = settings.stream()
    if settings.task == "img2img" and settings.conventions.encoder == "five":
        found = []
        for _ in range(settings.images):
            sample = stream.normal(shape)
            found.append(Draws(stream.normal(shape), sample))
        return found
    noise = [stream.normal(shape) for _ in range(settings.images)]
    latent = stream.normal_each(shape, dtype="float64") if settings.task == "img2img" else None
    return [Draws(values, latent) for values in noise]


def cumulative_alphas() -> np.ndarray:
    """Cumulative products of the scaled-linear schedule in Float32, shape (1000,)."""
    first, last = np.sqrt(np.float32(0.00085)), np.sqrt(np.float32(0.012))
    roots = np.arange(TRAIN_STEPS, dtype=np.float32) * ((last - first) / np.float32(TRAIN_STEPS - 1)) + first
    return np.cumprod(np.float32(1) - roots * roots, dtype=np.float32)


def noise_level(settings: Settings, timesteps: list[int]) -> float:
    """Cumulative alpha at which the starting image is noised.

    Raises
    ------
    ConsumerFailureError
        The strength leaves no step: the release indexes past its list and crashes.
    """
    alphas = cumulative_alphas()
    if settings.start > len(timesteps):
        raise ConsumerFailureError("the process crashes: a strength below 0 begins behind the end of the list")
    if settings.conventions.encoder == "five":
        kept = settings.steps - settings.noised_steps
        index = min(max(0, TRAIN_STEPS - (TRAIN_STEPS // settings.steps) * kept + 1), TRAIN_STEPS - 1)
        return float(alphas[index])
    if settings.start >= len(timesteps):
        text = "the process crashes: the strength leaves no step, the list is indexed past its end"
        raise ConsumerFailureError(text, rule="strength-too-small")
    return float(alphas[timesteps[settings.start]])


def starting_latents(settings: Settings, moments: np.ndarray, draws: Draws, level: float) -> np.ndarray:
    """Sample, scale and noise the starting image's latent from its moments; shape (1, L, h, w).

    Raises
    ------
    ConsumerFailureError
        The encoder's latents have another shape than the UNet's.
    """
    assert draws.latent is not None
    mean, logvar = np.split(moments.astype(np.float32), 2, axis=1)
    if mean.shape != draws.noise.shape:
        text = f"the encoder's latents are {mean.shape}, the UNet's {draws.noise.shape}"
        raise ConsumerFailureError(text, rule="encoder-size")
    std = np.exp(np.clip(logvar, -30, 20) / 2)
    latent = (mean + std * draws.latent).astype(np.float32) * np.float32(settings.factor)
    return (np.sqrt(level) * latent + np.sqrt(1 - level) * draws.noise).astype(np.float32)


def hidden_holes(image: np.ndarray, *, holes: bool) -> np.ndarray:
    """Turn a control image (1, 3 or 4, H, W) in [0, 1] into what the ControlNet gets: transparent pixels become -1."""
    colours = image[:, :3].astype(np.float32)
    if holes and image.shape[1] == 4:
        colours = np.where(image[:, 3:] == 0, np.float32(-1), colours)
    return colours


def to_pictures(image: Any) -> np.ndarray:
    """Turn the decoder's (n, 3, H, W) into pictures (n, H, W, 3) in [0, 1]."""
    return np.clip(np.asarray(image).transpose(0, 2, 3, 1) / 2 + 0.5, 0, 1).astype(np.float32)
