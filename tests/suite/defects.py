"""Forty defects, eight kinds in each of five models, planted in a float16 candidate that is right without them.

The candidate computes with PyTorch's float16 modules; a defect is planted in a module's weights, in what a module
gives, in what a network is given, or in the request's schedule. Sizes are those of real mistakes: one channel, one
normalisation, one step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from parity.backends.pytorch import TorchBackend
from parity.backends.rounded import RoundedBackend
from parity.networks.signature import Component
from parity.pipelines.request import Request

MODELS = ("shapes-sd", "shapes-sd-v", "tiny-sd", "tiny-sd-turbo", "drawn")
KINDS = ("weight", "sign", "eps", "axis", "dtype", "timestep", "scheduler", "layout")
# where each kind is planted, model by model
PLACES = {
    "weight": ("text_encoder", "unet", "vae_decoder", "unet", "text_encoder"),
    "sign": ("unet", "vae_decoder", "text_encoder", "vae_decoder", "unet"),
    "eps": ("vae_decoder", "text_encoder", "unet", "text_encoder", "vae_decoder"),
    "axis": ("unet", "unet", "vae_decoder", "vae_decoder", "unet"),
    "dtype": ("text_encoder", "vae_decoder", "unet", "unet", "text_encoder"),
    "timestep": ("unet",) * 5,
    "scheduler": ("scheduler",) * 5,
    "layout": ("vae_decoder", "unet", "text_encoder", "unet", "vae_decoder"),
}


@dataclass(frozen=True)
class Defect:
    """One planted defect.

    Attributes
    ----------
    kind, model, place : str
        What, in which model, and the component that must be named.
    """

    kind: str
    model: str
    place: str


ALL = [Defect(kind, model, place) for kind in KINDS for model, place in zip(MODELS, PLACES[kind], strict=True)]


class Planted(RoundedBackend):
    """A right float16 candidate, but for one defect."""

    def __init__(self, original: TorchBackend, defect: Defect | None) -> None:
        super().__init__(original, wide="float32")
        self.numerics = "PyTorch cpu float16"
        self._defect = defect

    def _load(self, name: str) -> Component:
        if self._defect is None or name != self._defect.place:
            return super()._load(name)
        self._modules.clear()
        component = super()._load(name)
        module = component._module  # type: ignore[attr-defined]
        self._modules.clear()
        change = _IN_MODULES.get(self._defect.kind)
        if change is not None:
            with torch.no_grad():
                change(module, _side(name))
            return component
        return _Given(name, component, _IN_CALLS[self._defect.kind])


def _side(name: str) -> str:
    return {"vae_decoder": "decoder", "vae_encoder": "encoder"}.get(name, "")


def _named(module: Any, side: str, kind: type) -> list[Any]:
    return [each for path, each in module.named_modules() if path.startswith(side) and isinstance(each, kind)]


def _middle(found: list[Any]) -> Any:
    return found[len(found) // 2]


def _layers(module: Any, side: str) -> list[Any]:
    return _named(module, side, torch.nn.Conv2d) or _named(module, side, torch.nn.Linear)


def _weight(module: Any, side: str) -> None:
    """One of the outputs of the last layer is 5 % too large."""
    _layers(module, side)[-1].weight[0] *= 1.05


def _sign(module: Any, side: str) -> None:
    """One output of a layer has the other sign."""
    _layers(module, side)[-1].weight[0].neg_()


def _eps(module: Any, side: str) -> None:
    """Normalisations have 1e-2 as epsilon, in the place of 1e-5 or 1e-6."""
    for each in _named(module, side, torch.nn.GroupNorm) or _named(module, side, torch.nn.LayerNorm):
        each.eps = 1e-2


def _axis(module: Any, side: str) -> None:
    """One layer's picture comes out with height and width exchanged."""
    layer = _middle([each for each in _named(module, side, torch.nn.Conv2d) if each.kernel_size == (3, 3)])
    layer.register_forward_hook(lambda _, __, output: output.transpose(-1, -2))


def _dtype(module: Any, side: str) -> None:
    """Layers compute in bfloat16: their results have 8 bits."""
    for layer in _layers(module, side):
        layer.register_forward_hook(lambda _, __, output: output.to(torch.bfloat16).to(torch.float16))


_IN_MODULES: dict[str, Callable[[Any, str], None]] = {
    "weight": _weight,
    "sign": _sign,
    "eps": _eps,
    "axis": _axis,
    "dtype": _dtype,
}


class _Given:
    """A network that is given, or gives, something else."""

    def __init__(self, name: str, inner: Component, change: Callable[[dict[str, np.ndarray]], None]) -> None:
        self.name = name
        self._inner = inner
        self._change = change

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        given = dict(inputs)
        self._change(given)
        outputs = dict(self._inner(given))
        self._change(outputs)
        return outputs


def _one_step(tensors: dict[str, np.ndarray]) -> None:
    """Timesteps are off by one."""
    if "timestep" in tensors:
        tensors["timestep"] = np.maximum(tensors["timestep"] - 1, 0)


def _order(tensors: dict[str, np.ndarray]) -> None:
    """Axes are in another order: tokens of the text, channels of the picture, columns of the latents."""
    if "image" in tensors:
        tensors["image"] = np.ascontiguousarray(tensors["image"][:, ::-1])
    elif "sample" in tensors:
        tensors["sample"] = np.ascontiguousarray(tensors["sample"].swapaxes(-1, -2))
    elif "hidden" in tensors and "noise_pred" not in tensors:
        tensors["hidden"] = np.ascontiguousarray(tensors["hidden"][:, ::-1])


_IN_CALLS: dict[str, Callable[[dict[str, np.ndarray]], None]] = {"timestep": _one_step, "layout": _order}


def requested(request: Request, defect: Defect | None) -> Request:
    """Return what the candidate is asked: with another schedule, where that is the defect."""
    if defect is None or defect.kind != "scheduler":
        return request
    return replace(request, scheduler="dpm++")
