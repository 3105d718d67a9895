"""What does a release's safety check say of a picture, and does PyTorch's checker agree?

The Python pipeline prepares the picture as CLIP wants it: resized and cropped by transformers' image processor, with
CLIP's means and deviations. The Swift package squeezes the whole picture to the checker's size and normalises it by
those of ImageNet, so that its flag is not Python's by construction (:func:`for_swift`). Which filter CoreGraphics
resizes with is not known: Lanczos stands in for it. PyTorch's checker gets the same input as the consumer's, so what is
compared is the model. Swift passes 512x512 zeros as ``images``; Python the picture itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from parity.contracts.consumers import consumers
from parity.contracts.release import conventions
from parity.errors import UnsupportedError
from parity.pipelines.settings import ConsumerFailureError

_MEANS, _DEVIATIONS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, for red, green and blue


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
    kept: dict[Any, Any] | None = None,
) -> SafetyCheck:
    """Play the safety check of a release.

    Parameters
    ----------
    models : mapping of str to path
        With ``safety_checker``.
    consumer : str
        Id of the release, e.g. ``S7``.
    checkpoint : path
        Folder of a diffusers checkpoint with a safety checker.
    pictures : numpy.ndarray
        (n, H, W, 3), values in [0, 1].
    kept : dict, optional
        Keeps loaded models, as for :func:`parity.suite.questions.play.execute`.

    Raises
    ------
    UnsupportedError
        The release has no safety check.
    """
    from parity.backends.coreml import CoreMLBackend, by_component
    from parity.backends.pytorch import TorchBackend

    who = consumers().consumer(consumer)
    rules = conventions(who)
    if rules.safety == "none":
        raise UnsupportedError(f"{consumer} runs no safety check")
    kept = {} if kept is None else kept
    release = CoreMLBackend(by_component(models), runtime="reference", loaded=kept).as_release(rules)
    flags, references = [], []
    try:
        checker = release.component("safety_checker")
        torch = TorchBackend(checkpoint).component("safety_checker")
        for picture in pictures:
            clip = for_swift(picture, release.clip_size) if rules.pipeline == "swift" else for_clip(picture)
            given = {"clip_input": clip, "picture": picture[None]}
            flags.append(bool(checker(given)["unsafe"][0]))
            references.append(bool(torch(given)["unsafe"][0]))
    except ConsumerFailureError as failure:
        stated = [r.failure for r in consumers().rules if r.id in failure.rule.split() and who.id in r.consumers]
        return SafetyCheck(consumer, failure=stated[0] if stated else str(failure), detail=str(failure))
    return SafetyCheck(consumer, tuple(flags), tuple(references))


def for_swift(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Squeeze a picture (H, W, 3) to ``size`` (height, width) and normalise it as Swift does: (1, 3, height, width)."""
    from PIL import Image

    pixels = _pixels(picture).resize(size[::-1], Image.Resampling.LANCZOS)
    planes = np.asarray(pixels, np.float32).transpose(2, 0, 1)[None] / np.float32(255)
    mean, scale = (np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (_MEANS, _DEVIATIONS))
    return (planes - mean) * (np.float32(1) / scale)


def for_clip(picture: np.ndarray) -> np.ndarray:
    """Resize and normalise a picture (H, W, 3) for CLIP: (1, 3, 224, 224)."""
    from transformers import CLIPImageProcessor

    prepared = CLIPImageProcessor()(images=_pixels(picture), return_tensors="np")
    return np.asarray(prepared["pixel_values"], np.float32)


def _pixels(picture: np.ndarray) -> Any:
    from PIL import Image

    return Image.fromarray((np.clip(picture, 0, 1) * 255).round().astype(np.uint8))
