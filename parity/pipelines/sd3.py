"""How does diffusers turn a request into a picture with Stable Diffusion 3?

The two CLIP encoders' last hidden states but one stand side by side, filled up with zeros to T5's width; T5's tokens
follow (zeros where a model is used without T5), and both pooled embeddings condition the transformer. Latents start
from plain noise, the transformer predicts a flow, and the VAE's latents are scaled *and* shifted.

The order of operations and of random draws is that of diffusers' ``StableDiffusion3Pipeline`` and
``StableDiffusion3Img2ImgPipeline``; with PyTorch components on the CPU in float32 latents and pictures are equal bit
for bit (tests/pipelines/test_sd3.py). Not drawn: guidance that skips layers, image prompts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np

from parity.errors import UsageError
from parity.models import tokens
from parity.models.model import Model
from parity.networks.signature import Components, Observe
from parity.pipelines.loop import Networks, denoise
from parity.pipelines.request import Request, read_picture
from parity.pipelines.schedules import flow
from parity.pipelines.schedules.diffusers import Schedule
from parity.pipelines.schedules.noise import Noise

T5_TOKENS: Final = 77
"""Tokens of T5 in a run of the suite, as many as converted transformers take; diffusers' own default is 256."""


def components(request: Request, model: Model) -> tuple[str, ...]:
    """Return the networks that a request needs, in the order in which they are first called."""
    start = ("vae_encoder",) if request.task == "img2img" else ()
    third = ("text_encoder_3",) if model.has("text_encoder_3") else ()
    return (*start, "text_encoder", "text_encoder_2", *third, "mmdit", "vae_decoder")


