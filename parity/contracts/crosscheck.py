"""Do the components of a folder fit together, and which facts do the capability rules need?

:func:`check` compares sizes, widths, batches, chunk pairs, residuals, attention kinds and windows of the components in
one folder and returns findings and the *facts*: short texts by name (:mod:`parity.contracts.facts`), which the rules of
``tables/consumers.toml`` ask for. A fact about a component that is not there is ``absent``, or ``assumed`` when a
single model was inspected.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from parity.contracts import palettes
from parity.contracts.facts import Facts
from parity.contracts.inspection import Component, Finding
from parity.contracts.names import COMPONENTS, DENOISERS

_V_MODELS = re.compile(r"stable-diffusion-2(-1)?$|(^|[^a-z])v[-_]?pred", re.I)  # the 768-pixel ones; what says so
# Checkpoints that are known to predict noise: those ending in -base, turbo models, and Stable Diffusion 1 itself
_EPSILON_MODELS = re.compile(r"-base(-[\d.]+)?$|turbo|stable-diffusion-(v-?)?1-[1-5]$|stable-diffusion-xl-", re.I)
_OVERFLOWING = re.compile(r"stable-diffusion-xl-base-(0\.9|1\.0)$")  # ids that come with SDXL's own VAE


@dataclass
class Checked:
    """Findings and facts of one folder."""

    family: str
    prediction: str = "unread"
    facts: Facts = field(default_factory=Facts)
    findings: list[Finding] = field(default_factory=list)


def check(
    components: Iterable[Component], *, tokenizer: bool, scheduler: Path | None, where: str, single: bool
) -> Checked:
    """Compare the components of one folder.

    Parameters
    ----------
    components : iterable of Component
        All models of the folder, also those that are no component.
    tokenizer : bool
        Whether ``vocab.json`` and ``merges.txt`` are there.
    scheduler : path, optional
        ``scheduler_config.json`` of the checkpoint, which tells the kind of prediction.
    where : str
        Folder, for findings.
    single : bool
        Whether one model was named instead of a folder.
    """
    listed = list(components)
    found = [c for c in listed if c.kind != "foreign"]
    unread = {c.named for c in listed if c.kind == "foreign"}  # what claims to be a part and fits no contract
    family = _bundle_family(found)
    checked = Checked(family)
    facts = checked.facts
    facts["family"] = family or "unread"
    _predicts(checked, found, scheduler, where)
    facts["tokenizer"] = "present" if tokenizer else ("assumed" if single else "absent")
    forms = {c.form for c in listed}
    facts["layout"] = "packages" if forms == {"mlpackage"} else "compiled" if forms == {"mlmodelc"} else "mixed"
    facts["specification"] = str(max((c.specification for c in found), default=0))
    absent = "assumed" if single else "absent"
    for part in COMPONENTS:
        facts[part] = _state(part, found, "unread" if part in unread else absent, checked, where)
    _denoiser(checked, found, where, absent)
    _vae(checked, found, where, absent)
    _ranges(checked, found, absent)
    _text(checked, found, where, absent)
    _control(checked, found, where, absent)
    _safety(checked, found, absent)
    _outputs(checked, found, absent)
    _palettes(checked, found)
    _remarks(checked, found, where)
    return checked


def _of(found: list[Component], kind: str, *, chunk: int = 0) -> Component | None:
    chosen = [c for c in found if c.kind == kind and c.chunk == chunk]
    return min(chosen, key=lambda c: c.form != "mlmodelc", default=None)


def _bundle_family(found: list[Component]) -> str:
    votes = [c.family for kind in ("unet", "control-unet", "mmdit", "refiner") for c in found if c.kind == kind]
    if {c.family for c in found if c.kind == "unet"} == {"sdxl-refiner"}:
        return "sdxl-refiner"  # in the place of the base model; the VAE is SDXL's
    votes += [c.family for c in found if c.family]
    if not votes:
        return ""
    if "sdxl-refiner" in votes and "sdxl" in votes:
        return "sdxl"
    return votes[0]


def _predicts(checked: Checked, found: list[Component], scheduler: Path | None, where: str) -> None:
    """Say what the denoiser predicts and who says so: a scheduler's configuration, the model's id, or the family.

    Nothing in a model tells. Official checkpoints of SD 1, SDXL and SD 3 predict noise (SD 3: its flow); those of SD 2
    do either.
    """
    stated = _stated(checked, scheduler, where)
    versions = [c.version for c in found if c.kind in ("unet", "control-unet") and c.version]
    if stated:
        said, source = stated, "scheduler"
    elif any(_V_MODELS.search(version) for version in versions):
        said, source = "v", "id"
    elif any(_EPSILON_MODELS.search(version) for version in versions):
        said, source = "epsilon", "id"
    elif checked.family and checked.family != "sd2":
        said, source = "epsilon", "contract" if checked.family == "sd3" else "family"
    else:
        said, source = "unread", "unread"
    checked.prediction = checked.facts["prediction"] = said
    checked.facts["prediction_source"] = source


def _stated(checked: Checked, scheduler: Path | None, where: str) -> str:
    """Read a scheduler's configuration: ``epsilon``, ``v``, ``other``, or empty when it does not tell."""
    if scheduler is None:
        return ""
    try:
        config = json.loads(scheduler.read_text(encoding="utf-8"))
        kind = config.get("prediction_type", "epsilon")  # diffusers' default; older configurations do not name it
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        text = f"{scheduler.name} is not a scheduler's configuration ({error}): what the model predicts is not read"
        checked.findings.append(Finding("warning", where, text))
        return ""
    return {"epsilon": "epsilon", "v_prediction": "v"}.get(kind if isinstance(kind, str) else "", "other")


