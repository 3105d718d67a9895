"""What is a network, and which tensors go in and out of each?

The names and layouts below are those of diffusers' modules, in float32 and NumPy; a backend translates them to its own
(the Core ML contract has other names, a channels-first context and a fixed batch). Every call is reported to an
observer under ``network/label/tensor``, which is all that a trace needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

import numpy as np

from parity.errors import FormatError, UnsupportedError, UsageError

Observe = Callable[[str, np.ndarray], None]
"""Called with the name of a point of the run and its value; must not modify the value."""

RESIDUALS = "additional_residual_*"
"""Outputs of a ControlNet and inputs of a controlled UNet: numbered from 0, the middle block's last."""


@dataclass(frozen=True)
class Signature:
    """Names of the tensors that a network takes and gives.

    Attributes
    ----------
    inputs : tuple of str
        Always given.
    outputs : tuple of str
        Always returned; the first one is the network's main result.
    further : tuple of str
        Patterns of inputs that some models or tasks have besides.
    also : tuple of str
        Patterns of outputs that some models have besides.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    further: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    @property
    def output(self) -> str:
        """The main result."""
        return self.outputs[0]

    def takes(self, tensor: str) -> bool:
        """Tell whether a tensor of that name is an input."""
        return tensor in self.inputs or any(fnmatchcase(tensor, pattern) for pattern in self.further)

    def gives(self, tensor: str) -> bool:
        """Tell whether a tensor of that name is an output."""
        return tensor in self.outputs or any(fnmatchcase(tensor, pattern) for pattern in self.also)


_UNET = Signature(("sample", "timestep", "hidden"), ("noise_pred",), further=("text_embeds", "time_ids", RESIDUALS))

SIGNATURES: dict[str, Signature] = {
    # input_ids (batch, tokens) int64 -> hidden (batch, tokens, width): SD's last layer, SDXL's and SD3's last but one;
    # SDXL and SD3 also give pooled (batch, width); skip (1,) int64: so many layers earlier
    "text_encoder": Signature(("input_ids",), ("hidden",), further=("skip",), also=("pooled",)),
    "text_encoder_2": Signature(("input_ids",), ("hidden", "pooled"), further=("skip",)),
    # T5 of SD3: input_ids (batch, tokens) int64 -> hidden (batch, tokens, width), the last layer
    "text_encoder_3": Signature(("input_ids",), ("hidden",)),
    # the adapter behind Apple's language model: embeddings (batch, tokens, 512) -> hidden (batch, tokens, width)
    "multilingual_projection": Signature(("embeddings",), ("hidden",)),
    # sample (batch, channels, h, w), timestep (batch,), hidden -> noise_pred like sample;
    # SDXL takes text_embeds (batch, width) and time_ids (batch, 6 or 5), a controlled UNet a ControlNet's residuals
    "unet": _UNET,
    "control-unet": _UNET,
    "refiner": _UNET,
    # SD3's transformer: sample (batch, channels, h, w), timestep (batch,) of 1000 times sigma, hidden, pooled -> flow
    # like sample
    "mmdit": Signature(("sample", "timestep", "hidden", "pooled"), ("flow",)),
    # cond (batch, 3, H, W) in [0, 1] -> residuals
    "controlnet": Signature(
        ("sample", "timestep", "hidden", "cond"), (), further=("text_embeds", "time_ids"), also=(RESIDUALS,)
    ),
    # sample (batch, 3, H, W), timestep (batch,) -> noise_pred like sample
    "unconditional-unet": Signature(("sample", "timestep"), ("noise_pred",)),
    # latents (batch, channels, h, w), already divided by the scaling factor (and shifted) -> image (batch, 3, H, W)
    # in about [-1, 1]
    "vae_decoder": Signature(("latents",), ("image",)),
    # image (batch, 3, H, W) in [-1, 1] -> moments (batch, 2 * channels, h, w): mean and log-variance
    "vae_encoder": Signature(("image",), ("moments",)),
    # the encoder of ml-stable-diffusion 0.2.0 and 0.3.0, which samples, scales and adds noise itself:
    # image, diagonal and noise (1, channels, h, w), signal and sigma (1,) -> latents (1, channels, h, w)
    "noising_encoder": Signature(("image", "diagonal", "noise", "signal", "sigma"), ("latents",)),
    # clip_input (1, 3, 224, 224), picture (1, H, W, 3) in [0, 1] -> unsafe (1,) 0 or 1
    "safety_checker": Signature(("clip_input", "picture"), ("unsafe",)),
}


def kind(name: str) -> str:
    """Return the entry of :data:`SIGNATURES` for a network's name: ``controlnet-2`` is a ``controlnet``.

    Raises
    ------
    UsageError
        There is none; the message lists those that exist.

    >>> kind("controlnet-2"), kind("unet")
    ('controlnet', 'unet')
    """
    found = name.partition("-")[0] if name.startswith("controlnet-") else name
    if found not in SIGNATURES:
        raise UsageError(f"no component named {name!r}; there are {', '.join(SIGNATURES)}")
    return found


def last_layer_only(name: str, inputs: Mapping[str, np.ndarray]) -> None:
    """Refuse a call that asks a converted text encoder for another layer than its last.

    Raises
    ------
    UnsupportedError
        There is an input ``skip``.
    """
    if "skip" in inputs:
        raise UnsupportedError(
            f"{name}: converted, it gives its last layer alone, and clip_skip asks for an earlier one"
        )


def together(name: str) -> str:
    """Return what names the networks that are called in turns, so that all of them must be loaded at once.

    Examples
    --------
    >>> together("controlnet-2"), together("control-unet"), together("vae_encoder"), together("unet")
    ('control', 'control', 'vae', 'unet')
    """
    if kind(name) in ("controlnet", "control-unet"):
        return "control"
    return "vae" if name in ("vae_encoder", "vae_decoder", "noising_encoder") else name


class Component(Protocol):
    """One network that somebody runs."""

    name: str

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Run the network on the inputs named by its signature and return its outputs by name, as float32."""
        ...


