"""What is a component, and which tensors go in and out of each?

The names and layouts below are those of diffusers' modules, in float32 and NumPy; a backend translates them to its own
(the Core ML contract has other names, a channels-first context and a fixed batch). Every call is reported to an
observer under ``component/label/tensor``, which is all that a trace needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from parity.errors import FormatError

Observe = Callable[[str, np.ndarray], None]
"""Called with the name of a point of the run and its value; must not modify the value."""


@dataclass(frozen=True)
class Signature:
    """Names of the tensors that a component takes and gives."""

    inputs: tuple[str, ...]
    output: str


SIGNATURES: dict[str, Signature] = {
    # input_ids (batch, tokens) int64 -> hidden (batch, tokens, width)
    "text_encoder": Signature(("input_ids",), "hidden"),
    # sample (batch, channels, h, w), timestep (batch,), hidden -> noise_pred like sample
    "unet": Signature(("sample", "timestep", "hidden"), "noise_pred"),
    # latents (batch, channels, h, w), already divided by the scaling factor -> image (batch, 3, H, W) in about [-1, 1]
    "vae_decoder": Signature(("latents",), "image"),
    # image (batch, 3, H, W) in [-1, 1] -> moments (batch, 2 * channels, h, w): mean and log-variance
    "vae_encoder": Signature(("image",), "moments"),
}

TASK_COMPONENTS: dict[str, tuple[str, ...]] = {
    "txt2img": ("text_encoder", "unet", "vae_decoder"),
    "img2img": ("vae_encoder", "text_encoder", "unet", "vae_decoder"),
}


class Component(Protocol):
    """One network that somebody runs."""

    name: str

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Run the network on the inputs named by its signature and return its output as float32."""
        ...


Components = Mapping[str, Component]


def call(component: Component, label: str, observe: Observe, **inputs: np.ndarray) -> np.ndarray:
    """Run a component and report its inputs and its output.

    Parameters
    ----------
    component : Component
        Its ``name`` is a key of :data:`SIGNATURES`.
    label : str
        Which call of this component it is, e.g. ``step07``.
    observe : callable
        Receives ``name/label/tensor`` and the array for each input and the output.
    **inputs : numpy.ndarray
        The tensors that the signature names.

    Returns
    -------
    numpy.ndarray
        The output, float32.

    Raises
    ------
    FormatError
        The component returned something that is not a float32 array.
    """
    signature = SIGNATURES[component.name]
    for name in signature.inputs:
        observe(f"{component.name}/{label}/{name}", inputs[name])
    output = component(inputs)
    if not isinstance(output, np.ndarray) or output.dtype != np.float32:
        found = getattr(output, "dtype", type(output).__name__)
        raise FormatError(f"{component.name}: the backend returned {found}, not a float32 array")
    observe(f"{component.name}/{label}/{signature.output}", output)
    return output
