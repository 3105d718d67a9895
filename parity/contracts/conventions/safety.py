"""What does a release's safety check say of a picture, and does PyTorch's checker agree?

The checker gets the picture as CLIP wants it. The Swift package resizes and normalises by its own means, which the
facts do not describe in full; here transformers' image processor does it for both sides, so what is played is the
models' contract and not that resizing. Swift passes 512x512 zeros as ``images``; Python the picture itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from parity.contracts.consumers import consumers
from parity.contracts.conventions.draws import ConsumerFailureError
from parity.contracts.conventions.release import conventions
from parity.errors import UnsupportedError


@dataclass(frozen=True)
class SafetyCheck:
    """Flags of the consumer and of PyTorch for each picture, or the failure that its user sees."""

    consumer: str
    flags: tuple[bool, ...] = ()
    references: tuple[bool, ...] = ()
    failure: str = ""
    detail: str = ""


def check_safety(
    models: Mapping[str, Path],
    consumer: str,
    checkpoint: Path,
    pictures: np.ndarray,
    *,
    profile: str = "declared",
    kept: dict[Any, Any] | None = None,
) -> SafetyCheck:
    """Play the safety check of a release.

    Parameters
    ----------
    models : mapping of str to path
        With ``safety_checker``.
    consumer : str
    checkpoint : path
        Folder of a diffusers checkpoint with a safety checker.
    pictures : numpy.ndarray
        (n, H, W, 3), values in [0, 1].
    profile : str
    kept : dict, optional
        As for :func:`parity.contracts.conventions.execute`.

    Raises
    ------
    UnsupportedError
        The release has no safety check.
    """
    from parity.contracts.conventions.coreml import CoreMLNetworks
    from parity.contracts.conventions.pytorch import TorchNetworks

    who = consumers().consumer(consumer)
    rules = conventions(who)
    if rules.safety == "none":
        raise UnsupportedError(f"{consumer} runs no safety check")
    kept = {} if kept is None else kept
    networks = CoreMLNetworks(models, rules, profile, kept)
    torch = TorchNetworks(checkpoint, latent=(), factor=1.0, kept=kept)
    flags, references = [], []
    try:
        for picture in pictures:
            clip = for_clip(picture)
            flags.append(networks.unsafe(clip, picture[None]))
            references.append(torch.unsafe(clip, picture[None]))
    except ConsumerFailureError as failure:
        stated = [r.failure for r in consumers().rules if r.id in failure.rule.split() and who.id in r.consumers]
        return SafetyCheck(consumer, failure=stated[0] if stated else str(failure), detail=str(failure))
    return SafetyCheck(consumer, tuple(flags), tuple(references))


def for_clip(picture: np.ndarray) -> np.ndarray:
    """Resize and normalise a picture (H, W, 3) for CLIP: (1, 3, 224, 224)."""
    from PIL import Image
    from transformers import CLIPImageProcessor

    pixels = Image.fromarray((np.clip(picture, 0, 1) * 255).round().astype(np.uint8))
    return np.asarray(CLIPImageProcessor()(images=pixels, return_tensors="np")["pixel_values"], np.float32)
