"""Does a picture come out when a consumer release runs these models in its way, and is it PyTorch's picture?

:func:`execute` plays one release: it binds features as that release does (literal names or "the first one"), draws
random numbers in its order, computes timesteps, noise levels and steps as it does, and decodes what it decodes.
Components run in the reference runtime. The same draws then go through the PyTorch modules of the checkpoint with
diffusers' own schedulers, and the pictures are compared. What is missing or does not fit ends the run with the failure
that ``tables/consumers.toml`` states for the release.

Played: the Swift package S1 to S8 (SD 1 and 2, SDXL with refiner, ControlNets, image to image, several images; PNDM and
DPM-Solver++ in all its spacings), the Python pipeline P1 to P6, Mochi and swift-coreml-diffusers by the release that
they are built with. Not played: SD 3, whose transformer this project does not convert, and multilingual prompts, whose
embeddings come from a model inside Apple's systems. What Swift or Core ML would really do is not proved here;
conventions follow the public sources and are data (``[consumer.conventions]``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from parity.contracts.consumers import Consumer, consumers
from parity.contracts.release import Conventions, conventions
from parity.errors import UnsupportedError, UsageError
from parity.pipelines.draws import LAST_SEED, ConsumerFailureError, Settings

__all__ = ["ConsumerFailureError", "Conventions", "Execution", "Original", "conventions", "execute"]

FACTOR = 0.18215  # of SD 1 and 2; consumers set SDXL's own themselves


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
    """

    checkpoint: Path
    controlnets: tuple[Path, ...] = ()
    refiner: Path | None = None


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
        Of the worst picture, in dB, peak 1; infinite for equal pictures, NaN when the run failed.
    failure : str
        What a user of the release would see, empty when pictures came out.
    detail : str
        What was found in the models, in this project's words.
    """

    settings: Settings
    consumer: str
    pictures: np.ndarray | None = None
    references: np.ndarray | None = None
    psnr: float = float("nan")
    failure: str = ""
    detail: str = ""


def execute(
    models: Mapping[str, Path],
    consumer: str | Consumer,
    original: Original | Path,
    *,
    prompt: np.ndarray,
    negative: np.ndarray,
    task: str = "",
    image: np.ndarray | None = None,
    controls: Sequence[np.ndarray] = (),
    scheduler: str = "",
    spacing: str = "",
    source: str = "numpy",
    seed: int = 93,
    steps: int = 4,
    images: int = 1,
    strength: float = 0.5,
    guidance: float = 7.5,
    profile: str = "declared",
    kept: dict[Any, Any] | None = None,
) -> Execution:
    """Play a release on a set of models and compare with PyTorch.

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
    prompt, negative : numpy.ndarray
        Token ids, shape (1, S).
    task : str
        ``txt2img``, ``img2img``, ``controlnet``, ``multi-controlnet``, ``inpaint`` or ``refiner``; by default image to
        image when there is an image, ControlNet when there are control images, else text to image.
    image : numpy.ndarray, optional
        Starting image, shape (1, 3, H, W), values in [-1, 1].
    controls : sequence of numpy.ndarray
        Control images, shape (1, 3 or 4, H, W), values in [0, 1].
    scheduler : str
        ``pndm``, ``dpm++`` and for the Python pipeline more; the release's default if empty.
    spacing : str
        Of DPM-Solver++; what the consumer sets for the family if empty.
    source : str
        ``numpy``, ``torch`` or ``nvidia``: the package's random source.
    seed, steps, images : int
    strength, guidance : float
    profile : str
        Numerics of the reference runtime.
    kept : dict, optional
        Keeps loaded models for later calls.

    Raises
    ------
    UsageError, UnsupportedError
        A request that the release does not have, or that the facts do not let us play.
    """
    who = consumer if isinstance(consumer, Consumer) else consumers().consumer(consumer)
    rules = conventions(who)
    original = original if isinstance(original, Original) else Original(original)
    xl = "text_encoder_2" in models
    if not task:
        task = "controlnet" if controls else "img2img" if image is not None else "txt2img"
    if task == "img2img" and not strength < 1:  # Swift ignores the image
        task = "txt2img"
    refined = xl and rules.refiner and ("refiner" in models or "refiner_chunk1" in models or task == "refiner")
    settings = Settings(
        rules,
        task,
        seed,
        source,
        scheduler or rules.schedulers[0],
        spacing or (rules.xl_spacing if xl else rules.spacings[0]),
        steps,
        images,
        strength,
        guidance,
        rules.factor_xl if xl else FACTOR,
        refined=refined,
    )
    _check(settings, who)
    if refined and task != "refiner" and original.refiner is None:
        raise UsageError(f"{who.id} lets the refiner of the folder take over; give its checkpoint: Original(refiner=…)")
    kept = {} if kept is None else kept
    outcome = Execution(settings, who.id)
    given = {"prompt": prompt, "negative": negative, "image": image, "controls": controls, "xl": xl}
    try:
        if xl and rules.time_ids == "none":
            raise ConsumerFailureError(f"{who.name} does not know SDXL")
        pair = _draw(models, settings, original, given, profile, kept)
    except ConsumerFailureError as failure:
        return replace(outcome, failure=_stated(failure, who, task), detail=str(failure))
    error = np.mean((pair[0].astype(np.float64) - pair[1].astype(np.float64)) ** 2, axis=(1, 2, 3)).max()
    psnr = float("inf") if error == 0 else -10 * float(np.log10(error))
    return replace(outcome, pictures=pair[0], references=pair[1], psnr=psnr)


def _draw(
    models: Mapping[str, Path],
    settings: Settings,
    original: Original,
    given: dict[str, Any],
    profile: str,
    kept: dict[Any, Any],
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the consumer's pictures, then PyTorch's."""
    from parity.backends.binding import CoreMLNetworks
    from parity.pipelines import python, swift
    from parity.pipelines.schedules import played as pytorch
    from parity.pipelines.schedules import swift as schedules

    networks = CoreMLNetworks(models, settings.conventions, profile, kept)
    latent = networks.latent

    def torch_networks(factor: float) -> pytorch.TorchNetworks:
        return pytorch.TorchNetworks(
            original.checkpoint,
            latent=latent,
            factor=factor,
            controlnets=original.controlnets,
            refiner=original.refiner,
            kept=kept,
        )

    if settings.conventions.pipeline == "swift":
        candidate = swift.pictures(networks, schedules.make, settings, **given)
        return candidate, swift.pictures(torch_networks(settings.factor), pytorch.schedule, settings, **given)
    del given["image"]
    given["zero_negative"] = _empty(given["negative"]) and python.zeroed(original.checkpoint, settings, xl=given["xl"])
    both = []
    for side in (networks, torch_networks(python.FACTOR)):
        scheduler = python.scheduler(original.checkpoint, settings.scheduler)
        both.append(python.pictures(side, settings, scheduler=scheduler, **given))
    return both[0], both[1]