def _state(part: str, found: list[Component], absent: str, checked: Checked, where: str) -> str:
    if part in DENOISERS:
        whole = [c for c in found if c.kind == part and not c.chunk]
        halves = {c.chunk for c in found if c.kind == part and c.chunk}
        _duplicates(part, whole, checked, where)
        if halves and halves != {1, 2}:
            text = f"{part}: chunk {3 - halves.pop()} is missing"
            checked.findings.append(Finding("warning" if whole else "error", where, text))
            return "whole" if whole else "half"
        if whole or halves:
            return "both" if whole and halves else "whole" if whole else "chunks"
    elif part == "controlnet":
        nets = [c for c in found if c.kind == part]
        if nets:
            return str(len({Path(c.path).stem for c in nets}))
    else:
        present = [c for c in found if c.kind == part]
        _duplicates(part, present, checked, where)
        if present:
            return "present"
    return "broken" if any(c.kind == "broken" and c.named == part for c in found) else absent


def _duplicates(part: str, present: list[Component], checked: Checked, where: str) -> None:
    for form in ("mlpackage", "mlmodelc"):
        same = [c.path for c in present if c.form == form]
        if len(same) > 1:
            text = f"{len(same)} models are {part}: {', '.join(same)}; a folder should hold one, the first is judged"
            checked.findings.append(Finding("warning", where, text))


def _compare(
    checked: Checked,
    fact: str,
    where: str,
    pairs: Iterable[tuple[Component | None, str, Component | None, str]],
    text: str,
    unknown: str,
    *,
    scale: Callable[[int], int] = lambda value: value,
) -> None:
    """Set a fact to ``agree`` or ``differ`` by pairs of sizes; ``unknown`` when no pair can be compared."""
    state = unknown
    for first, name, second, other in pairs:
        if first is None or second is None or name not in first.sizes or other not in second.sizes:
            continue
        if scale(first.sizes[name]) == second.sizes[other]:
            state = "agree" if state == unknown else state
        else:
            state = "differ"
            detail = f"{first.path} has {name} = {first.sizes[name]}, {second.path} has {other} = {second.sizes[other]}"
            checked.findings.append(Finding("error", where, f"{text}: {detail}"))
    checked.facts[fact] = state


