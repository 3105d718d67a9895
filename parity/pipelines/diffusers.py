"""How does diffusers turn a request into a picture?

Text to image: encode the two prompts, draw latents, denoise with classifier-free guidance, decode.
Image to image: encode the picture, sample its latents, add noise for the strength, then the same.

The order of operations and of random draws is that of diffusers' ``StableDiffusionPipeline`` and
``StableDiffusionImg2ImgPipeline``; with PyTorch components on the CPU in float32 the pictures are equal bit for bit
(tests/pipelines proves it for every scheduler). All arithmetic here is float32 on the CPU, whoever runs the networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.models.model import Model
from parity.networks.signature import Components, Observe
from parity.pipelines.loop import Networks, denoise
from parity.pipelines.request import Request, read_picture
from parity.pipelines.schedules import diffusers as schedulers
from parity.pipelines.schedules.noise import Drawing, Noise


def run(
    request: Request, model: Model, components: Components, noise: Noise, *, observe: Observe, seed: int = 0
) -> np.ndarray:
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
        The random stream; it is asked for the encoder's sample first (image to image), then for the latents, then by
        the steps of a scheduler that draws.
    observe : callable
        Receives every named point of the run.
    seed : int
        Of the stream, for the scheduler whose noise is a Brownian tree.

    Returns
    -------
    numpy.ndarray
        uint8 (images, height, width, 3), RGB.
    """
    import torch

    networks = Networks(components.__getitem__, observe, latent=(1, *model.latent_shape))
    with torch.inference_mode():
        hidden, guided = _encode_prompts(request, model, networks)
        chosen = schedulers.make(request.scheduler, model.scheduler_config, request.schedule)
        scheduler = Drawing(chosen, noise, seed=seed, eta=request.schedule.eta)
        scheduler.set_timesteps(request.steps)
        if request.task == "txt2img":
            latents = _start_from_noise(request, model, scheduler, noise)
            timesteps = scheduler.timesteps
        else:
            latents, timesteps = _start_from_picture(request, model, networks, scheduler, noise)
        guidance = request.guidance_scale if guided else None
        predict = _Prediction(networks, scheduler, hidden, guidance, request.guidance_rescale)
        latents = denoise(timesteps, latents, predict, scheduler.step, observe)
        return _decode(latents, model, networks)


def _encode_prompts(request: Request, model: Model, networks: Networks) -> tuple[np.ndarray, bool]:
    """Return hidden states (batch, tokens, width), negative prompts first, and whether guidance is used."""
    guided = request.guidance_scale > 1.0
    texts = {"negative": request.negative_prompt, "prompt": request.prompt} if guided else {"prompt": request.prompt}
    # diffusers skips layers for the prompt alone
    skip = {"prompt": {"skip": np.array([request.clip_skip])} if request.clip_skip else {}}
    states = [
        networks.call("text_encoder", label, input_ids=model.tokens(text), **skip.get(label, {}))["hidden"]
        for label, text in texts.items()
    ]
    return np.concatenate([np.repeat(state, request.images, axis=0) for state in states]), guided


def _start_from_noise(request: Request, model: Model, scheduler: Any, noise: Noise) -> Any:
    import torch

    drawn = noise((request.images, *model.latent_shape))
    return torch.from_numpy(drawn) * scheduler.init_noise_sigma


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
    start = torch.cat([model.scaling_factor * sample] * request.images)
    skipped = max(request.steps - min(int(request.steps * request.strength), request.steps), 0) * scheduler.order
    timesteps = scheduler.timesteps[skipped:]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skipped)
    drawn = torch.from_numpy(noise(tuple(start.shape)))
    return scheduler.add_noise(start, drawn, timesteps[:1].repeat(request.images)), timesteps


@dataclass(frozen=True)
class _Prediction:
    """What predicts the noise of a step: both texts' hidden states, and the guidance unless it is off.

    ``rescale`` mixes the guided noise with itself at the deviation of the prompt's, as diffusers' ``guidance_rescale``.
    """

    networks: Networks
    scheduler: Any
    hidden: np.ndarray
    guidance: float | None
    rescale: float

    def __call__(self, label: str, timestep: Any, latents: Any) -> Any:
        import torch

        doubled = latents if self.guidance is None else torch.cat([latents] * 2)
        sample = self.scheduler.scale_model_input(doubled, timestep)
        repeated = np.repeat(timestep.numpy(), sample.shape[0])
        predicted = self.networks.call("unet", label, sample=sample.numpy(), timestep=repeated, hidden=self.hidden)
        noise_pred = torch.from_numpy(predicted["noise_pred"])
        if self.guidance is None:
            return noise_pred
        negative, positive = noise_pred.chunk(2)
        guided = negative + self.guidance * (positive - negative)
        if self.rescale <= 0:
            return guided
        every = list(range(1, guided.ndim))
        scaled = guided * (positive.std(dim=every, keepdim=True) / guided.std(dim=every, keepdim=True))
        return self.rescale * scaled + (1 - self.rescale) * guided


def _decode(latents: Any, model: Model, networks: Networks) -> np.ndarray:
    import torch
    from diffusers.image_processor import VaeImageProcessor

    scaled = (latents / model.scaling_factor).numpy()
    decoded = networks.call("vae_decoder", "final", latents=scaled)["image"]
    unit = VaeImageProcessor(vae_scale_factor=model.vae_scale).postprocess(torch.from_numpy(decoded), output_type="np")
    # what diffusers' numpy_to_pil stores; NaN becomes black, where a bare cast depends on the processor
    image = (np.nan_to_num(unit) * 255).round().astype(np.uint8)
    networks.observe("image", image)
    return image
