"""Which repairs does a folder need, so that a consumer (or as many as possible) can run it?

The plan is made from an inspection alone, so ``--dry-run`` reads no weights. Without a named consumer the aim is the
widest use: an encoder whose input is ``z`` (every Swift release from 0.4.0 on), float32 outputs, a mask that float16
can hold, packages instead of compiled models. A named consumer decides the encoder's and the time ids' form.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from parity.contracts import palettes
from parity.contracts.consumers import Consumer
from parity.contracts.inspection import Bundle, Component, Inspection
from parity.contracts.pattern import repairs_for
from parity.contracts.platforms import Selection, platforms
from parity.errors import UsageError

REPAIRS = {
    "encoder-z": "cut the VAE encoder at its moments, or rename its input: z to latent",
    "encoder-x": "rename the VAE encoder's input to x",
    "encoder-legacy": "give the VAE encoder five inputs, for Swift 0.3.0",
    "float32-outputs": "declare float16 outputs as float32",
    "time-ids-flat": "give SDXL's time ids one axis, for main of August 2023",
    "time-ids-rows": "give SDXL's time ids two axes",
    "causal-mask": "make a causal mask that overflows, or was lost in 8 bits, one of -1e4",
    "attention-rank4": "give attention of three axes a fourth: macOS 27.2 aborts on three (GPU)",
    "metadata": "fill in missing metadata from the other components",
    "package": "rebuild a compiled model as a package",
}
_DEFAULT = ("package", "encoder-z", "float32-outputs", "causal-mask", "attention-rank4", "metadata")
_BY_STRUCTURE = ("attention-rank4",)  # asked for by the rules of tables/platforms.toml


@dataclass(frozen=True)
class Job:
    """One model to be rewritten.

    Attributes
    ----------
    component : Component
    source : pathlib.Path
    name : str
        Path of the result, relative to the output folder, ending in ``.mlpackage``.
    repairs : tuple of str
        Keys of :data:`REPAIRS`, in the order in which they are done.
    sibling : Component or None
        Where missing metadata are taken from.
    """

    component: Component
    source: Path
    name: str
    repairs: tuple[str, ...]
    sibling: Component | None = None


@dataclass(frozen=True)
class Plan:
    """What will be written.

    ``kept`` are models that need nothing. ``refused`` says what cannot be helped and why: models that cannot be read,
    and wrong look-up tables, of models that may well be written for other reasons or kept.
    """

    jobs: tuple[Job, ...]
    kept: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]


def plan(
    inspection: Inspection,
    *,
    only: tuple[str, ...] = (),
    consumer: Consumer | None = None,
    system: Selection | None = None,
    tables: tuple[Path, ...] = (),
) -> Plan:
    """Plan the repairs.

    Parameters
    ----------
    inspection : Inspection
        Of a folder or a single model, not of an archive.
    only : tuple of str
        Do just these, where they apply.
    consumer : Consumer, optional
        For whom.
    system : Selection, optional
        For which systems and units, see :func:`parity.contracts.platforms.select`: only what its rules ask for.
    tables : tuple of pathlib.Path
        TOML tables with further platform rules.

    Raises
    ------
    UsageError
        Unknown repair, or an archive.
    """
    unknown = [name for name in only if name not in REPAIRS]
    if unknown:
        raise UsageError(f"unknown repair '{unknown[0]}'; there are {', '.join(REPAIRS)}")
    if inspection.path.endswith(".zip"):
        raise UsageError(f"{inspection.path}: unpack the archive first; repair works on folders and models")
    rules = platforms(tables)
    wanted = only or (("package", *_BY_STRUCTURE) if system else wanted_by(consumer))
    jobs: list[Job] = []
    kept: list[str] = []
    refused: list[tuple[str, str]] = []
    root = Path(inspection.path)
    for bundle in inspection.bundles:
        for component in bundle.components:
            if component.kind == "broken":
                reason = next((f.text for f in bundle.findings if f.where == component.path), "cannot be read")
                refused.append((component.path, reason))
                continue
            if component.fingerprint.palettes:
                refused.append((component.path, palettes.sentence(component.fingerprint.palettes)))
            structural = _structural(component) if only else repairs_for(component, rules, system)
            repairs = tuple(
                name
                for name in REPAIRS
                if name in wanted
                and (name in structural if name in _BY_STRUCTURE else _applies(name, component, bundle))
            )
            if system and repairs == ("package",):  # rebuilt only for the sake of another repair
                repairs = ()
            if {"legacy", "encoder-legacy"} & {component.contract, *repairs} and any("encoder-" in r for r in repairs):
                repairs = tuple(name for name in repairs if name != "float32-outputs")  # both give float32
            repairs = tuple(sorted(repairs, key=lambda name: name != "package"))  # a remark on the source comes first
            if component.kind == "foreign" or not repairs:
                kept.append(component.path)
                continue
            source = root if inspection.single else root / component.path
            jobs.append(Job(component, source, _target(component), repairs, _sibling(component, bundle)))
    _check_targets(jobs)
    return Plan(tuple(jobs), tuple(kept), tuple(refused))


def wanted_by(consumer: Consumer | None) -> tuple[str, ...]:
    """Return the repairs that serve a consumer, or the widest use."""
    if consumer is None:
        return _DEFAULT
    wanted = [name for name in _DEFAULT if name != "encoder-z"]
    if "S3" in consumer.lineage:
        wanted.append("encoder-legacy")
    elif "swift" in consumer.lineage:
        wanted.append("encoder-z")
    if "S6" in consumer.lineage:
        wanted.append("time-ids-flat")
    return tuple(wanted)


def _structural(component: Component) -> tuple[str, ...]:
    """Repairs that the structure of a program allows, whether or not a rule asks for them."""
    structure = component.fingerprint.structure
    folded = structure is not None and any(
        item.form == "products" and item.rank == 3 and item.heads > 1 for item in structure.attention
    )
    return ("attention-rank4",) if folded else ()


def _applies(name: str, component: Component, bundle: Bundle) -> bool:
    form = component.contract
    if name in ("encoder-z", "encoder-x", "encoder-legacy"):
        return component.kind == "vae_encoder" and form not in ("", name.removeprefix("encoder-"))
    if name == "float32-outputs":
        legacy_chunk = bool(component.chunk) and component.form == "mlmodelc"
        return not legacy_chunk and any(feature.dtype == "FLOAT16" for feature in component.outputs)
    if name in ("time-ids-flat", "time-ids-rows"):
        ids = component.input("time_ids")
        return ids is not None and form != name.removeprefix("time-ids-")
    if name == "causal-mask":
        return component.fingerprint.mask in ("unpatched", "lost")
    if name == "metadata":
        missing = not (component.author and component.license and component.version)
        return missing and component.kind != "multilingual_projection" and _sibling(component, bundle) is not None
    return component.form == "mlmodelc"


def _sibling(component: Component, bundle: Bundle) -> Component | None:
    for other in bundle.components:
        if other is not component and other.author and other.version and other.kind != "controlnet":
            return other
    return None


def _target(component: Component) -> str:
    path = PurePosixPath(component.path)
    if component.form == "mlpackage":
        return str(path)
    if component.kind == "controlnet":
        name = f"ControlNet_{component.version.replace('/', '_') or path.stem}"
    else:
        version = component.version.replace("/", "_") or "unknown"
        chunk = f"_chunk{component.chunk}" if component.chunk else ""
        name = f"Stable_Diffusion_version_{version}_{component.kind}{chunk}"
    safe = "".join(letter if letter.isalnum() or letter in " ._-+" else "_" for letter in name)
    return str(path.parent / f"{safe}.mlpackage")


def _check_targets(jobs: list[Job]) -> None:
    seen: dict[str, str] = {}
    for job in jobs:
        if job.name in seen:
            raise UsageError(
                f"{seen[job.name]} and {job.component.path} would both become {job.name}; repair one by one"
            )
        seen[job.name] = job.component.path