def _denoiser(checked: Checked, found: list[Component], where: str, absent: str) -> None:
    unet = _of(found, "unet") or _of(found, "unet", chunk=1)
    second = _of(found, "unet", chunk=2)
    first = _of(found, "unet", chunk=1)
    facts = checked.facts
    facts["batch"] = str(unet.sizes["B"]) if unet and "B" in unet.sizes else absent
    facts["unet_channels"] = str(unet.sizes["Cin"]) if unet and "Cin" in unet.sizes else absent
    facts["xl_named"] = absent
    if unet and unet.family == "sdxl":
        facts["xl_named"] = ("yes" if "xl" in unet.version else "no") if unet.version else "unread"
    facts["unet_tokens"] = str(unet.sizes["S"]) if unet and "S" in unet.sizes else absent
    facts["time_ids"] = unet.contract if unet and unet.contract else ("none" if unet else absent)
    facts["attention"] = unet.fingerprint.attention if unet else absent
    facts["chunks"] = absent
    if first and second:
        facts["chunks"] = "agree"
        given = {f.name: f for f in (*first.outputs, *first.inputs)}
        for feature in second.inputs:
            other = given.get(feature.name)
            if other is None or not other.agrees(feature):
                facts["chunks"] = "differ"
                have = f"the first gives {other}" if other else "the first does not give it"
                text = f"the chunks do not fit: {second.path} takes {feature}, {have}"
                checked.findings.append(Finding("error", where, text))
    refiner = _of(found, "refiner") or _of(found, "refiner", chunk=1)
    facts["refiner_size"] = absent
    if unet and refiner:
        text, second_text = "UNet and refiner do not fit", _of(found, "text_encoder_2")
        pairs = [(unet, "h", refiner, "h"), (unet, "w", refiner, "w"), (refiner, "D", second_text, "E2")]
        _compare(checked, "refiner_size", where, pairs, text, absent)


def _vae(checked: Checked, found: list[Component], where: str, absent: str) -> None:
    unet = _of(found, "unet") or _of(found, "unet", chunk=1) or _of(found, "control-unet") or _of(found, "mmdit")
    encoder, decoder = _of(found, "vae_encoder"), _of(found, "vae_decoder")
    facts = checked.facts
    pairs = [(unet, "h", decoder, "h"), (unet, "w", decoder, "w")]
    _compare(checked, "sizes", where, pairs, "denoiser and VAE decoder have different latent sizes", absent)
    control = _of(found, "control-unet") or _of(found, "control-unet", chunk=1)
    pairs = [(control, "h", decoder, "h"), (control, "w", decoder, "w")]
    _compare(checked, "control_sizes", where, pairs, "controlled UNet and VAE decoder differ in latent size", absent)
    pairs = [(unet or decoder, "h", encoder, "h"), (unet or decoder, "w", encoder, "w"), (decoder, "L", encoder, "L")]
    _compare(checked, "encoder_size", where, pairs, "VAE encoder does not fit", absent)
    if encoder is not None:
        facts["vae_encoder"] = encoder.contract or "other"
    square = encoder is not None and encoder.sizes.get("h") == encoder.sizes.get("w")
    facts["encoder_square"] = absent if encoder is None else ("yes" if square else "no")
    image = encoder or decoder
    if image is not None and "h" in image.sizes:
        height, width = 8 * image.sizes["h"], 8 * image.sizes["w"]
        facts["image_size"] = f"{height}x{width}"
        facts["width_aligned"] = "yes" if width % 16 == 0 else "no"
    else:
        facts["image_size"] = facts["width_aligned"] = absent


