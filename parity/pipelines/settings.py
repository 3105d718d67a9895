"""What does one call of an app's release ask for, and how does a release fail?

Facts of the public Swift sources: one stream for each call; Mochi makes a call of its own for each image, with the next
seed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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
    shift : float
        What is added to scaled latents before they are decoded; Stable Diffusion 3's.
    flow_shift : float
        Shift of the noise levels of Stable Diffusion 3.
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
    shift: float = 0.0
    flow_shift: float = 3.0
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
class Material:
    """What a release is given beside its settings.

    Attributes
    ----------
    prompt, negative : numpy.ndarray
        Token ids, shape (1, S).
    image : numpy.ndarray or None
        Starting image, shape (1, 3, H, W), values in [-1, 1].
    controls : tuple of numpy.ndarray
        One control image for each ControlNet, shape (1, 3 or 4, H, W), values in [0, 1].
    xl : bool
        Whether it is the SDXL pipeline: there is a second text encoder.
    sd3 : bool
        Whether it is the pipeline of Stable Diffusion 3.
    third : bool
        Whether T5 is among the models of Stable Diffusion 3.
    embeddings : tuple of numpy.ndarray
        For the task ``multilingual``: token vectors of prompt and negative prompt, each (tokens, 512), as Apple's
        language model gives them. No token stands for their beginning or end, and an empty text has none.
    """

    prompt: np.ndarray
    negative: np.ndarray
    image: np.ndarray | None = None
    controls: tuple[np.ndarray, ...] = ()
    xl: bool = False
    sd3: bool = False
    third: bool = False
    embeddings: tuple[np.ndarray, ...] = ()
