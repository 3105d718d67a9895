"""Does a picture come out when a consumer release runs these models in its way, and is it PyTorch's picture?

:func:`execute` plays one Swift release: it binds features as that release does (literal names or "the first one"),
draws random numbers in its order, computes timesteps, noise levels and PLMS steps as it does, and decodes what it
decodes. Components run in the reference runtime. The same draws then go through the PyTorch modules of the checkpoint
with diffusers' own scheduler, and the two pictures are compared. A feature that is missing or cannot be read ends the
run with the failure of that release, taken from ``tables/consumers.toml``.

Played: txt2img and img2img of S1 to S8 for SD 1 and 2 with the default scheduler (PNDM), one image. Not played: the
other schedulers, SDXL, SD3, ControlNet. What Swift or Core ML would really do is not proved here; the order of draws
and the arithmetic follow the public sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from parity.contracts.consumers import Consumer, consumers
from parity.contracts.conventions.draws import ConsumerFailureError, Settings, timesteps
from parity.errors import UnsupportedError, UsageError

__all__ = ["ConsumerFailureError", "Execution", "execute", "swift_release", "timesteps"]


@dataclass(frozen=True)
class Execution:
    """Outcome of playing one release.

    Attributes
    ----------
    task, consumer, rng : str
    seed, steps : int
    strength : float
    picture, reference : numpy.ndarray or None
        Shape (H, W, 3), float32 in [0, 1]; ``reference`` is PyTorch's. None when the run failed.
    psnr : float
        In dB, peak 1; infinite for equal pictures, NaN when the run failed.
    failure : str
        What a user of the release would see, empty when a picture came out.
    """

    task: str
    consumer: str
    rng: str
    seed: int
    steps: int
    strength: float
    picture: np.ndarray | None
    reference: np.ndarray | None
    psnr: float
    failure: str


def execute(
    models: Mapping[str, Path],
    consumer: str,
    *,
    checkpoint: Path,
    prompt: np.ndarray,
    negative: np.ndarray,
    image: np.ndarray | None = None,
    rng: str = "numpy",
    seed: int = 93,
    steps: int = 4,
    strength: float = 0.5,
    guidance: float = 7.5,
    profile: str = "declared",
) -> Execution:
    """Play a Swift release on a set of models and compare with PyTorch.

    Parameters
    ----------
    models : mapping of str to path
        ``text_encoder``, ``unet``, ``vae_decoder`` and for img2img ``vae_encoder``; packages or compiled models.
    consumer : str
        ``S1`` … ``S8`` or a consumer that behaves like one of them.
    checkpoint : path
        Folder of the diffusers checkpoint that the models were converted from.
    prompt, negative : numpy.ndarray
        Token ids, shape (1, S).
    image : numpy.ndarray, optional
        Starting image, shape (1, 3, H, W), values in [-1, 1]; makes the task img2img.
    rng : str
        ``numpy``, ``torch`` or ``nvidia``: the package's random source.
    seed, steps : int
    strength, guidance : float
    profile : str
        Numerics of the reference runtime.

    Raises
    ------
    UsageError, UnsupportedError
        A consumer that is no Swift release, a random source that it does not have, models that are missing.
    """
    from parity.contracts.conventions.pytorch import PyTorch
    from parity.contracts.conventions.swift import Swift

    release = swift_release(consumers().consumer(consumer))
    if rng not in _sources(release):
        raise UsageError(f"{consumer} has no random source '{rng}'; it has {', '.join(_sources(release))}")
    task = "txt2img" if image is None or strength >= 1 else "img2img"  # Swift ignores the image at strength 1
    needed = ("text_encoder", "unet", "vae_decoder", *(("vae_encoder",) if task == "img2img" else ()))
    missing = [name for name in needed if name not in models]
    if missing:
        raise UsageError(f"{task} needs {', '.join(missing)}")
    settings = Settings(task, release, seed, rng, steps, strength, guidance)
    failed = Execution(task, consumer, rng, seed, steps, strength, None, None, float("nan"), "")
    try:
        candidate = Swift(models, settings, profile).picture(prompt, negative, image)
    except ConsumerFailureError as failure:
        return replace(failed, failure=str(failure))
    reference = PyTorch(checkpoint, settings).picture(prompt, negative, image)
    error = float(np.mean((candidate.astype(np.float64) - reference.astype(np.float64)) ** 2))
    psnr = float("inf") if error == 0 else -10 * float(np.log10(error))
    return replace(failed, picture=candidate, reference=reference, psnr=psnr)


def swift_release(consumer: Consumer) -> int:
    """Return n of the Swift window Sn that a consumer is or behaves like.

    Raises
    ------
    UnsupportedError
        For consumers that are no Swift release (their conventions are not played).
    """
    for name in consumer.lineage:
        if len(name) == 2 and name[0] == "S" and name[1].isdigit():
            return int(name[1])
    raise UnsupportedError(f"{consumer.id} is no Swift release; only S1 to S8 and apps built on them are played")


def _sources(release: int) -> tuple[str, ...]:
    if release < 3:
        return ("numpy",)
    return ("numpy", "torch") if release < 6 else ("numpy", "torch", "nvidia")