def _ranges(checked: Checked, found: list[Component], absent: str) -> None:
    """Say whether values can exceed float16 in SDXL's VAE: in float16 programs, unless the weights are made for it."""
    for part in ("vae_encoder", "vae_decoder"):
        component, fact = _of(found, part), f"{part.removeprefix('vae_')}_range"
        if component is None:
            checked.facts[fact] = absent
        elif checked.family not in ("sdxl", "sdxl-refiner") or not _computes_half(component):
            checked.facts[fact] = "fits"
        else:  # the converter writes a float16 decoder for a VAE of the user's choice alone, under the model's id
            original = part == "vae_encoder" and _OVERFLOWING.search(component.version)
            checked.facts[fact] = "overflows" if original else "untold"


def _computes_half(component: Component) -> bool:
    """Tell whether a program computes in float16: by its weights' type, else by its inputs'."""
    storage = component.fingerprint.storage
    if "float32" in storage or "float16" in storage:
        return storage.get("float16", 0) > storage.get("float32", 0)
    return any(feature.dtype == "FLOAT16" for feature in component.inputs)


def _text(checked: Checked, found: list[Component], where: str, absent: str) -> None:
    unet = _of(found, "unet") or _of(found, "unet", chunk=1) or _of(found, "control-unet") or _of(found, "mmdit")
    first, second = _of(found, "text_encoder"), _of(found, "text_encoder_2")
    projection = _of(found, "multilingual_projection")
    tokens = [] if projection else [(unet, "S", first, "S"), (unet, "S", second, "S")]
    if checked.family == "sdxl" and unet and first and second and "E1" in first.sizes and "E2" in second.sizes:
        both = first.sizes["E1"] + second.sizes["E2"]
        if unet.sizes.get("D") not in (None, both):
            text = f"the UNet takes width {unet.sizes['D']}, the text encoders give {both} together"
            checked.findings.append(Finding("error", where, text))
    if unet and unet.kind == "mmdit" and first and second and "E1" in first.sizes and "P" in second.sizes:
        both, taken = first.sizes["E1"] + second.sizes["P"], _pooled(unet)
        if taken not in (None, both):
            text = f"the transformer takes pooled texts of width {taken}, the text encoders give {both} together"
            checked.findings.append(Finding("error", where, text))
    pairs = [*tokens, (unet, "D", first, "D"), (unet, "P", second, "P")]
    _compare(checked, "tokens", where, pairs, "denoiser and text encoder do not fit", absent)
    masks = [c for c in (first, second) if c is not None]
    states = {c.fingerprint.mask for c in masks}
    checked.facts["mask"] = next(
        (s for s in ("lost", "unpatched", "unread") if s in states), "patched" if states else absent
    )
    for component in masks:
        if component.fingerprint.mask == "unpatched":
            smallest = component.fingerprint.mask_minimum
            text = f"the causal mask's smallest value is {smallest:g}, which float16 turns into minus infinity"
            checked.findings.append(Finding("warning", component.path, text))
        elif component.fingerprint.mask == "lost":
            text = "the causal mask was lost in 8 bits (scale 0): every token sees all others"
            checked.findings.append(Finding("warning", component.path, text))


def _pooled(transformer: Component) -> int | None:
    pooled = transformer.input("pooled_text_embeddings")
    return pooled.shape[1] if pooled is not None and len(pooled.shape) > 1 else None


