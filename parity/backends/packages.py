"""Which of a user's models is which component, and what keeps one from being judged?

A folder, one model or a zip archive is inspected as ``parity inspect`` does it, so names count only where features say
nothing: packages and compiled models, whole UNets and their two halves, Resources beside packages. What cannot be run
is not an end: it is named with its path, and the other components are judged.
"""

from __future__ import annotations

import atexit
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from parity.contracts.discover import unpacked
from parity.contracts.inspect import inspect
from parity.contracts.inspection import Bundle, Component, Finding
from parity.errors import FormatError, MissingError
from parity.models import hub

_RESOURCES = "Resources"  # where the converter puts compiled models, beside its packages
_MODELS = (".mlpackage", ".mlmodelc", ".mlmodel")
PARTS = ("text_encoder", "unet", "vae_decoder", "vae_encoder", "text_encoder_2", "refiner", "mmdit")
"""Components of which a folder may hold one."""
_T5 = (
    "T5 is not run as a converted model: no converter release writes one, and types and mask of the one to download "
    "are not known"
)
OPTIONAL = ("control-unet", "safety_checker")
"""Components of single tasks: what is wrong with them concerns these alone. ControlNets are ``controlnet-1`` and on."""


@dataclass(frozen=True)
class Part:
    """One component among the user's models.

    Attributes
    ----------
    component : str
        One of :data:`PARTS`.
    paths : tuple of path
        The model, or its two halves in order; empty where there is none.
    problem : str
        Why it cannot be judged; empty if it can.
    damaged : bool
        Whether the problem lies in the files, so that the input is bad.
    compression : str
        Form of its weights if they are compressed, e.g. ``6-bit palette``.
    latent : tuple of (int, int), optional
        Height and width of the latents that it takes; None for those that take none.
    """

    component: str
    paths: tuple[Path, ...] = ()
    problem: str = ""
    damaged: bool = False
    compression: str = ""
    latent: tuple[int, int] | None = None


@dataclass(frozen=True)
class Packages:
    """The components that were found.

    Attributes
    ----------
    named : path
        What the user named.
    root : path
        Where the models lie: the same, or the folder to which an archive was unpacked.
    parts : mapping
        One entry for each of :data:`PARTS` and :data:`OPTIONAL`, and for each ControlNet.
    remarks : tuple of str
        What should be known about the set: halves or releases that do not belong together.
    """

    named: Path
    root: Path
    parts: Mapping[str, Part]
    remarks: tuple[str, ...] = ()
    _held: ExitStack = field(default_factory=ExitStack, repr=False, compare=False)

    @property
    def paths(self) -> dict[str, tuple[Path, ...]]:
        """Paths of the components that can be judged."""
        return {name: part.paths for name, part in self.parts.items() if not part.problem}

    @property
    def played(self) -> dict[str, tuple[Path, ...]]:
        """Paths of what an app's release can try to run: all that is not damaged, encoders of five inputs too."""
        return {name: part.paths for name, part in self.parts.items() if part.paths and not part.damaged}

    def part(self, component: str) -> Part:
        """Return the part that a network is made of: the noising encoder is a form of the VAE encoder."""
        if component == "text_encoder_3":
            return _absent(component, _T5)
        name = {"noising_encoder": "vae_encoder", "unconditional-unet": "unet"}.get(component, component)
        return self.parts.get(name) or _absent(name, f"--models {self.named}: no {name} in it")

    @property
    def latent(self) -> tuple[int, int] | None:
        """Height and width of the latents: the UNet's, else the decoder's, else the encoder's."""
        sizes = (self.parts[name].latent for name in ("unet", "control-unet", "mmdit", "vae_decoder", "vae_encoder"))
        return next((size for size in sizes if size is not None), None)

    def close(self) -> None:
        """Remove what an archive was unpacked to; it vanishes with the process in any case."""
        self._held.close()

    def say(self, text: str) -> str:
        """Put the path that the user named for the one that an archive was unpacked to."""
        return text.replace(str(self.root), str(self.named))


def converted(models: Mapping[str, Sequence[Path]]) -> Packages:
    """Return packages that were converted here, by component."""
    names = dict.fromkeys((*PARTS, *OPTIONAL, *models))
    parts = {name: Part(name, tuple(models[name])) if name in models else _absent(name, "") for name in names}
    root = next(iter(models.values()))[0].parent
    return Packages(root, root, parts)


