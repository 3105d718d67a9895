"""Load one job's modules, make its network, write its package: the heavy half of the converter."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from parity.convert import embedding, mixed, networks
from parity.convert import probe as probes
from parity.convert.compress import compress
from parity.convert.job import Job
from parity.convert.lower import Labels, lower
from parity.convert.networks import Network
from parity.convert.samples import examples
from parity.convert.workarounds import Report
from parity.models import source, weights
from parity.models.scratch import BYTES, LARGE, Scratch


def scratch(job: Job, folder: Path) -> Scratch | None:
    """Return a scratch file in a folder for a job whose network is large, see :mod:`parity.models.scratch`."""
    if job.weights is None or (parameters := weights.count(job.weights)) < LARGE:
        return None
    return Scratch(folder, BYTES * parameters)


def load(job: Job, *, scratch: Scratch | None = None) -> Any:
    """Return the original torch module of a job, in float32 unless a loaded pipeline holds it otherwise."""
    if job.folder is not None:
        kind = "ControlNetModel" if job.part == "controlnet" else "AutoencoderKL"
        return source.load_module(job.folder, kind, scratch=scratch)
    return job.source.module(job.part, scratch=scratch)


def network(job: Job, module: Any) -> Network:
    """Return the network of a job from its original module."""
    names = [feature.name for feature in job.inputs]
    attention, rank = job.settings.attention, job.settings.attention_rank or 4
    if job.component.startswith("text_encoder"):
        penultimate = job.outputs[0].name == "hidden_embeds"
        return networks.text_encoder(module, tokens=job.inputs[0].shape[1], penultimate=penultimate, rank=rank)
    if job.component == "controlnet":
        return networks.controlnet(module, attention=attention)
    if job.component == "mmdit":
        return networks.mmdit(module)
    if job.component == "vae_decoder":
        return networks.vae_decoder(module, rank=rank)
    if job.component == "vae_encoder":
        return networks.vae_encoder(module, names=names, rank=rank)
    if job.component == "safety_checker":
        return networks.safety_checker(module)
    return networks.denoiser(module, names=names, attention=attention)


def write(
    job: Job,
    net: Network,
    path: Path,
    *,
    module: Any = None,
    scratch: Scratch | None = None,
    report: Report | None = None,
) -> None:
    """Write a job's package; ``path`` does not exist yet, and its folder is scratch space.

    ``module`` is the original, which a recipe of mixed bits needs to find its layers; ``scratch`` takes large arrays.
    """
    if job.compression == "mixed":
        mixed.require_layers(dict(job.settings.recipe or ()), module)
    plain = path if job.compression is None else path.with_name(f"plain-{path.name}")
    lower(
        net,
        plain,
        inputs=job.inputs,
        outputs=job.outputs,
        examples=examples(job, seed=0),
        compute=job.compute,
        target=job.settings.target,
        labels=Labels(**job.labels),
        scratch=scratch,
        report=report,
        exact=embedding.of_timestep if job.settings.float32 == "timestep-embedding" else None,
    )
    if job.compression is None:
        return
    if job.compression == "mixed":
        mixed.apply(plain, path, dict(job.settings.recipe or ()), module, report=report)
    else:
        compress(plain, path, job.compression, report=report)
    shutil.rmtree(plain)


def analyse_bits(
    job: Job,
    file: Path,
    *,
    probe: str | None = None,
    prompts: int = 8,
    steps: int = 1,
    report: Report | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Find mixed-bit recipes for a UNet job, see :mod:`parity.convert.mixed` and :mod:`parity.convert.probe`."""
    import torch

    question = probes.chosen(job, kind=probe, prompts=prompts, steps=steps)
    unet = load(job)
    names = [feature.name for feature in job.inputs]
    inputs = []
    for seed in range(prompts):
        tensors = [torch.from_numpy(array) for array in examples(job, seed=seed)]
        inputs.append(networks.keywords(dict(zip(names, tensors, strict=True))))
    return mixed.analyse(
        unet,
        probes.answer(question, job, unet, inputs),
        file,
        model_version=job.labels["version"],
        probe=question,
        report=report,
        **options,
    )