Components = Mapping[str, Component]


def call(component: Component, label: str, observe: Observe, **inputs: np.ndarray) -> Mapping[str, np.ndarray]:
    """Run a component and report its inputs and its outputs.

    Parameters
    ----------
    component : Component
        Its name is one that :func:`kind` knows.
    label : str
        Which call of this component it is, e.g. ``step07``.
    observe : callable
        Receives ``name/label/tensor`` and the array for each input and each output.
    **inputs : numpy.ndarray
        The tensors that the signature names.

    Returns
    -------
    mapping of str to numpy.ndarray
        The outputs, float32.

    Raises
    ------
    FormatError
        The component returned something that is not a mapping of its outputs to float32 arrays.
    """
    for name, value in inputs.items():
        observe(f"{component.name}/{label}/{name}", value)
    outputs = checked(component.name, component(inputs))
    for name, value in outputs.items():
        observe(f"{component.name}/{label}/{name}", value)
    return outputs


def checked(name: str, outputs: object) -> Mapping[str, np.ndarray]:
    """Return what a component returned, once it is known to be what its signature promises.

    Raises
    ------
    FormatError
        It is not; the message names the component and what was found.
    """
    signature = SIGNATURES[kind(name)]
    if not isinstance(outputs, Mapping):
        raise FormatError(f"{name}: the backend returned {type(outputs).__name__}, not arrays by name")
    if missing := [wanted for wanted in signature.outputs if wanted not in outputs]:
        raise FormatError(f"{name}: the backend returned {', '.join(outputs) or 'nothing'}, without {missing[0]}")
    for tensor, value in outputs.items():
        if not signature.gives(tensor):
            raise FormatError(f"{name}: the backend returned {tensor!r}, which is no output of this network")
        if not isinstance(value, np.ndarray) or value.dtype != np.float32:
            found = getattr(value, "dtype", type(value).__name__)
            raise FormatError(f"{name}: the backend returned {found} as {tensor}, not a float32 array")
    return outputs
