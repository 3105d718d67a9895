"""The one denoising loop, and the networks of one run: whoever draws, every tensor is reported under the same names.

A producer decides what is predicted, how a step is taken and what is decoded; the points of its trace come from here:
``latents/initial``, ``unet/step07/noise_pred``, ``latents/step07``, ``vae_decoder/final/image``, ``image``. Where a
producer draws several pictures one after the other, labels of the second and later ones end in ``-image2`` and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.networks.signature import Component, Observe, call


@dataclass(frozen=True)
class Networks:
    """The networks that a producer calls.

    Attributes
    ----------
    component : callable
        Gives a network by name, e.g. :meth:`parity.networks.backend.Backend.component`.
    observe : callable
        Receives every named point of the run.
    latent : tuple of int
        Shape of one image's latents, (1, L, h, w).
    refines : bool
        Whether the base UNet is an SDXL refiner: its time ids are five.
    width : int
        Width of the text that Stable Diffusion 3's transformer takes; 0 for other models.
    """

    component: Callable[[str], Component]
    observe: Observe
    latent: tuple[int, ...]
    refines: bool = False
    width: int = 0

    def call(self, name: str, label: str, **inputs: np.ndarray) -> Mapping[str, np.ndarray]:
        """Run one network and report its tensors; see :func:`parity.networks.signature.call`."""
        return call(self.component(name), label, self.observe, **inputs)


def denoise(
    timesteps: Iterable[Any],
    latents: Any,
    predict: Callable[[str, Any, Any], Any],
    step: Callable[[Any, Any, Any], Any],
    observe: Observe,
    *,
    ending: str = "",
) -> Any:
    """Go from noise to clean latents.

    Parameters
    ----------
    timesteps : iterable
        As the producer's schedule has them.
    latents : array
        Where it begins, (n, L, h, w); an array or a torch tensor on the CPU.
    predict : callable
        ``predict(label, timestep, latents)`` gives the guided noise; the label names the calls of its networks.
    step : callable
        ``step(noise, timestep, latents)`` gives the latents one step cleaner.
    observe : callable
        Receives ``latents/initial`` and the latents after each step.
    ending : str
        End of all labels, for pictures after the first.

    Returns
    -------
    array
        The last latents.
    """
    observe(f"latents/initial{ending}", np.asarray(latents))
    for index, timestep in enumerate(timesteps):
        label = f"step{index:02d}{ending}"
        latents = step(predict(label, timestep, latents), timestep, latents)
        observe(f"latents/{label}", np.asarray(latents))
    return latents


def ending(image: int) -> str:
    """Return the end of the labels of an image, counted from 0.

    >>> ending(0), ending(1)
    ('', '-image2')
    """
    return f"-image{image + 1}" if image else ""
