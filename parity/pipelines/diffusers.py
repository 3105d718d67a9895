"""How does each task turn a request into a picture?

Text to image: encode the two prompts, draw latents, denoise with classifier-free guidance, decode.
Image to image: encode the picture, sample its latents, add noise for the strength, then the same.

The order of operations and of random draws is that of diffusers' ``StableDiffusionPipeline`` and
``StableDiffusionImg2ImgPipeline``; with PyTorch components on the CPU in float32 the pictures are equal bit for bit
(tests/pipelines proves it for every scheduler). All arithmetic here is float32 on the CPU, whoever runs the networks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from parity.errors import FormatError, MissingError, UsageError
from parity.models.model import Model
from parity.networks.signature import TASK_COMPONENTS, Components, Observe, call
from parity.pipelines.schedules import diffusers as schedulers

Noise = Callable[[tuple[int, ...]], np.ndarray]
"""Gives the next standard normal tensor of a stream, float32, of the shape asked for."""


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

    def __post_init__(self) -> None:
        if self.task not in TASK_COMPONENTS:
            raise UsageError(f"no task named {self.task!r}; there are {', '.join(TASK_COMPONENTS)}")
        schedulers.check(self.scheduler)
        if self.steps < 1 or self.images < 1:
            raise UsageError(f"steps and images must be at least 1, not {self.steps} and {self.images}")
        if self.task == "img2img" and self.image is None:
            raise UsageError('img2img needs a picture to start from: image = "picture.png"')
        if self.task == "img2img" and not 0 < self.strength <= 1:
            raise UsageError(f"strength must lie in (0, 1], not {self.strength}")
        if self.task == "img2img" and int(self.steps * self.strength) < 1:
            raise UsageError(f"strength {self.strength} of {self.steps} steps leaves no step to run; raise either")


def run(request: Request, model: Model, components: Components, noise: Noise, *, observe: Observe) -> np.ndarray:
    """Draw the pictures of a request.

    Parameters
    ----------
    request : Request
        What to draw.
    model : Model
        Tokenizer, scheduler configuration and geometry.
    components : mapping
        The networks, by the names in ``TASK_COMPONENTS[request.task]``, from any mixture of backends.
    noise : callable
        The random stream; it is asked for the encoder's sample first (image to image), then for the latents.
    observe : callable
        Receives every named point of the run.

    Returns
    -------
    numpy.ndarray
        uint8 (images, height, width, 3), RGB.
    """
    import torch

    with torch.inference_mode():
        hidden, guided = _encode_prompts(request, model, components, observe)
        scheduler = schedulers.make(request.scheduler, model.scheduler_config)
        scheduler.set_timesteps(request.steps)
        if request.task == "txt2img":
            latents = _start_from_noise(request, model, scheduler, noise)
            timesteps = scheduler.timesteps
        else:
            latents, timesteps = _start_from_picture(request, model, components, scheduler, noise, observe)
        observe("latents/initial", latents.numpy())
        for index, timestep in enumerate(timesteps):
            latents = _step(index, timestep, latents, scheduler, components, hidden, guided, request, observe)
        return _decode(latents, model, components, observe)


def _encode_prompts(
    request: Request, model: Model, components: Components, observe: Observe
) -> tuple[np.ndarray, bool]:
    """Return hidden states (batch, tokens, width), negative prompts first, and whether guidance is used."""
    encoder = components["text_encoder"]
    guided = request.guidance_scale > 1.0
    texts = {"negative": request.negative_prompt, "prompt": request.prompt} if guided else {"prompt": request.prompt}
    states = [call(encoder, label, observe, input_ids=model.tokens(text)) for label, text in texts.items()]
    return np.concatenate([np.repeat(state, request.images, axis=0) for state in states]), guided


def _start_from_noise(request: Request, model: Model, scheduler: Any, noise: Noise) -> Any:
    import torch

    drawn = noise((request.images, *model.latent_shape))
    return torch.from_numpy(drawn) * scheduler.init_noise_sigma


def _start_from_picture(
    request: Request, model: Model, components: Components, scheduler: Any, noise: Noise, observe: Observe
) -> tuple[Any, Any]:
    import torch
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    assert request.image is not None  # Request refuses it
    pixels = read_picture(request.image, model)
    moments = call(components["vae_encoder"], "start", observe, image=pixels)
    distribution = DiagonalGaussianDistribution(torch.from_numpy(moments))
    sample = distribution.mean + distribution.std * torch.from_numpy(noise(tuple(distribution.mean.shape)))
    start = torch.cat([model.scaling_factor * sample] * request.images)
    skipped = max(request.steps - min(int(request.steps * request.strength), request.steps), 0) * scheduler.order
    timesteps = scheduler.timesteps[skipped:]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skipped)
    drawn = torch.from_numpy(noise(tuple(start.shape)))
    return scheduler.add_noise(start, drawn, timesteps[:1].repeat(request.images)), timesteps


def _step(
    index: int,
    timestep: Any,
    latents: Any,
    scheduler: Any,
    components: Components,
    hidden: np.ndarray,
    guided: bool,
    request: Request,
    observe: Observe,
) -> Any:
    import torch

    doubled = torch.cat([latents] * 2) if guided else latents
    sample = scheduler.scale_model_input(doubled, timestep)
    predicted = call(
        components["unet"],
        f"step{index:02d}",
        observe,
        sample=sample.numpy(),
        timestep=np.repeat(timestep.numpy(), sample.shape[0]),
        hidden=hidden,
    )
    noise_pred = torch.from_numpy(predicted)
    if guided:
        negative, positive = noise_pred.chunk(2)
        noise_pred = negative + request.guidance_scale * (positive - negative)
    latents = scheduler.step(noise_pred, timestep, latents, return_dict=False)[0]
    observe(f"latents/step{index:02d}", latents.numpy())
    return latents


def _decode(latents: Any, model: Model, components: Components, observe: Observe) -> np.ndarray:
    import torch
    from diffusers.image_processor import VaeImageProcessor

    decoded = call(components["vae_decoder"], "final", observe, latents=(latents / model.scaling_factor).numpy())
    unit = VaeImageProcessor(vae_scale_factor=model.vae_scale).postprocess(torch.from_numpy(decoded), output_type="np")
    # what diffusers' numpy_to_pil stores; NaN becomes black, where a bare cast depends on the processor
    image = (np.nan_to_num(unit) * 255).round().astype(np.uint8)
    observe("image", image)
    return image


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
