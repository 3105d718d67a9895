"""What a played pipeline asks of its networks, whoever computes them: the consumer's own binding, or PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np


class Networks(Protocol):
    """The networks of one folder of models, float32 in and out."""

    @property
    def latent(self) -> tuple[int, ...]:
        """Shape of one image's latents, (1, L, h, w)."""
        ...

    @property
    def refines(self) -> bool:
        """Whether the base UNet is an SDXL refiner: its time ids are five."""
        ...

    def text(self, ids: np.ndarray) -> np.ndarray:
        """Encode token ids (1, S) for SD 1 and 2: the last hidden state (1, S, D)."""
        ...

    def text_xl(self, ids: np.ndarray, which: int) -> tuple[np.ndarray, np.ndarray]:
        """Encode for SDXL by the first or second text encoder: hidden state (1, S, E), pooled text (1, P)."""
        ...

    def noise(
        self, unet: str, sample: np.ndarray, timestep: float, hidden: np.ndarray, extra: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """Predict the noise of ``sample`` (n, L, h, w) by ``unet``, ``control-unet`` or ``refiner``.

        ``hidden`` is (n, S, D); ``extra`` holds ``text_embeds`` and ``time_ids`` (n, T), or residuals by name.
        """
        ...

    def residuals(
        self, net: int, sample: np.ndarray, timestep: float, hidden: np.ndarray, image: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Run one ControlNet with its control image (n, 3, H, W)."""
        ...

    def moments(self, image: np.ndarray) -> np.ndarray:
        """Encode an image (1, 3, H, W): moments (1, 2 L, h, w)."""
        ...

    def noised(
        self, image: np.ndarray, diagonal: np.ndarray, noise: np.ndarray, signal: float, sigma: float
    ) -> np.ndarray:
        """Encode, sample, scale and noise an image as the encoder of five inputs does: latents (1, L, h, w)."""
        ...

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Decode latents that are divided by the scale already: image (1, 3, H, W) in about [-1, 1]."""
        ...
