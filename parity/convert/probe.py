"""What does a UNet with changed weights do to the outcome?

The analysis of mixed bits (:mod:`parity.convert.mixed`) asks the same question again and again; the answer is a list of
arrays that is compared with the untouched network's. Three kinds of answer, each from fixed seeds:

* ``latents``: diffusers' own pipeline runs a few steps on fixed prompts with an empty negative prompt; its latents are
  the answer. One step is what the released analysis takes.
* ``picture``: the same, decoded.
* ``network``: the UNet alone on seeded inputs, for models that no text-to-image pipeline runs (refiners, inpainting) or
  that come without tokenizer.

Not proved: that eight prompts stand for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from parity import quiet
from parity.convert.job import Job
from parity.errors import UsageError

Answer = Callable[[], Sequence[np.ndarray]]

KINDS: Final = ("latents", "picture", "network")
SEED: Final = 93
PROMPTS: Final = (
    "a photo of an astronaut riding a horse on the moon",
    "a bowl of red apples on a wooden table, soft morning light",
    "portrait of an old sailor with a white beard, oil painting",
    "a narrow street with yellow houses after the rain",
    "a fox sleeping in the snow, drawing with black ink",
    "a small robot watering flowers in a greenhouse",
    "mountains above a blue lake, wide view, high detail",
    "a plate with two slices of lemon cake, studio photo",
)

_TEXT_TO_IMAGE: Final = frozenset({"StableDiffusionPipeline", "StableDiffusionXLPipeline"})


@dataclass(frozen=True)
class Probe:
    """How a UNet is asked.

    Attributes
    ----------
    kind : str
        One of :data:`KINDS`.
    prompts : int
        How many of :data:`PROMPTS`, or seeded inputs of the network.
    steps : int
        Of the pipeline.
    """

    kind: str = "latents"
    prompts: int = 8
    steps: int = 1

    def describe(self) -> dict[str, Any]:
        """Return what decides the answers, for the analysis file."""
        return {**asdict(self), "seed": SEED}


def chosen(job: Job, *, kind: str | None = None, prompts: int = 8, steps: int = 1) -> Probe:
    """Check a request for a probe; without a kind, the pipeline's latents where there is a pipeline.

    Raises
    ------
    UsageError
        Unknown kind or number; a pipeline is asked for that cannot run.
    """
    runs = _runs(job)
    kind = kind or ("latents" if runs else "network")
    if kind not in KINDS:
        raise UsageError(f"unknown probe {kind!r}; there are {', '.join(KINDS)}")
    if not 1 <= prompts <= len(PROMPTS):
        raise UsageError(f"{prompts} prompts: 1 to {len(PROMPTS)}")
    if steps < 1:
        raise UsageError(f"{steps} steps: at least one")
    if kind != "network" and not runs:
        raise UsageError(
            f"probe {kind}: {job.source.identifier} has no text-to-image pipeline with tokenizer and VAE; "
            "take the probe network"
        )
    return Probe(kind, prompts, steps)


def answer(probe: Probe, job: Job, unet: Any, inputs: Sequence[Mapping[str, Any]]) -> Answer:
    """Return the function that asks a UNet.

    Parameters
    ----------
    probe : Probe
        Which question is asked.
    job : Job
        Of the UNet.
    unet : UNet2DConditionModel
        Asked as it is at each call.
    inputs : sequence of mapping
        Keyword arguments for the kind ``network``.
    """
    return network(unet, inputs) if probe.kind == "network" else _pipeline(probe, job, unet)


def network(unet: Any, inputs: Sequence[Mapping[str, Any]]) -> Answer:
    """Return a function that gives a UNet's answers to keyword arguments."""
    import torch

    def ask() -> list[np.ndarray]:
        with torch.no_grad():
            return [unet(**one, return_dict=False)[0].numpy() for one in inputs]

    return ask


def _runs(job: Job) -> bool:
    source = job.source
    name = str(source.configs["model_index"].get("_class_name"))
    if name not in _TEXT_TO_IMAGE or not {"text_encoder", "vae"} <= source.configs.keys():
        return False
    if source.pipeline is not None:
        return source.pipeline.tokenizer is not None
    return source.folder is not None and (source.folder / "tokenizer").is_dir()


def _pipeline(probe: Probe, job: Job, unet: Any) -> Answer:
    import diffusers
    import torch

    pipeline = job.source.pipeline
    if pipeline is None:
        assert job.source.folder is not None
        present = job.source.configs["model_index"].keys()
        unused = ("safety_checker", "feature_extractor", "image_encoder")
        options: dict[str, Any] = {name: None for name in unused if name in present}
        networks = [part for part in ("text_encoder", "text_encoder_2", "vae") if part in job.source.configs]
        options |= {part: job.source.module(part) for part in networks}  # the pipeline would load random weights
        with quiet.loading():
            pipeline = diffusers.DiffusionPipeline.from_pretrained(
                job.source.folder, unet=unet, local_files_only=True, **options
            )
    pipeline.set_progress_bar_config(disable=True)
    kind = "latent" if probe.kind == "latents" else "np"

    def ask() -> list[np.ndarray]:
        answers = []
        for prompt in PROMPTS[: probe.prompts]:
            draws = torch.Generator().manual_seed(SEED)
            asked = {"num_inference_steps": probe.steps, "generator": draws, "output_type": kind}
            with torch.no_grad():
                answers.append(np.asarray(pipeline(prompt, negative_prompt="", **asked).images))
        return answers

    return ask