def run(
    request: Request,
    model: Model,
    components: Components,
    noise: Noise,
    *,
    observe: Observe,
    t5_tokens: int = T5_TOKENS,
) -> np.ndarray:
    """Draw the pictures of a request.

    Parameters
    ----------
    request : Request
        What to draw; its scheduler is one of :data:`parity.pipelines.schedules.flow.SCHEDULERS`.
    model : Model
        A Stable Diffusion 3 checkpoint.
    components : mapping
        The networks that :func:`components` names, from any mixture of backends.
    noise : callable
        The random stream; it is asked for the encoder's sample first (image to image), then for the latents.
    observe : callable
        Receives every named point of the run.
    t5_tokens : int
        Tokens that T5's part of the text has (``max_sequence_length``), with T5 or without.

    Returns
    -------
    numpy.ndarray
        uint8 (images, height, width, 3), RGB.

    Raises
    ------
    UsageError
        A scheduler that takes no flow, or what flow models do not have.
    """
    import torch

    _check(request)
    networks = Networks(components.__getitem__, observe, latent=(1, *model.latent_shape))
    with torch.inference_mode():
        text = encode(request, model, networks, t5_tokens)
        patch = int(model.config("transformer").get("patch_size", 2))
        _, height, width = model.latent_shape
        patches = (height // patch) * (width // patch)
        scheduler = flow.make(request.scheduler, model.scheduler_config, tokens=patches, steps=request.steps)
        timesteps = scheduler.timesteps
        if request.task == "img2img":
            latents, timesteps = _start_from_picture(request, model, networks, scheduler, noise)
        else:
            latents = torch.from_numpy(noise((request.images, *model.latent_shape)))
        step = partial(scheduler.step, return_dict=False)
        predict = Prediction(networks, text, request.guidance_scale if text.guided else None)
        latents = denoise(timesteps, latents, predict, lambda *given: step(*given)[0], observe)
        return _decode(latents, model, networks)


def _check(request: Request) -> None:
    if request.guidance_rescale:
        raise UsageError("guidance_rescale: the pipeline of Stable Diffusion 3 has none")
    if request.schedule != Schedule():
        raise UsageError(
            "schedule: spacing, kind of prediction and betas are those of models that predict noise; Stable Diffusion "
            "3 takes its shift from scheduler/scheduler_config.json"
        )


@dataclass(frozen=True)
class Text:
    """What the transformer is told.

    Attributes
    ----------
    hidden : numpy.ndarray
        (batch, tokens, width), negative prompts first.
    pooled : numpy.ndarray
        (batch, width), the same rows.
    guided : bool
        Whether there are negative rows.
    """

    hidden: np.ndarray
    pooled: np.ndarray
    guided: bool


def encode(request: Request, model: Model, networks: Networks, t5_tokens: int) -> Text:
    """Encode the prompts of a request."""
    guided = request.guidance_scale > 1.0
    texts = {"prompt": request.prompt, **({"negative": request.negative} if guided else {})}
    width = int(model.config("transformer")["joint_attention_dim"])
    skips = {"prompt": request.clip_skip}  # of the prompt alone, as in diffusers
    found = {
        label: _encode(model, networks, label, text, width, t5_tokens, skip=skips.get(label, 0))
        for label, text in texts.items()
    }
    rows = [found[label] for label in ("negative", "prompt") if label in found]
    hidden, pooled = (
        np.concatenate([np.repeat(row[part], request.images, axis=0) for row in rows]) for part in range(2)
    )
    return Text(hidden, pooled, guided)


def _encode(
    model: Model, networks: Networks, label: str, text: str, width: int, t5_tokens: int, *, skip: int
) -> tuple[np.ndarray, np.ndarray]:
    location = model.location
    more = {"skip": np.array([skip])} if skip else {}
    limit = tokens.tokenizer(location, "tokenizer").model_max_length  # both encoders' length is the first tokenizer's
    clips = [
        networks.call(
            f"text_encoder{end}", label, input_ids=tokens.ids(location, f"tokenizer{end}", text, length=limit), **more
        )
        for end in ("", "_2")
    ]
    third = np.zeros((1, t5_tokens, width), np.float32)
    if model.has("text_encoder_3"):
        ids = tokens.ids(location, "tokenizer_3", text, length=t5_tokens)
        third = networks.call("text_encoder_3", label, input_ids=ids)["hidden"]
    return joint([clip["hidden"] for clip in clips], third), np.concatenate([clip["pooled"] for clip in clips], axis=1)


def joint(clips: list[np.ndarray], third: np.ndarray) -> np.ndarray:
    """Join hidden states (n, tokens, width): CLIP's side by side, filled up with zeros, then T5's tokens."""
    both = np.concatenate(clips, axis=2)
    filled = np.zeros((*both.shape[:2], third.shape[2]), np.float32)
    filled[:, :, : both.shape[2]] = both
    return np.concatenate([filled, third], axis=1)


@dataclass(frozen=True)
class Prediction:
    """What predicts the flow of a step: both texts, and the guidance unless it is off."""

    networks: Networks
    text: Text
    guidance: float | None

    def __call__(self, label: str, timestep: Any, latents: Any) -> Any:
        import torch

        sample = latents if self.guidance is None else torch.cat([latents] * 2)
        predicted = self.networks.call(
            "mmdit",
            label,
            sample=sample.numpy(),
            timestep=np.repeat(timestep.numpy(), sample.shape[0]),
            hidden=self.text.hidden,
            pooled=self.text.pooled,
        )
        found = torch.from_numpy(predicted["flow"])
        if self.guidance is None:
            return found
        negative, positive = found.chunk(2)
        return negative + self.guidance * (positive - negative)


def _start_from_picture(
    request: Request, model: Model, networks: Networks, scheduler: Any, noise: Noise
) -> tuple[Any, Any]:
    import torch
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    assert request.image is not None  # Request refuses it
    pixels = read_picture(request.image, model)
    moments = networks.call("vae_encoder", "start", image=pixels)["moments"]
    distribution = DiagonalGaussianDistribution(torch.from_numpy(moments))
    sample = distribution.mean + distribution.std * torch.from_numpy(noise(tuple(distribution.mean.shape)))
    start = torch.cat([(sample - model.shift_factor) * model.scaling_factor] * request.images)
    run = min(request.steps * request.strength, request.steps)
    skipped = int(max(request.steps - run, 0)) * scheduler.order
    timesteps = scheduler.timesteps[skipped:]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skipped)
    drawn = torch.from_numpy(noise(tuple(start.shape)))
    return scheduler.scale_noise(start, timesteps[:1].repeat(request.images), drawn), timesteps


def _decode(latents: Any, model: Model, networks: Networks) -> np.ndarray:
    import torch
    from diffusers.image_processor import VaeImageProcessor

    scaled = ((latents / model.scaling_factor) + model.shift_factor).numpy()
    decoded = networks.call("vae_decoder", "final", latents=scaled)["image"]
    unit = VaeImageProcessor(vae_scale_factor=model.vae_scale).postprocess(torch.from_numpy(decoded), output_type="np")
    image = (np.nan_to_num(unit) * 255).round().astype(np.uint8)
    networks.observe("image", image)
    return image
