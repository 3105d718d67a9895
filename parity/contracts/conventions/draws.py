"""What does a release draw, in which order, and which noise level and latents follow from it?

Facts of the public Swift sources: one stream for each call; 0.3.0 draws the latent's sample first and then the noise,
both as whole tensors; later releases draw the noise first and then the sample value by value. Schedule constants are
those of Stable Diffusion (scaled-linear betas, 1000 steps, Float32).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from parity import streams
from parity.streams.swift import SwiftStream

TRAIN_STEPS = 1000
SCALE = 0.18215


class ConsumerFailureError(Exception):
    """The played release crashes or throws; the text is what its user sees."""


def timesteps(steps: int) -> list[int]:
    """Timesteps of the package's PNDM scheduler: steps + 1 entries, the second one repeated.

    >>> timesteps(50)[:4]
    [981, 961, 961, 941]
    """
    if steps < 2:
        raise ConsumerFailureError("the process crashes: an empty list of timesteps is unwrapped")
    ratio = TRAIN_STEPS // steps
    forward = [index * ratio + 1 for index in range(steps)]
    return list(reversed([*forward[:-1], forward[-2], forward[-1]]))


def cumulative_alphas() -> np.ndarray:
    """Cumulative products of the scaled-linear schedule in Float32, shape (1000,)."""
    betas = np.linspace(np.float32(0.00085) ** 0.5, np.float32(0.012) ** 0.5, TRAIN_STEPS, dtype=np.float32) ** 2
    return np.cumprod(np.float32(1) - betas, dtype=np.float32)


@dataclass(frozen=True)
class Settings:
    task: str
    release: int
    seed: int
    rng: str
    steps: int
    strength: float
    guidance: float

    @property
    def start(self) -> int:
        """Index of the first timestep that is used."""
        return max(self.steps - int(self.steps * self.strength), 0) if self.task == "img2img" else 0

    def source(self) -> SwiftStream:
        """Open the release's random source, freshly seeded."""
        stream = streams.open(f"swift-{self.rng}", self.seed)
        assert isinstance(stream, SwiftStream)
        return stream


@dataclass(frozen=True)
class Draws:
    """Random numbers of one image: noise of the schedule, noise that samples the latent (img2img)."""

    noise: np.ndarray
    latent: np.ndarray | None


def draw(settings: Settings, shape: tuple[int, ...]) -> Draws:
    """Draw in the release's order: S3 samples the latent first and in one call, later ones last and value by value."""
    source = settings.source()
    if settings.task == "txt2img":
        return Draws(source.normal(shape), None)
    if settings.release == 3:
        latent = source.normal(shape)
        return Draws(source.normal(shape), latent)
    noise = source.normal(shape)
    return Draws(noise, source.normal_each(shape, dtype="float64"))


def noise_level(settings: Settings) -> float:
    """Cumulative alpha at which the starting image is noised."""
    alphas = cumulative_alphas()
    if settings.release == 3:
        kept = settings.steps - int(settings.steps * settings.strength)
        index = min(max(0, TRAIN_STEPS - (TRAIN_STEPS // settings.steps) * kept + 1), TRAIN_STEPS - 1)
        return float(alphas[index])
    return float(alphas[timesteps(settings.steps)[settings.start]])


def starting_latents(settings: Settings, moments: np.ndarray, draws: Draws) -> np.ndarray:
    """Sample, scale and noise the starting image's latent from its moments; shape (1, L, h, w)."""
    assert draws.latent is not None
    mean, logvar = np.split(moments.astype(np.float32), 2, axis=1)
    std = np.exp(np.clip(logvar, -30, 20) / 2)
    latent = (mean + std * draws.latent).astype(np.float32) * np.float32(SCALE)
    level = noise_level(settings)
    return (np.sqrt(level) * latent + np.sqrt(1 - level) * draws.noise).astype(np.float32)


def to_picture(image: np.ndarray) -> np.ndarray:
    return np.clip(image[0].transpose(1, 2, 0) / 2 + 0.5, 0, 1).astype(np.float32)