def find(path: Path, controlnets: Sequence[str] = ()) -> Packages:
    """Find the components in what a user has.

    Parameters
    ----------
    path : path
        Folder, ``OWNER/NAME:FOLDER`` of the hub, ``.mlpackage``, ``.mlmodelc``, or ``.zip``, which is unpacked to a
        temporary folder that vanishes with the result.
    controlnets : sequence of str
        Names of the original's ControlNets, in order: packages are matched by them.

    Raises
    ------
    MissingError
        No such path, or no component of Stable Diffusion in it.
    FormatError
        Two models for one component, several sets of models, or an archive that is damaged or hostile.
    """
    root, refused = hub.local(path), list[Finding]()
    held = ExitStack()
    atexit.register(held.close)
    if path.is_file() and path.suffix.lower() == ".zip":
        root, refused, _ = held.enter_context(unpacked(path, whole=True))
    try:
        inspection = inspect(root)
    except FormatError as error:
        raise FormatError(f"--models: {error}") from None
    bundles = _set(path, inspection.bundles)
    findings = [*refused, *inspection.findings, *(finding for bundle in bundles for finding in bundle.findings)]
    components = [component for bundle in bundles for component in bundle.components]
    single = root.suffix in _MODELS
    parts = {name: _part(name, components, findings, path, root, single=single) for name in PARTS}
    parts |= {name: _optional(name, components, findings, path, root, single=single) for name in OPTIONAL}
    parts |= _controlnets(components, path, root, controlnets, single=single)
    if not any(part.paths for part in parts.values()):
        raise MissingError(_nothing(path, findings))
    return Packages(path, root, parts, _remarks(path, components, findings, parts), held)


def _set(path: Path, bundles: Sequence[Bundle]) -> list[Bundle]:
    """Choose the models that belong together: those of the folder itself and its Resources, or of the only folder."""
    known = [bundle for bundle in bundles if any(_claims(component) for component in bundle.components)]
    own = [bundle for bundle in known if bundle.path in (".", _RESOURCES)]
    if own or len(known) < 2:
        return own or known
    deeper = {bundle.path.removesuffix(f"/{_RESOURCES}") for bundle in known}
    if len(deeper) == 1:
        return known
    listed = ", ".join(bundle.path for bundle in known)
    raise FormatError(f"--models {path}: several sets of models lie in it ({listed}); name the folder of one")


def _claims(component: Component) -> str:
    """Component of a model: by its features where they are known, else by its name; empty for others."""
    kind = component.named if component.kind in ("foreign", "broken") else component.kind
    return kind if kind in (*PARTS, *OPTIONAL, "controlnet") else ""


def _part(
    name: str,
    components: Sequence[Component],
    findings: Sequence[Finding],
    path: Path,
    root: Path,
    *,
    single: bool,
) -> Part:
    """Choose the models of one component: a package rather than a compiled model, a whole one rather than halves."""
    chosen: dict[int, Component] = {}
    for component in (c for c in components if _claims(c) == name):
        other = chosen.get(component.chunk)
        if other is not None and other.form == component.form:
            raise FormatError(
                f"--models {path}: two candidates for {name}: {other.path} and {component.path}; keep the models of "
                "one checkpoint in a folder"
            )
        if other is None or component.form == "mlpackage":
            chosen[component.chunk] = component
    if 0 in chosen:
        models = [chosen[0]]
    elif len(chosen) == 1:
        there = next(iter(chosen.values()))
        return _absent(name, f"{path / there.path} is half of it, chunk {3 - there.chunk} is missing")
    else:
        models = [chosen[number] for number in sorted(chosen)]
    if not models:
        return _absent(name, f"--models {path}: no {name} in it")
    paths = tuple(root if single else root / model.path for model in models)
    texts = {finding.where: finding.text for finding in findings if finding.severity == "error"}
    if any(model.kind == "broken" for model in models):
        reasons = [_named(path, model, texts, single=single) for model in models if model.kind == "broken"]
        return Part(name, paths, "; ".join(reasons), damaged=True)
    forms = sorted({form for model in models for form in model.fingerprint.compression})
    problem = _legacy(path, path if single else path / models[0].path) if models[0].contract == "legacy" else ""
    return Part(name, paths, problem, compression=", ".join(forms), latent=_latent(name, models[0]))


