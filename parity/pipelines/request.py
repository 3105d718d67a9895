"""What is asked of a producer: task, texts, picture, scheduler, steps, guidance?"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from parity.errors import FormatError, MissingError, UsageError
from parity.models.model import Model
from parity.pipelines.schedules import diffusers as schedulers
from parity.pipelines.schedules.diffusers import Schedule

TASK_COMPONENTS: dict[str, tuple[str, ...]] = {
    "txt2img": ("text_encoder", "unet", "vae_decoder"),
    "img2img": ("vae_encoder", "text_encoder", "unet", "vae_decoder"),
}
"""Networks that each task needs with models of SD 1 and 2, in the order in which they are first called."""


@dataclass(frozen=True)
class Request:
    """What is to be drawn.

    Attributes
    ----------
    task : str
        ``txt2img`` or ``img2img``.
    prompt, negative_prompt : str
        The texts; an empty negative prompt is encoded as such.
    scheduler : str
        A key of :data:`parity.pipelines.schedules.diffusers.SCHEDULERS`.
    steps : int
        Denoising steps asked of the scheduler, at least 1.
    guidance_scale : float
        Classifier-free guidance is used above 1, as in diffusers.
    guidance_rescale : float
        Share of the guided noise that is brought to the deviation of the prompt's, in [0, 1]; 0.7 goes with rescaled
        betas.
    clip_skip : int
        Layers of the text encoder that are skipped at its end, for the prompt alone, as in diffusers: 1 is what
        AUTOMATIC1111 and ComfyUI call 2 or -2.
    schedule : Schedule
        How the scheduler is set up otherwise than the model says.
    strength : float
        Image to image only: share of the steps that are run, in (0, 1].
    image : path, optional
        Image to image only: the picture to start from.
    images : int
        Pictures drawn in one call; they share one stream, as one diffusers generator does.
    """

    task: str
    prompt: str
    negative_prompt: str = ""
    scheduler: str = "pndm"
    steps: int = 20
    guidance_scale: float = 7.5
    strength: float = 0.8
    image: Path | None = None
    images: int = 1
    guidance_rescale: float = 0.0
    clip_skip: int = 0
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        if self.task not in TASK_COMPONENTS:
            raise UsageError(f"no task named {self.task!r}; there are {', '.join(TASK_COMPONENTS)}")
        schedulers.check(self.scheduler, self.schedule)
        if not 0 <= self.guidance_rescale <= 1:
            raise UsageError(f"guidance_rescale must lie in [0, 1], not {self.guidance_rescale}")
        if self.clip_skip < 0:
            raise UsageError(f"clip_skip must not be negative, not {self.clip_skip}; 1 skips the last layer")
        if self.steps < 1 or self.images < 1:
            raise UsageError(f"steps and images must be at least 1, not {self.steps} and {self.images}")
        if self.task == "img2img" and self.image is None:
            raise UsageError('img2img needs a picture to start from: image = "picture.png"')
        if self.task == "img2img" and not 0 < self.strength <= 1:
            raise UsageError(f"strength must lie in (0, 1], not {self.strength}")
        if self.task == "img2img" and int(self.steps * self.strength) < 1:
            raise UsageError(f"strength {self.strength} of {self.steps} steps leaves no step to run; raise either")


def read_picture(path: Path, model: Model) -> np.ndarray:
    """Read a picture as the VAE encoder wants it.

    Returns
    -------
    numpy.ndarray
        float32 (1, 3, height, width) in [-1, 1], RGB, resized to the model's size as diffusers does (Lanczos).

    Raises
    ------
    MissingError, FormatError
        No such file, or not a picture that Pillow reads.
    """
    from diffusers.image_processor import VaeImageProcessor

    picture = open_picture(path)
    height, width = model.image_size
    processor = VaeImageProcessor(vae_scale_factor=model.vae_scale)
    return np.asarray(processor.preprocess(picture, height=height, width=width).numpy(), dtype=np.float32)


def open_picture(path: Path) -> Any:
    """Return a picture file as a PIL image in RGB.

    Raises
    ------
    MissingError, FormatError
        No such file, or not a picture that Pillow reads.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            return file.convert("RGB")
    except FileNotFoundError:
        raise MissingError(f"{path}: no such picture") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise FormatError(f"{path}: not a readable picture ({error}); PNG and JPEG work") from None
