"""Convert a model, or find the packages of an earlier conversion.

Steps: :func:`parity.convert.plan.plan` checks the request; each job is loaded, written beside its target, checked
against its original and only then given its name. A file ``conversion.json`` in the output folder records which
request made each package: the same request again finds it (so an interrupted conversion goes on where it stopped),
another request is refused unless forced. The checkpoint's ``scheduler_config.json`` is laid beside the packages.
:func:`cached` keeps packages by the hash of everything that decides their content.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity import cache
from parity.contracts import converter
from parity.contracts.names import DENOISERS
from parity.convert import disk, scheduler
from parity.convert import record as records
from parity.convert.job import Job, Settings
from parity.convert.plan import plan
from parity.convert.record import program_key, request_key
from parity.convert.resources import Resources, compiled_name
from parity.convert.resources import bundle as write_resources
from parity.errors import UsageError
from parity.files import replacing
from parity.models.source import open_model

if TYPE_CHECKING:
    from parity.convert.check import Agreement

Progress = Callable[[str, str, int, int], None]


def convert(
    model: Any,
    output: str | Path,
    *,
    contract: str = "main",
    components: Sequence[str] | None = None,
    attention: str = "SPLIT_EINSUM",
    identifier: str | None = None,
    controlnets: Sequence[str | Path] = (),
    refiner: Any = None,
    vae: str | Path | None = None,
    progress: Progress | None = None,
    force: bool = False,
    check: bool = True,
    chunk: bool = False,
    **options: Any,
) -> dict[str, Path]:
    """Convert components of a diffusers model to ``.mlpackage`` as a converter release wrote them.

    Parameters
    ----------
    model : path, hub id or DiffusionPipeline
        What is converted: a diffusers folder, a hub id, or a pipeline in memory.
    output : path
        Folder; created if need be. The checkpoint's ``scheduler_config.json`` is written there, too.
    contract : str
        Release (``0.1.0`` … ``1.1.1``), window id (``C1`` … ``C8f``) or ``main``.
    components : sequence of str, optional
        Any of text_encoder, text_encoder_2, unet, refiner, control-unet, controlnet, mmdit, vae_decoder, vae_encoder,
        safety_checker; those of :func:`parity.convert.plan.plan` by default.
    attention : str
        ``ORIGINAL``, ``SPLIT_EINSUM`` or ``SPLIT_EINSUM_V2``.
    identifier : str, optional
        Model id for file names and metadata; the hub id or the folder's name by default.
    controlnets, refiner, vae
        Models for the components of these names; a VAE takes the place of the model's own.
    progress : callable, optional
        Called with (component, stage, done, total).
    force : bool
        Replace packages that another request made.
    check : bool
        Compare each package with its PyTorch original, see :mod:`parity.convert.check`.
    chunk : bool
        Also write each denoiser cut in two, see :mod:`parity.convert.chunk`.
    **options
        Further fields of :class:`parity.convert.job.Settings`.

    Returns
    -------
    dict of str to pathlib.Path
        Package of each component; ControlNets under ``controlnet:ID``, halves under ``unet_chunk1`` and so on.

    Raises
    ------
    ParityError
        Bad input, an existing package of another request, no room; nothing is half-written.
    DriftError
        A package differs from its original by more than the tolerance; it is removed.
    """
    jobs = plan(
        model,
        components=components,
        settings=_settings(contract, attention, options),
        identifier=identifier,
        controlnets=controlnets,
        refiner=refiner,
        vae=vae,
    )
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"output {folder} is a file; name a folder")
    keys = {job.key: request_key(job) for job in jobs}
    record = records.read(folder)
    for job in jobs:
        target = folder / job.file_name
        if target.exists() and not force and record.get(job.file_name, {}).get("request") != keys[job.key]:
            raise UsageError(f"{target} exists and was made by another request; remove it or use --force")
    base = next((job.source for job in jobs if job.component != "refiner"), None) or open_model(model)
    scheduler.check(folder, base, force=force)
    packages = {}
    for job in jobs:
        target = folder / job.file_name
        packages[job.key] = target
        if force or not target.exists():
            agreement = _convert(job, target, progress, verify=check)
            record[job.file_name] = records.entry(keys[job.key], target, agreement)
            records.write(folder, record)
        if chunk and job.component in DENOISERS:
            packages |= _chunks(job, target, record, progress, verify=check, force=force)
            records.write(folder, record)
    with disk.writing(folder / scheduler.FILE):
        scheduler.write(folder, base)
    return packages


def cached(
    model: Any,
    *,
    contract: str = "main",
    components: Sequence[str] | None = None,
    attention: str = "SPLIT_EINSUM",
    identifier: str | None = None,
    controlnets: Sequence[str | Path] = (),
    refiner: Any = None,
    vae: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> dict[str, Path]:
    """Return packages from the cache, converting what is missing; parameters as :func:`convert`.

    Packages are not checked against their originals here: whoever asks compares them.

    The key covers weights and configurations of the component, the concrete contract, all settings, the converter's own
    source and the versions of torch, coremltools, diffusers, transformers and NumPy. Releases that wrote the same
    program share one conversion; only texts are written anew. When everything is there, torch is not imported.
    """
    jobs = plan(
        model,
        components=components,
        settings=_settings(contract, attention, options),
        identifier=identifier,
        controlnets=controlnets,
        refiner=refiner,
        vae=vae,
    )
    packages = {}
    for job in jobs:
        target = cache.folder("converted", request_key(job)) / job.file_name
        if not target.is_dir():
            with cache.locked(target.parent):
                if not target.is_dir():
                    _label(job, _program(job, progress), target)
        packages[job.key] = target
    return packages


def _program(job: Job, progress: Progress | None) -> Path:
    """Return a cached package with the job's program and weights, without its texts."""
    target = cache.folder("converted", program_key(job)) / "program.mlpackage"
    with cache.locked(target.parent):
        if not target.is_dir():
            texts = {"author": "", "license": "", "version": "", "description": "", "metadata": {}}
            _convert(replace(job, labels=texts), target, progress, verify=False)
    return target