def _optional(
    name: str,
    components: Sequence[Component],
    findings: Sequence[Finding],
    path: Path,
    root: Path,
    *,
    single: bool,
) -> Part:
    """Choose the model of a single task, of which two are that task's problem alone."""
    try:
        return _part(name, components, findings, path, root, single=single)
    except FormatError as error:
        return _absent(name, str(error))


def _controlnets(
    components: Sequence[Component], path: Path, root: Path, names: Sequence[str], *, single: bool
) -> dict[str, Part]:
    """Return the ControlNets by number: matched with the original's by name, or one with the only one."""
    there = {component.path: component for component in components if _claims(component) == "controlnet"}
    chosen: dict[str, Component] = {}
    for component in sorted(there.values(), key=lambda each: (each.form != "mlpackage", each.path)):
        chosen.setdefault(_bare(Path(component.path).stem), component)
    found = {}
    for number, name in enumerate(names, start=1):
        key = f"controlnet-{number}"
        fits = [component for stem, component in chosen.items() if stem.endswith(_bare(name))]
        fits = fits or (list(chosen.values()) if len(chosen) == len(names) == 1 else [])
        if len(fits) == 1:
            paths = (root if single else root / fits[0].path,)
            broken = fits[0].kind == "broken"
            problem = f"{path / fits[0].path}: it cannot be read" if broken else ""
            compression = "" if broken else ", ".join(sorted(fits[0].fingerprint.compression))
            found[key] = Part(key, paths, problem, broken, compression)
            continue
        listed = ", ".join(component.path for component in chosen.values()) or "none"
        found[key] = _absent(key, f"--models {path}: no ControlNet named after {name} (found: {listed})")
    return found


def _bare(name: str) -> str:
    """Reduce a ControlNet's id, package or resource to what its names have in common."""
    stem = name.replace("\\", "/").rstrip("/").rpartition("/")[2].lower()
    return "".join(letter for letter in stem.removeprefix("controlnet_") if letter.isalnum())


def _named(path: Path, model: Component, texts: Mapping[str, str], *, single: bool) -> str:
    """Say what is wrong with a model, with the path as the user gave it."""
    text = texts.get(model.path, "it cannot be read")
    if single:
        return f"{path}: {text}"
    return f"{path / text}" if text.startswith(f"{model.path}/") else f"{path / model.path}: {text}"


def _absent(name: str, problem: str) -> Part:
    return Part(name, (), problem or f"no {name}")


def _legacy(folder: Path, model: Path) -> str:
    where = folder if folder.is_dir() else folder.parent
    return (
        f"{model}: an encoder of five inputs, as ml-stable-diffusion 0.2.0 and 0.3.0 wrote them: it adds the noise "
        "itself, so it has no moments to compare with PyTorch's. Cut it to today's form (bit-identical up to there) "
        f"with 'parity repair {where} -o NEW --complete' and run again with --models NEW"
    )


def _latent(name: str, model: Component) -> tuple[int, int] | None:
    feature = {"unet": "sample", "mmdit": "latent_image_embeddings", "control-unet": "sample", "vae_decoder": "z"}.get(
        name
    )
    found = next((f for f in model.inputs if f.name == feature), None) if feature else None
    if name == "vae_decoder" and found is None and len(model.inputs) == 1:
        found = model.inputs[0]
    if found is None or len(found.shape) != 4:
        return None
    height, width = found.shape[2:]
    return None if height is None or width is None else (height, width)


def _remarks(
    path: Path, components: Sequence[Component], findings: Sequence[Finding], parts: Mapping[str, Part]
) -> tuple[str, ...]:
    models = {component.path for component in components}
    found = [
        f"{path}: {finding.text}"
        for finding in findings
        if finding.where not in models
        and (finding.severity == "error" or "different converter releases" in finding.text)
    ]
    if len({path.name for path in parts["unet"].paths}) == 1 and any(
        _claims(component) == "unet" and component.chunk for component in components
    ):
        found.append(f"{path}: its whole UNet is judged, not the halves beside it; judge them in a folder of their own")
    return tuple(dict.fromkeys(found))


def _nothing(path: Path, findings: Sequence[Finding]) -> str:
    reasons = [f"{finding.where}: {finding.text}" for finding in findings if finding.severity == "error"]
    seen = f" ({'; '.join(reasons[:3])})" if reasons else ""
    return (
        f"--models {path}: no converted text encoder, UNet or VAE in it{seen}; expected names such as "
        "Stable_Diffusion_version_…_unet.mlpackage, Unet.mlmodelc or UnetChunk1.mlmodelc"
    )
