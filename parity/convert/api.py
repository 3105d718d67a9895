"""Convert a model, or find the packages of an earlier conversion.

Steps: :func:`parity.convert.plan.plan` checks the request; each job is loaded, written beside its target, checked
against its original and only then given its name. A file ``conversion.json`` in the output folder records which
request made each package: the same request again finds it (so an interrupted conversion goes on where it stopped),
another request is refused unless forced. :func:`cached` keeps packages by the hash of everything that decides their
content.
"""

from __future__ import annotations

import errno
import importlib.metadata
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache as once
from pathlib import Path
from typing import Any, Final

from parity import cache
from parity.convert.plan import DEFAULT_COMPONENTS, Job, Settings, plan
from parity.errors import ParityError, UsageError
from parity.files import replacing

Progress = Callable[[str, str, int, int], None]

RECORD: Final = "conversion.json"
_LIBRARIES: Final = ("torch", "coremltools", "diffusers", "transformers", "numpy")


def convert(
    model: Any,
    output: str | Path,
    *,
    contract: str = "main",
    components: Sequence[str] = DEFAULT_COMPONENTS,
    attention: str = "SPLIT_EINSUM",
    identifier: str | None = None,
    controlnets: Sequence[str | Path] = (),
    refiner: Any = None,
    progress: Progress | None = None,
    force: bool = False,
    **options: Any,
) -> dict[str, Path]:
    """Convert components of a diffusers model to ``.mlpackage`` as a converter release wrote them.

    Parameters
    ----------
    model : path, hub id or DiffusionPipeline
    output : path
        Folder; created if need be.
    contract : str
        Release (``0.1.0`` … ``1.1.1``), window id (``C1`` … ``C8f``) or ``main``.
    components : sequence of str
        Any of text_encoder, text_encoder_2, unet, refiner, control-unet, controlnet, vae_decoder, vae_encoder,
        safety_checker.
    attention : str
        ``ORIGINAL``, ``SPLIT_EINSUM`` or ``SPLIT_EINSUM_V2``.
    identifier : str, optional
        Model id for file names and metadata; the hub id or the folder's name by default.
    controlnets, refiner
        Models for the components of these names.
    progress : callable, optional
        Called with (component, stage, done, total).
    force : bool
        Replace packages that another request made.
    **options
        Further fields of :class:`parity.convert.plan.Settings`.

    Returns
    -------
    dict of str to pathlib.Path
        Package of each component; ControlNets under ``controlnet:ID``.

    Raises
    ------
    ParityError
        Bad input, or an existing package of another request; nothing is half-written.
    """
    jobs = plan(
        model,
        components=components,
        settings=_settings(contract, attention, options),
        identifier=identifier,
        controlnets=controlnets,
        refiner=refiner,
    )
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"output {folder} is a file; name a folder")
    keys = {job.key: request_key(job) for job in jobs}
    record = _read_record(folder)
    for job in jobs:
        target = folder / job.file_name
        if target.exists() and not force and record.get(job.file_name) != keys[job.key]:
            raise UsageError(f"{target} exists and was made by another request; remove it or use --force")
    packages = {}
    for job in jobs:
        target = folder / job.file_name
        packages[job.key] = target
        if target.exists() and not force:
            continue
        _convert(job, target, progress)
        record[job.file_name] = keys[job.key]
        with replacing(folder / RECORD) as path:
            path.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return packages


def cached(
    model: Any,
    *,
    contract: str = "main",
    components: Sequence[str] = DEFAULT_COMPONENTS,
    attention: str = "SPLIT_EINSUM",
    identifier: str | None = None,
    controlnets: Sequence[str | Path] = (),
    refiner: Any = None,
    progress: Progress | None = None,
    **options: Any,
) -> dict[str, Path]:
    """Return packages from the cache, converting what is missing; parameters as :func:`convert`.

    The key covers weights and configurations of the component, the concrete contract, all settings, the converter's own
    source and the versions of torch, coremltools, diffusers, transformers and NumPy. When everything is there, torch is
    not imported.
    """
    jobs = plan(
        model,
        components=components,
        settings=_settings(contract, attention, options),
        identifier=identifier,
        controlnets=controlnets,
        refiner=refiner,
    )
    packages = {}
    for job in jobs:
        target = cache.folder("converted", request_key(job)) / job.file_name
        if not target.is_dir():
            _convert(job, target, progress)
        packages[job.key] = target
    return packages


def request_key(job: Job) -> str:
    """Return the name of everything that decides a package's content."""
    from parity.convert.source import folder_hash

    return cache.key(
        part=folder_hash(job.folder) if job.folder is not None else job.source.fingerprint(job.part),
        component=job.component,
        inputs=[asdict(f) for f in job.inputs],
        outputs=[asdict(f) for f in job.outputs],
        compute=job.contract.compute,
        labels={**job.labels, "metadata": dict(job.labels["metadata"])},
        file_name=job.file_name,
        settings=asdict(job.settings),
        libraries={name: importlib.metadata.version(name) for name in _LIBRARIES},
        converter=_own_source(),
    )


@once
def _own_source() -> str:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return cache.key(files=[path.read_text(encoding="utf-8") for path in sources])


def _settings(contract: str, attention: str, options: Mapping[str, Any]) -> Settings:
    unknown = options.keys() - Settings.__dataclass_fields__.keys()
    if unknown:
        known = ", ".join(Settings.__dataclass_fields__)
        raise UsageError(f"unknown option {', '.join(sorted(unknown))}; there are {known}")
    return Settings(contract=contract, attention=attention, **options)


def _read_record(folder: Path) -> dict[str, str]:
    try:
        return dict(json.loads((folder / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError):  # none, or damaged: then every package counts as another request's
        return {}


def _convert(job: Job, target: Path, progress: Progress | None) -> None:
    from parity.convert import build

    def report(stage: str, done: int, total: int) -> None:
        if progress is not None:
            progress(job.key, stage, done, total)

    try:
        with replacing(target) as path:
            report("load", 0, 1)
            module = build.load(job)
            network = build.network(job, module)
            build.write(job, network, path, report=report)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES}:
            raise ParityError(f"{target} cannot be written: {error.strerror}; nothing was left behind") from error
        raise
    report("done", 1, 1)