def _label(job: Job, program: Path, target: Path) -> None:
    from parity.convert.lower import Labels, relabel

    with replacing(target) as path:
        relabel(program, path, inputs=job.inputs, outputs=job.outputs, labels=Labels(**job.labels))


def analyse_bits(model: Any, file: str | Path, *, progress: Progress | None = None, **options: Any) -> dict[str, Any]:
    """Find mixed-bit recipes for a model's UNet; see :mod:`parity.convert.mixed`.

    They are written to a JSON file, and a curve of size and PSNR to an SVG beside it.

    Parameters
    ----------
    model : path or hub id
        The PyTorch original.
    file : path
        Continued when it exists and is of the same model.
    progress : callable, optional
        Called with (component, stage, done, total).
    **options
        ``probe``, ``prompts`` and ``steps`` of :func:`parity.convert.probe.chosen`, and ``bits``, ``count``, ``large``
        of :func:`parity.convert.mixed.analyse`.
    """
    from parity.convert import build

    (job,) = plan(model, components=["unet"])
    return build.analyse_bits(job, Path(file), report=_reporter(job, progress), **options)


def bundle(
    model: Any, packages: Mapping[str, Path], folder: str | Path, *, contract: str = "main", force: bool = False
) -> Resources:
    """Write the Swift package's resources for packages that :func:`convert` returned.

    See :func:`parity.convert.resources.bundle`; the compiled names come from the contract.
    """
    window = converter(contract)
    resources = {entry.component: entry.resource for entry in window.components}
    names = {key: compiled_name(key, resources.get(re.sub(r"(_chunk[12]|:.*)$", "", key), "")) for key in packages}
    return write_resources(model, packages, folder, names=names, force=force)


def _settings(contract: str, attention: str, options: Mapping[str, Any]) -> Settings:
    unknown = options.keys() - Settings.__dataclass_fields__.keys()
    if unknown:
        known = ", ".join(Settings.__dataclass_fields__)
        raise UsageError(f"unknown option {', '.join(sorted(unknown))}; there are {known}")
    if options.get("recipe") is not None:
        options = {**options, "recipe": tuple(sorted(dict(options["recipe"]).items()))}
    return Settings(contract=contract, attention=attention, **options)


def _chunks(
    job: Job, whole: Path, record: dict[str, dict[str, Any]], progress: Progress | None, *, verify: bool, force: bool
) -> dict[str, Path]:
    from parity.convert.chunk import chunk

    paths = [whole.with_name(f"{whole.stem}_chunk{i}.mlpackage") for i in (1, 2)]
    request = record[whole.name]["content"]
    mine = [path.exists() and record.get(path.name, {}).get("request") == request for path in paths]
    if force or not all(mine):
        with disk.writing(paths[0]):
            chunk(
                whole,
                chunker=converter(job.settings.contract).chunker,
                check=verify,
                force=force or all(path.exists() <= own for path, own in zip(paths, mine, strict=True)),
                report=_reporter(job, progress),
            )
        for path in paths:
            record[path.name] = records.entry(request, path)
    return {f"{job.key}_chunk{i}": path for i, path in enumerate(paths, 1)}


def _reporter(job: Job, progress: Progress | None) -> Callable[[str, int, int], None]:
    def report(stage: str, done: int, total: int) -> None:
        if progress is not None:
            progress(job.key, stage, done, total)

    return report


def _convert(job: Job, target: Path, progress: Progress | None, *, verify: bool) -> Agreement | None:
    from parity.convert import build, check

    report = _reporter(job, progress)
    disk.require_space(job, target)
    agreement = None
    with disk.writing(target), replacing(target) as path:
        report("load", 0, 1)
        scratch = build.scratch(job, path.parent)
        module = build.load(job, scratch=scratch)
        network = build.network(job, module)
        build.write(job, network, path, module=module, scratch=scratch, report=report)
        if verify:
            report("check", 0, 1)
            expected = check.references(job, network)
            del network, module  # the original's memory, before the package is loaded
            agreement = check.check(job, path, expected)
    report("done", 1, 1)
    return agreement
