"""The networks of Stable Diffusion as modules that can be converted, in diffusers' own layouts.

A network's ``forward`` takes tensors under the names below, in order, and calls the original module as diffusers'
pipelines do; nothing is rewritten.

| network | inputs | outputs |
|---|---|---|
| ``text_encoder`` | input_ids | hidden (and hidden_penultimate, pooled for SDXL) |
| ``unet`` | sample, timestep, hidden (SDXL: text_embeds, time_ids; a ControlNet's: residual_0 …) | noise_pred |
| ``unet`` without text | sample, timestep | noise_pred |
| ``controlnet`` | sample, timestep, hidden, image | residual_0 …, the middle block's last |
| ``vae_decoder`` | latents, divided by the scaling factor | image |
| ``vae_encoder`` | image | moments |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from parity.networks.signature import SIGNATURES


@dataclass(frozen=True)
class Network:
    """A network to convert.

    Attributes
    ----------
    module : nn.Module
        In evaluation mode, in the original's dtype.
    inputs : dict of str to Tensor
        One example for each input, in order.
    outputs : tuple of str
        Names of the results, in order.
    """

    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]

    def compute(self) -> dict[str, np.ndarray]:
        """Return what PyTorch computes of the examples."""
        with torch.inference_mode():
            results = self.module(*self.inputs.values())
        tensors = results if isinstance(results, tuple) else (results,)
        return {name: tensor.numpy() for name, tensor in zip(self.outputs, tensors, strict=True)}


class TextEncoder(nn.Module):
    """A CLIP text encoder; of SDXL's encoders the last layer but one and the projection, too."""

    def __init__(self, model: Any, *, penultimate: bool) -> None:
        super().__init__()
        self.model, self.penultimate = model, penultimate

    def forward(self, input_ids: Tensor) -> Any:
        result = self.model(input_ids.long(), output_hidden_states=self.penultimate)
        if not self.penultimate:
            return result[0]
        pooled = result.text_embeds if hasattr(result, "text_embeds") else result.pooler_output
        return result.last_hidden_state, result.hidden_states[-2], pooled


class Denoiser(nn.Module):
    """A UNet with text; ``extra`` says what follows: SDXL's two, or a ControlNet's residuals."""

    def __init__(self, model: Any, *, extra: str = "") -> None:
        super().__init__()
        self.model, self.extra = model, extra

    def forward(self, sample: Tensor, timestep: Tensor, hidden: Tensor, *rest: Tensor) -> Tensor:
        options: dict[str, Any] = {}
        if self.extra == "sdxl":
            options["added_cond_kwargs"] = {"text_embeds": rest[0], "time_ids": rest[1]}
        elif self.extra == "residuals":
            options = {"down_block_additional_residuals": rest[:-1], "mid_block_additional_residual": rest[-1]}
        return self.model(sample, timestep, encoder_hidden_states=hidden, return_dict=False, **options)[0]


class Unconditional(nn.Module):
    """A UNet without text."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return self.model(sample, timestep, return_dict=False)[0]


class ControlNet(nn.Module):
    """A ControlNet with its condition picture."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, sample: Tensor, timestep: Tensor, hidden: Tensor, image: Tensor) -> tuple[Tensor, ...]:
        down, middle = self.model(sample, timestep, hidden, image, return_dict=False)
        return (*down, middle)


class Decoder(nn.Module):
    """A VAE from latents to a picture."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.model = vae

    def forward(self, latents: Tensor) -> Tensor:
        return self.model.decode(latents, return_dict=False)[0]


class Encoder(nn.Module):
    """A VAE from a picture to mean and log-variance."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.model = vae

    def forward(self, image: Tensor) -> Tensor:
        return self.model.encode(image).latent_dist.parameters


