"""Which network is traced for a component, and what must it equal?

For every component there are two callables with the contract's inputs in order and its outputs in order: the *module*
that is traced (rewritten where the released converter rewrote) and the *reference*, which calls the original
diffusers and transformers modules the way a diffusers pipeline does. The correctness check compares the converted
package with the reference, so a fault of the rewriting cannot hide.

The form (one or five encoder inputs, flat or two-dimensional time ids, which residuals) follows from the contract's
feature names; this module repeats no table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from parity.convert import workarounds
from parity.convert.folded import fold
from parity.convert.layout import rewrite, shared_copy
from parity.convert.mmdit import Transformer, tokens_last
from parity.convert.text import TextEncoder

LEGACY_SCALE: Final = 0.18215  # written into the graph of the five-input encoder, whatever the VAE's own factor

_RESIDUAL: Final = "additional_residual_"


@dataclass(frozen=True)
class Network:
    """A component ready to be traced.

    Attributes
    ----------
    module : nn.Module
        Takes the contract's inputs in order, returns its outputs in order, in float32.
    reference : callable
        The same by the original modules, which are left as they were.
    """

    module: nn.Module
    reference: Callable[..., tuple[Tensor, ...]]


class _Call(nn.Module):
    """Trace a function of a module."""

    def __init__(self, module: nn.Module, function: Callable[..., tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.module = module
        self.function = function

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return self.function(self.module, *tensors)


def _network(traced: nn.Module, compute: Callable[..., Any], reference: Callable[..., Any]) -> Network:
    module = _Call(traced, compute).eval().requires_grad_(False)
    return Network(module, torch.no_grad()(reference))


def text_encoder(model: Any, *, tokens: int, penultimate: bool, rank: int = 4) -> Network:
    """Return the network of ``text_encoder`` or ``text_encoder_2``; see :class:`parity.convert.text.TextEncoder`."""

    def reference(input_ids: Tensor) -> tuple[Tensor, Tensor]:
        out = model(input_ids.long(), output_hidden_states=True)
        pooled = out.text_embeds if hasattr(out, "text_embeds") else out.pooler_output
        return (out.hidden_states[-2] if penultimate else out.last_hidden_state), pooled

    network = TextEncoder(shared_copy(model), tokens=tokens, penultimate=penultimate, rank=rank)
    return _network(network, lambda module, ids: module(ids), reference)


def denoiser(unet: Any, *, names: Sequence[str], attention: str) -> Network:
    """Return the network of ``unet``, ``refiner`` or ``control-unet``.

    Parameters
    ----------
    unet : UNet2DConditionModel
        Of diffusers.
    names : sequence of str
        The contract's input features in order, with every residual named.
    attention : str
        Kind of attention.
    """
    names = tuple(names)

    def compute(module: Any, *tensors: Tensor) -> tuple[Tensor]:
        return module(**_arguments(dict(zip(names, tensors, strict=True))), return_dict=False)

    def reference(*tensors: Tensor) -> tuple[Tensor]:
        return unet(**keywords(dict(zip(names, tensors, strict=True))), return_dict=False)

    return _network(rewrite(unet, attention), compute, reference)


def keywords(features: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments of a diffusers UNet for the contract's features, the context's tokens first."""
    return _arguments({**features, "encoder_hidden_states": tokens_last(features["encoder_hidden_states"])})


def _arguments(features: Mapping[str, Tensor]) -> dict[str, Any]:
    result: dict[str, Any] = {name: features[name] for name in ("sample", "timestep", "encoder_hidden_states")}
    if "time_ids" in features:
        result["added_cond_kwargs"] = {"time_ids": features["time_ids"], "text_embeds": features["text_embeds"]}
    residuals = tuple(value for name, value in features.items() if name.startswith(_RESIDUAL))
    if residuals:
        result["down_block_additional_residuals"] = residuals[:-1]
        result["mid_block_additional_residual"] = residuals[-1]
    return result


