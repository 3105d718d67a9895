"""What does a release draw, in which order, and which noise level and latents follow from it?

Facts of the public Swift sources: one stream for each call, from which image after image takes its tensors; 0.3.0 draws
an image's latent sample first and then its noise, both as whole tensors; later releases draw all noise first and then
the sample, value by value and once for all images. Mochi makes a call of its own for each image, with the next seed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from parity import streams
from parity.contracts.release import Conventions
from parity.streams.swift import SwiftStream

TRAIN_STEPS = 1000
LAST_SEED = (1 << 32) - 1


class ConsumerFailureError(Exception):
    """The played release crashes or throws; the text is what its user sees.

    Parameters
    ----------
    text : str
        What was found.
    rule : str
        Id of the rule of ``tables/consumers.toml`` that describes it, if there is one.
    """

    def __init__(self, text: str, rule: str = "") -> None:
        super().__init__(text)
        self.rule = rule


@dataclass(frozen=True)
class Settings:
    """One call of a release.

    Attributes
    ----------
    conventions : Conventions
    task : str
        ``txt2img``, ``img2img``, ``controlnet``, ``multi-controlnet``, ``inpaint`` or ``refiner``.
    seed : int
        0 to 2**32 - 1.
    source : str
        Random source: ``numpy``, ``torch`` or ``nvidia``.
    scheduler, spacing : str
    steps, images : int
    strength, guidance : float
    factor : float
        Scale of the VAE's latents.
    refiner_start : float
        Share of the steps after which the refiner takes over.
    refined : bool
        Whether a refiner takes over.
    """

    conventions: Conventions
    task: str
    seed: int = 93
    source: str = "numpy"
    scheduler: str = "pndm"
    spacing: str = "linspace"
    steps: int = 4
    images: int = 1
    strength: float = 0.5
    guidance: float = 7.5
    factor: float = 0.18215
    refiner_start: float = 0.8
    refined: bool = False

    @property
    def noised_steps(self) -> int:
        """Steps times strength, multiplied in Float32 and cut: 29 for 50 steps at a strength of 0.58."""
        return int(np.float32(self.steps) * np.float32(self.strength))

    @property
    def start(self) -> int:
        """Index of the first timestep that is used."""
        return max(self.steps - self.noised_steps, 0) if self.task == "img2img" else 0

    def calls(self) -> list[Settings]:
        """Split into the calls that the release makes: one, or one for each image with the next seed.

        Raises
        ------
        ConsumerFailureError
            A seed is counted beyond 32 bits: the app counts behind its last image, too.
        """
        if self.conventions.images != "seed":
            return [self]
        if self.seed + self.images > LAST_SEED:
            raise ConsumerFailureError("the seed behind the last image overflows", rule="seed-overflow")
        return [replace(self, seed=self.seed + index, images=1) for index in range(self.images)]

    def stream(self) -> SwiftStream:
        """Open the release's random source, freshly seeded."""
        stream = streams.open(f"swift-{self.source}", self.seed)
        assert isinstance(stream, SwiftStream)
        return stream


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
