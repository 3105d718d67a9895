"""Does a picture come out when a consumer release runs these models in its way, and is it PyTorch's picture?

:func:`execute` plays one release: it binds features as that release does (literal names or "the first one"), draws
random numbers in its order, computes timesteps, noise levels and steps as it does, and decodes what it decodes.
The same draws then go through the PyTorch modules of the checkpoint with diffusers' own schedulers, and the pictures
are compared. What is missing or does not fit ends the run with the failure that ``tables/consumers.toml`` states for
the release.

Played: the Swift package S1 to S8 (SD 1 and 2, SDXL with refiner, ControlNets, image to image, several images; PNDM and
DPM-Solver++ in all its spacings; SD 3 without T5, by the package's flow scheduler), the Python pipeline P1 to P6, Mochi
and swift-coreml-diffusers by the release that they are built with. Multilingual prompts are played from their token
vectors on, which come from a model inside Apple's systems and are given. Not played: SD 3 with T5. What Swift or Core
ML would really do is not proved here; conventions follow the public sources and are data (``[consumer.conventions]``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from parity.backends.binding import ReleaseBinding
from parity.backends.coreml import by_component
from parity.contracts.consumers import Consumer, consumers
from parity.contracts.release import Conventions, conventions
from parity.errors import UsageError
from parity.metrics import measure
from parity.networks.backend import Backend
from parity.pipelines.loop import Networks
from parity.pipelines.release import Ask, as_bytes, play, settings_of, stated
from parity.pipelines.settings import ConsumerFailureError, Material, Settings
from parity.pipelines.trace import Trace
from parity.suite.questions.remembered import RememberingModels, RememberingTorch

__all__ = ["Ask", "ConsumerFailureError", "Conventions", "Execution", "Material", "Original", "conventions", "execute"]


@dataclass(frozen=True)
class Original:
    """Where the PyTorch originals of the models are.

    Attributes
    ----------
    checkpoint : pathlib.Path
        Folder of the diffusers checkpoint.
    controlnets : tuple of pathlib.Path
        Folders of the ControlNets, in the order of the models' ``controlnet:ID`` entries.
    refiner : pathlib.Path or None
    projection : pathlib.Path or None
        TorchScript file of the multilingual adapter.
    """

    checkpoint: Path
    controlnets: tuple[Path, ...] = ()
    refiner: Path | None = None
    projection: Path | None = None


@dataclass(frozen=True)
class Execution:
    """Outcome of playing one release.

    Attributes
    ----------
    settings : Settings
        The call that was played.
    consumer : str
    pictures, references : numpy.ndarray or None
        Shape (images, H, W, 3), float32 in [0, 1]; ``references`` are PyTorch's. None when the run failed.
    psnr : float
        Of the worst picture, as 8-bit pictures, in dB; infinite for equal pictures, NaN when the run failed.
    failure : str
        What a user of the release would see, empty when pictures came out.
    detail : str
        What was found in the models, in this project's words.
    traces : tuple of (Trace, Trace)
        The release's run up to its end or its failure, and PyTorch's; empty where there was none.
    backends : tuple of (Backend, Backend) or None
        PyTorch's and the release's networks, for comparing each alone.
    """

    settings: Settings
    consumer: str
    pictures: np.ndarray | None = None
    references: np.ndarray | None = None
    psnr: float = float("nan")
    failure: str = ""
    detail: str = ""
    traces: tuple[Trace, Trace] = (Trace(), Trace())
    backends: tuple[Backend, Backend] | None = None


def execute(
    models: Mapping[str, Path],
    consumer: str | Consumer,
    original: Original | Path,
    material: Material,
    ask: Ask,
    *,
    kept: dict[Any, Any] | None = None,
) -> Execution:
    """Play a release on a set of models in the reference runtime and compare with PyTorch.

    Parameters
    ----------
    models : mapping of str to path
        By component, as :func:`parity.convert.cached` returns them: ``text_encoder``, ``unet``, ``vae_decoder``, …,
        halves as ``unet_chunk1``, ControlNets as ``controlnet:ID``; packages or compiled models. A second text encoder
        makes it the SDXL pipeline.
    consumer : str or Consumer
        ``S1`` … ``S8``, ``P1`` … ``P6``, or any consumer with conventions.
    original : Original or path
        The PyTorch side; a path is a checkpoint alone.
    material : Material
        Token ids and pictures.
    ask : Ask
        Task, scheduler, seed and the like.
    kept : dict, optional
        Keeps loaded models for later calls.

    Raises
    ------
    UsageError, UnsupportedError
        A request that the release does not have, or that the facts do not let us play.
    """
    who = consumer if isinstance(consumer, Consumer) else consumers().consumer(consumer)
    original = original if isinstance(original, Original) else Original(original)
    sd3 = material.sd3 or "mmdit" in models
    xl = not sd3 and (material.xl or "text_encoder_2" in models)
    material = replace(material, xl=xl, sd3=sd3, third=material.third or "text_encoder_t5" in models)
    refiner = "refiner" in models or "refiner_chunk1" in models
    settings = settings_of(who, ask, material, refiner=refiner)
    if settings.refined and settings.task != "refiner" and original.refiner is None:
        raise UsageError(f"{who.id} lets the refiner of the folder take over; give its checkpoint: Original(refiner=…)")
    backends = _backends(models, settings, original, {} if kept is None else kept)
    outcome = Execution(settings, who.id, traces=(Trace(), Trace()), backends=backends)
    try:
        pair = _draw(settings, original, material, outcome)
    except ConsumerFailureError as failure:
        return replace(outcome, failure=stated(failure, who, settings.task), detail=str(failure))
    pictures, references = pair
    shown = zip(as_bytes(references), as_bytes(pictures), strict=True)
    psnr = min(measure("image_psnr", reference, picture) for reference, picture in shown)
    return replace(outcome, pictures=pictures, references=references, psnr=psnr)


def _backends(
    models: Mapping[str, Path], settings: Settings, original: Original, kept: dict[Any, Any]
) -> tuple[RememberingTorch, ReleaseBinding]:
    key = ("torch", original)
    if key not in kept:
        kept[key] = RememberingTorch(
            original.checkpoint,
            controlnets=original.controlnets,
            refiner=original.refiner,
            projection=original.projection,
        )
    converted = RememberingModels(by_component(models), kept)
    return kept[key], converted.as_release(settings.conventions)


def _draw(
    settings: Settings, original: Original, material: Material, outcome: Execution
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the consumer's pictures, then PyTorch's."""
    assert outcome.backends is not None
    torch, release = outcome.backends
    assert isinstance(release, ReleaseBinding)
    location = str(original.checkpoint)
    latent, width = release.latent, release.width
    networks = Networks(release.component, outcome.traces[0], latent, refines=release.refines, width=width)
    candidate = play(settings, networks, material, location)
    refines = not (original.checkpoint / "text_encoder").is_dir()
    networks = Networks(torch.component, outcome.traces[1], latent, refines=refines, width=width)
    return candidate, play(settings, networks, material, location, by_diffusers=True)