def controlnet(model: Any, *, attention: str) -> Network:
    """Return the network of a ``ControlNetModel``: four inputs, one output a residual, the middle block's last."""

    def compute(module: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        down, middle = module(*tensors, return_dict=False)
        return (*down, middle)

    def reference(sample: Tensor, timestep: Tensor, context: Tensor, image: Tensor) -> tuple[Tensor, ...]:
        return compute(model, sample, timestep, tokens_last(context), image)

    return _network(rewrite(model, attention), compute, reference)


def mmdit(model: Any) -> Network:
    """Return the network of Stable Diffusion 3's transformer; see :class:`parity.convert.mmdit.Transformer`."""

    def reference(latents: Tensor, context: Tensor, pooled: Tensor, timestep: Tensor) -> tuple[Tensor]:
        return model(
            hidden_states=latents,
            timestep=timestep,
            encoder_hidden_states=tokens_last(context),
            pooled_projections=pooled[:, :, 0, 0],
            return_dict=False,
        )

    return _network(Transformer(model), lambda module, *tensors: module(*tensors), reference)


def projected(adapter: Any) -> Network:
    """Return the network of an adapter (1, S, C) to (1, S, D): the UNet's layout, (1, D, 1, S)."""

    def compute(module: Any, embeddings: Tensor) -> tuple[Tensor]:
        return (module(embeddings).transpose(1, 2).unsqueeze(2),)

    def reference(embeddings: Tensor) -> tuple[Tensor]:
        return (torch.stack([adapter(embeddings)[0].T])[:, :, None],)

    return _network(adapter, compute, reference)


def vae_decoder(vae: Any, *, rank: int = 4) -> Network:
    """Return the network from latents, divided by the scale factor, to an image in about [-1, 1].

    ``rank`` is that of the attention's batched products, see :mod:`parity.convert.folded`.
    """

    def compute(module: Any, z: Tensor) -> tuple[Tensor]:
        return (module.decoder(z if module.post_quant_conv is None else module.post_quant_conv(z)),)

    return _network(_copy(vae, rank), compute, lambda z: vae.decode(z, return_dict=False))


def _copy(vae: Any, rank: int) -> nn.Module:
    copy = shared_copy(vae)
    return fold(copy) if rank == 3 else copy


def vae_encoder(vae: Any, *, names: Sequence[str], rank: int = 4) -> Network:
    """Return the network from an image in [-1, 1] to moments, or to noisy latents when the contract has five inputs.

    ``rank`` as for :func:`vae_decoder`.
    """

    def moments(module: Any, image: Tensor) -> Tensor:
        encoded = module.encoder(image)
        return encoded if module.quant_conv is None else module.quant_conv(encoded)

    def sampled(module: Any, image: Tensor, diagonal: Tensor, noise: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor]:
        mean, logvar = moments(module, image).chunk(2, dim=1)
        latent = mean + torch.exp(0.5 * logvar.clamp(-30.0, 20.0)) * diagonal
        return (a * (LEGACY_SCALE * latent) + b * noise,)

    def reference(image: Tensor, *rest: Tensor) -> tuple[Tensor]:
        distribution = vae.encode(image).latent_dist
        if not rest:
            return (distribution.parameters,)
        diagonal, noise, a, b = rest
        return (a * (LEGACY_SCALE * (distribution.mean + distribution.std * diagonal)) + b * noise,)

    if len(names) == 1:
        return _network(_copy(vae, rank), lambda module, image: (moments(module, image),), reference)
    return _network(_copy(vae, rank), sampled, reference)


def safety_checker(checker: Any) -> Network:
    """Return the network from an image, prepared for CLIP and as (1, H, W, 3), to the filtered image and the scores."""

    def compute(module: Any, clip_input: Tensor, images: Tensor, adjustment: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        embedding = module.visual_projection(module.vision_model(clip_input)[1])
        unit = nn.functional.normalize(embedding)
        special = unit @ nn.functional.normalize(module.special_care_embeds).T
        concepts = unit @ nn.functional.normalize(module.concept_embeds).T
        care = (special - module.special_care_embeds_weights + adjustment).amax(dim=1, keepdim=True).gt(0).float()
        scores = concepts - module.concept_embeds_weights + 0.01 * care
        unsafe = scores.amax(dim=1).gt(0).float()[:, None, None, None]
        return images * (1 - unsafe), unsafe, scores

    def reference(clip_input: Tensor, images: Tensor, adjustment: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with workarounds.checking_safety():
            filtered, flags = checker(clip_input, images.clone())
        scores = compute(checker, clip_input, images, adjustment)[2]
        return filtered, torch.tensor(flags).float()[:, None, None, None], scores

    return _network(shared_copy(checker), compute, reference)