def _empty(ids: np.ndarray) -> bool:
    """Tell whether token ids are those of an empty text: the start, then nothing but the end of text."""
    return len(set(ids[0, 1:].tolist())) == 1


def _check(settings: Settings, who: Consumer) -> None:
    rules = settings.conventions
    for name, value, allowed in (
        ("scheduler", settings.scheduler, rules.schedulers),
        ("random source", settings.source, rules.sources),
        ("spacing", settings.spacing, dict.fromkeys((*rules.spacings, rules.xl_spacing))),
    ):
        if value not in allowed:
            raise UsageError(f"{who.id} has no {name} '{value}'; it has {', '.join(allowed)}")
    if settings.task not in who.tasks:
        raise UnsupportedError(f"{who.id} has no task {settings.task}; it has {', '.join(who.tasks)}")
    if not 0 <= settings.seed <= LAST_SEED:
        raise UsageError(
            f"seed {settings.seed}: releases take 0 to {LAST_SEED}; a seed modulo 2**32 is another request"
        )
    if rules.pipeline == "swift" and rules.images == "one" and settings.images != 1:
        raise UsageError(f"{who.id} draws one picture a call, not {settings.images}")
    if settings.task in ("safety-check", "negative-prompt"):
        raise UnsupportedError(f"task {settings.task} draws no picture of its own; it is not played here")
    if settings.task == "multilingual":
        raise UnsupportedError(
            "task multilingual is not played: its embeddings come from a model inside Apple's systems, and the "
            "projection behind it is not converted here"
        )


def _stated(failure: ConsumerFailureError, who: Consumer, task: str) -> str:
    """Return the tables' text for a failure; the finding itself where they have none for this release and task."""
    table = consumers()
    ids = {consumer.id for consumer in table.consumers}
    name = next(name for name in who.lineage if name in ids)  # an app of one's own has the rules of its like
    known = {rule.id: rule for rule in table.rules if name in rule.consumers and task in rule.tasks}
    return next((known[name].failure for name in failure.rule.split() if name in known), str(failure))