def _control(checked: Checked, found: list[Component], where: str, absent: str) -> None:
    unet = _of(found, "control-unet") or _of(found, "control-unet", chunk=1)
    nets = [c for c in found if c.kind == "controlnet"]
    facts = checked.facts
    facts["control_channels"] = str(unet.sizes["Cin"]) if unet and "Cin" in unet.sizes else absent
    facts["control_batch"] = str(unet.sizes["B"]) if unet and "B" in unet.sizes else absent
    facts["controlnet_output"] = _dtype(nets, absent)
    facts["control_square"] = absent
    if nets:
        facts["control_square"] = "yes" if all(c.sizes.get("h") == c.sizes.get("w") for c in nets) else "no"
    facts["residuals"] = absent
    if unet is None or unet.chunk:
        return
    takes = {f.name: f for f in unet.inputs if f.name.startswith("additional_residual_")}
    for net in nets:
        gives = {f.name: f for f in net.outputs}
        facts["residuals"] = "agree" if facts["residuals"] == absent else facts["residuals"]
        wrong = sorted(takes.keys() ^ gives.keys())
        wrong += sorted(name for name in takes.keys() & gives.keys() if not takes[name].agrees(gives[name]))
        if wrong:
            facts["residuals"] = "differ"
            given, taken = (named[wrong[0]].size if wrong[0] in named else "no such" for named in (gives, takes))
            text = f"{net.path} gives {wrong[0]} {given}, {unet.path} takes {taken}"
            checked.findings.append(Finding("error", where, f"ControlNet and controlled UNet do not fit: {text}"))
        if net.fingerprint.attention != unet.fingerprint.attention:
            kinds = f"{net.path} {net.fingerprint.attention}, {unet.path} {unet.fingerprint.attention}"
            text = f"kinds of attention differ, Mochi lists only equal ones: {kinds}"
            checked.findings.append(Finding("note", where, text))


def _safety(checked: Checked, found: list[Component], absent: str) -> None:
    safety, decoder = _of(found, "safety_checker"), _of(found, "vae_decoder")
    facts = checked.facts
    if safety is None or "Hs" not in safety.sizes:
        facts["safety_size"] = facts["safety_fits"] = absent
        return
    size = (safety.sizes["Hs"], safety.sizes["Ws"])
    facts["safety_size"] = "512" if size == (512, 512) else f"{size[0]}x{size[1]}"
    image = None if decoder is None or "h" not in decoder.sizes else (8 * decoder.sizes["h"], 8 * decoder.sizes["w"])
    facts["safety_fits"] = "unread" if image is None else "yes" if image == size else "no"


def _dtype(components: list[Component], absent: str) -> str:
    dtypes = {feature.dtype for component in components for feature in component.outputs}
    if not dtypes:
        return absent
    return "FLOAT16" if "FLOAT16" in dtypes else "FLOAT32" if dtypes == {"FLOAT32"} else "other"


def _outputs(checked: Checked, found: list[Component], absent: str) -> None:
    def of(*kinds: str) -> list[Component]:
        return [c for c in found if c.kind in kinds and c.outputs]

    facts = checked.facts
    facts["outputs"] = _dtype(of("text_encoder", "text_encoder_2", "unet", "vae_decoder"), absent)
    facts["decoder_output"] = _dtype(of("vae_decoder"), absent)
    facts["encoder_output"] = _dtype(of("vae_encoder"), absent)


def _palettes(checked: Checked, found: list[Component]) -> None:
    wrong = [c for c in found if c.fingerprint.palettes]
    of_pictures = [c for c in wrong if c.kind not in ("controlnet", "safety_checker")]
    checked.facts["palettes"] = "wrong" if of_pictures else "right"
    for component in wrong:
        text = palettes.sentence(component.fingerprint.palettes)
        checked.findings.append(Finding("warning", component.path, text))


def _remarks(checked: Checked, found: list[Component], where: str) -> None:
    known = [c for c in found if c.windows and c.kind != "broken"]
    common = set.intersection(*(set(c.windows) for c in known)) if known else set()
    if len(known) > 1 and not common:
        text = "the components come from different converter releases; this is legal, each is judged by itself"
        checked.findings.append(Finding("note", where, text))
    encoder = _of(found, "vae_encoder")
    if checked.family == "sd3" and encoder is not None and encoder.family == "sd3":
        text = (
            "the VAE encoder is SDXL's: the converter exports it under SD3 ids as well, though SD3 needs 32 channels "
            "of moments; no released converter writes such an encoder"
        )
        checked.findings.append(Finding("warning", encoder.path, text))
    whole, halves = _of(found, "unet"), _of(found, "unet", chunk=1)
    if whole and halves and whole.fingerprint.compression and not halves.fingerprint.compression:
        text = "the whole UNet is compressed and its chunks are not; Swift prefers the chunks"
        checked.findings.append(Finding("note", where, text))
