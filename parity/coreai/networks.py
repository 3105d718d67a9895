"""Which module stands behind a network's name, so that it can be converted, and how is it called?

Names, inputs, outputs and layouts are those of :mod:`parity.networks.signature`. A module here takes the inputs as
tensors, in the order in which they are named, and calls diffusers' module as its pipelines do; nothing is rewritten.
What differs from the signature: ``skip`` is no input but decides which layer a text encoder gives, and the safety
checker takes ``clip_input`` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from parity.errors import UnsupportedError
from parity.networks.signature import SIGNATURES, kind

Named = Mapping[str, Tensor]


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


class _Named(nn.Module):
    """A module of diffusers or transformers whose tensors have the signature's names."""

    def __init__(self, model: Any, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *tensors: Tensor) -> Any:
        return self.compute(dict(zip(self.names, tensors, strict=True)))

    def compute(self, given: Named) -> Any:
        """Return the outputs, in the order of their names."""
        raise NotImplementedError

    def outputs(self, name: str) -> tuple[str, ...]:
        """Return the names of the outputs."""
        return SIGNATURES[kind(name)].outputs


class _Text(_Named):
    """A CLIP text encoder's last layer, or another one with its norm (SD) or with the pooled text (SDXL, SD3)."""

    xl, skipped = False, 0

    def compute(self, given: Named) -> Any:
        ids = given["input_ids"].long()
        if not self.xl and not self.skipped:
            return self.model(ids)[0]
        result = self.model(ids, output_hidden_states=True)
        hidden = result.hidden_states[-1 - self.skipped - int(self.xl)]
        if not self.xl:
            return getattr(self.model, "text_model", self.model).final_layer_norm(hidden)
        pooled = result.text_embeds if hasattr(result, "text_embeds") else result.pooler_output
        return hidden, pooled

    def outputs(self, name: str) -> tuple[str, ...]:
        return ("hidden", "pooled") if self.xl else ("hidden",)


class _T5(_Named):
    def compute(self, given: Named) -> Tensor:
        return self.model(given["input_ids"].long())[0]


class _Denoiser(_Named):
    """A UNet with text; SDXL's, one that takes a ControlNet's residuals, or both."""

    def compute(self, given: Named) -> Tensor:
        options: dict[str, Any] = _sizes(given)
        residuals = [given[name] for name in self.names if name.startswith("additional_residual_")]
        if residuals:
            options |= {
                "down_block_additional_residuals": tuple(residuals[:-1]),
                "mid_block_additional_residual": residuals[-1],
            }
        first = (given["sample"], given["timestep"], given["hidden"])
        return self.model(*first, return_dict=False, **options)[0]


class _Unconditional(_Named):
    def compute(self, given: Named) -> Tensor:
        return self.model(given["sample"], given["timestep"], return_dict=False)[0]


class _Flow(_Named):
    """Stable Diffusion 3's transformer."""

    def compute(self, given: Named) -> Tensor:
        return self.model(
            hidden_states=given["sample"],
            timestep=given["timestep"],
            encoder_hidden_states=given["hidden"],
            pooled_projections=given["pooled"],
            return_dict=False,
        )[0]


class _ControlNet(_Named):
    def compute(self, given: Named) -> tuple[Tensor, ...]:
        first = [given[name] for name in ("sample", "timestep", "hidden", "cond")]
        down, middle = self.model(*first, return_dict=False, **_sizes(given))
        return (*down, middle)

    def outputs(self, name: str) -> tuple[str, ...]:
        return tuple(f"additional_residual_{index}" for index in range(len(self.model.controlnet_down_blocks) + 1))


class _Decoder(_Named):
    def compute(self, given: Named) -> Tensor:
        return self.model.decode(given["latents"], return_dict=False)[0]


class _Encoder(_Named):
    def compute(self, given: Named) -> Tensor:
        return self.model.encode(given["image"]).latent_dist.parameters


class _NoisingEncoder(_Named):
    def compute(self, given: Named) -> Tensor:
        found = self.model.encode(given["image"]).latent_dist
        sampled = self.model.config.scaling_factor * (found.mean + found.std * given["diagonal"])
        return given["signal"] * sampled + given["sigma"] * given["noise"]


class _Checker(_Named):
    """The safety checker's flag; diffusers' own forward goes through NumPy and rounds scores to three places."""

    def compute(self, given: Named) -> Tensor:
        embedding = functional.normalize(self.model.visual_projection(self.model.vision_model(given["clip_input"])[1]))
        special, concepts = (
            embedding @ functional.normalize(known).T
            for known in (self.model.special_care_embeds, self.model.concept_embeds)
        )
        care = ((special - self.model.special_care_embeds_weights).amax(dim=1, keepdim=True) > _ROUNDED).float()
        scores = concepts - self.model.concept_embeds_weights + 0.01 * care
        return (scores.amax(dim=1) > _ROUNDED).float()


_ROUNDED = 0.0005  # what is no larger is zero at three places

_MODULES: dict[str, type[_Named]] = {
    "text_encoder": _Text,
    "text_encoder_2": _Text,
    "text_encoder_3": _T5,
    "unet": _Denoiser,
    "control-unet": _Denoiser,
    "refiner": _Denoiser,
    "mmdit": _Flow,
    "controlnet": _ControlNet,
    "unconditional-unet": _Unconditional,
    "vae_decoder": _Decoder,
    "vae_encoder": _Encoder,
    "noising_encoder": _NoisingEncoder,
    "safety_checker": _Checker,
}


def network(
    name: str, module: Any, inputs: Mapping[str, np.ndarray], *, dtype: torch.dtype, xl: bool = False, skipped: int = 0
) -> Network:
    """Return a network for given inputs.

    Parameters
    ----------
    name : str
        A network that :func:`parity.networks.signature.kind` knows.
    module : nn.Module
        The original, in ``dtype``.
    inputs : mapping of str to ndarray
        Their shapes are those of the converted network.
    dtype : torch.dtype
        Of the network's arithmetic.
    xl : bool
        Whether a text encoder is SDXL's or SD3's, whose last layer but one is used.
    skipped : int
        Layers of a text encoder that are skipped at its end.

    Raises
    ------
    UnsupportedError
        No module is written for this network.
    """
    if kind(name) not in _MODULES:
        raise UnsupportedError(f"Core AI: a {name} is not converted; {', '.join(_MODULES)} are")
    wrapped = _MODULES[kind(name)](module, tuple(inputs)).eval()
    if isinstance(wrapped, _Text):
        wrapped.xl, wrapped.skipped = xl, skipped
    return Network(wrapped, {key: example(key, array, dtype) for key, array in inputs.items()}, wrapped.outputs(name))


def example(name: str, array: np.ndarray, dtype: torch.dtype) -> Tensor:
    """Return a tensor as Core AI takes it: ids as int32, timesteps as float32, the rest in the network's dtype."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if name == "input_ids":
        return tensor.to(torch.int32)
    return tensor.to(torch.float32 if name == "timestep" else dtype)


def _sizes(given: Named) -> dict[str, Any]:
    """Return the argument of SDXL's pooled text and sizes; nothing for other families."""
    if "time_ids" not in given:
        return {}
    return {"added_cond_kwargs": {name: given[name] for name in ("text_embeds", "time_ids")}}