def component(name: str, module: Any, inputs: dict[str, np.ndarray], *, dtype: torch.dtype) -> Network:
    """Return a component of the tasks (:mod:`parity.networks.signature`) for given inputs."""
    wrap: dict[str, Callable[[Any], nn.Module]] = {
        "text_encoder": partial(TextEncoder, penultimate=False),
        "unet": Denoiser,
        "vae_decoder": Decoder,
        "vae_encoder": Encoder,
    }
    examples = {key: example(key, array, dtype) for key, array in inputs.items()}
    return Network(wrap[name](module).eval(), examples, (SIGNATURES[name].output,))


def example(name: str, array: np.ndarray, dtype: torch.dtype) -> Tensor:
    """Return a tensor as Core AI takes it: ids as int32, timesteps as float32, the rest in the network's dtype."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if name == "input_ids":
        return tensor.to(torch.int32)
    return tensor.to(torch.float32 if name == "timestep" else dtype)


def all_of(parts: dict[str, Any], *, tokens: int = 77) -> dict[str, Network]:
    """Return every network of a model with seeded examples in the sizes of its configuration.

    Parameters
    ----------
    parts : dict
        diffusers modules by part: ``text_encoder``, ``text_encoder_2``, ``unet``, ``controlnet``, ``vae``.
    tokens : int
        Length of the text.
    """
    draw = np.random.default_rng(0)

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(draw.standard_normal(shape, dtype=np.float32))

    found: dict[str, Network] = {}
    unet = parts["unet"]
    xl = getattr(unet.config, "addition_embed_type", None) == "text_time"
    for part in ("text_encoder", "text_encoder_2"):
        if part in parts:
            vocabulary = parts[part].config.vocab_size
            ids = torch.from_numpy(draw.integers(0, vocabulary, (2, tokens), dtype=np.int32))
            names = ("hidden", "hidden_penultimate", "pooled") if xl else ("hidden",)
            found[part] = Network(TextEncoder(parts[part], penultimate=xl).eval(), {"input_ids": ids}, names)
    size = unet.config.sample_size
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    noise = {"sample": normal(2, unet.config.in_channels, height, width), "timestep": torch.tensor([501.0, 501.0])}
    if "cross_attention_dim" not in unet.config:
        return {"unet": Network(Unconditional(unet).eval(), noise, ("noise_pred",))}
    inputs = noise | {"hidden": normal(2, tokens, unet.config.cross_attention_dim)}
    extra = {}
    if xl:
        pooled = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
        extra = {"text_embeds": normal(2, pooled), "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 2)}
    found["unet"] = Network(Denoiser(unet, extra="sdxl" if xl else "").eval(), inputs | extra, ("noise_pred",))
    if "controlnet" in parts:
        found |= _controlled(unet, parts["controlnet"], inputs, normal(2, 3, 8 * height, 8 * width))
    if "vae" in parts:
        factor = 2 ** (len(parts["vae"].config.block_out_channels) - 1)
        latents = normal(1, parts["vae"].config.latent_channels, height, width)
        found["vae_decoder"] = Network(Decoder(parts["vae"]).eval(), {"latents": latents}, ("image",))
        image = normal(1, 3, height * factor, width * factor).clamp(-1, 1)
        found["vae_encoder"] = Network(Encoder(parts["vae"]).eval(), {"image": image}, ("moments",))
    return found


def _controlled(unet: Any, net: Any, inputs: dict[str, Tensor], image: Tensor) -> dict[str, Network]:
    module = ControlNet(net).eval()
    factor = 2 ** (len(net.config.conditioning_embedding_out_channels) - 1)
    size = [edge * factor for edge in inputs["sample"].shape[2:]]
    image = nn.functional.interpolate(image, size=size).abs()
    with torch.inference_mode():
        residuals = [value.clone() for value in module(*inputs.values(), image)]
    names = tuple(f"residual_{index}" for index in range(len(residuals)))
    control = Network(
        Denoiser(unet, extra="residuals").eval(), inputs | dict(zip(names, residuals, strict=True)), ("noise_pred",)
    )
    return {"controlnet": Network(module, inputs | {"image": image}, names), "control-unet": control}
