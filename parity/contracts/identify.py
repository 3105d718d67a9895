"""Which component is this, of which family, and which converter windows can have written it?

Steps: the declared features are matched against every contract of ``tables/converters.toml`` (names exactly, shapes by
solving the formulas, dtypes by the lists); what matches gives component, family and sizes. Then observations narrow the
windows, each recorded as evidence: the converter's own version key, licence text, spelling slip, specification version,
batch, token count, dtypes, compression, and the sizes of the safety checker. Hints (the coremltools version) exclude
nothing, since an old converter can run on a newer library.

The rules follow the history of the public converter. What they cannot tell: releases between which the written files
did not change (1.1.0 and 1.1.1), and files that somebody edited in the converter's style.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from packaging.specifiers import SpecifierSet

from parity.contracts.inspection import Component, DeclaredFeature, Evidence
from parity.contracts.names import DENOISERS
from parity.contracts.windows import ComponentContract, Converters, ConverterWindow, FeatureRule

_LEGACY_INPUTS = {"sample", "diagonal_noise", "noise", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"}
_CHUNK_ORIGINALS = {"sample", "timestep", "encoder_hidden_states", "time_ids", "text_embeds"}
_REPAIRED = "com.github.coreml-parity.repair"
_WIDTHS = {768: "sd1", 1024: "sd2"}


@dataclass(frozen=True)
class Identity:
    """What :func:`identify` found; fields as in :class:`parity.contracts.inspection.Component`."""

    kind: str
    chunk: int
    family: str
    contract: str
    sizes: dict[str, int]
    windows: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    hints: tuple[str, ...]


def identify(component: Component, tables: Converters) -> Identity:
    """Identify a component from its description and fingerprint.

    Parameters
    ----------
    component : Component
        With features, metadata and fingerprint; kind, family and windows are not read.
    tables : Converters
        The releases whose contracts are tried.

    Returns
    -------
    Identity
        ``kind`` is ``foreign`` when no contract fits.
    """
    chunk = _chunk(component)
    if chunk is not None:
        return _chunk_identity(component, chunk, tables)
    matches = _matches(component, tables)
    renamed = None if matches else _renamed(component)
    if renamed is not None:
        matches = _matches(renamed, tables)
    if not matches:
        return Identity("foreign", 0, "", "", {}, (), (), ())
    kind = _prefer(component, [contract.component for _, contract, _ in matches])
    matches = [match for match in matches if match[1].component == kind]
    sizes = matches[0][2]
    family = _family(kind, sizes, component, [contract.family for _, contract, _ in matches])
    matches = [match for match in matches if match[1].family == family]
    narrowing = _Narrowing([window for window, _, _ in matches], "names, shapes and dtypes of the features")
    _narrow(narrowing, component, kind, sizes, family)
    _narrow_by_library(narrowing, component)
    if renamed is not None:
        narrowing.keep(f"its features, but an input called {component.inputs[0].name}", lambda window: False)
    return Identity(
        kind,
        0,
        family,
        form(component),
        sizes,
        tuple(window.id for window in narrowing.windows),
        tuple(narrowing.evidence),
        _hints(component),
    )


def _renamed(component: Component) -> Component | None:
    """Return a VAE encoder of one input under its other name: repairs make pairs of name and dtype that are new."""
    if form(component) not in ("z", "x"):
        return None
    (feature,) = component.inputs
    return replace(component, inputs=(replace(feature, name="x" if feature.name == "z" else "z"),))


def form(component: Component) -> str:
    """Name the form of a VAE encoder (``legacy``, ``z``, ``x``) or of time ids (``flat``, ``rows``), else empty."""
    names = {feature.name for feature in component.inputs}
    if names == _LEGACY_INPUTS:
        return "legacy"
    if names in ({"z"}, {"x"}) and component.output("latent"):
        return next(iter(names))
    ids = component.input("time_ids")
    if ids is not None:
        return "flat" if len(ids.shape) == 1 else "rows"
    return ""


def _narrow_by_library(narrowing: _Narrowing, component: Component) -> None:
    """Outputs without a shape are what coremltools 6.1 to 7.0b1 describe; later windows cannot run on these."""
    if component.shapeless:
        narrowing.keep(
            "outputs described without a shape: written with coremltools 7.0b1 or earlier",
            lambda window: SpecifierSet(window.coremltools).contains("7.0b1", prereleases=True),
        )


class _Narrowing:
    """Windows that are left, and why."""

    def __init__(self, windows: list[ConverterWindow], text: str) -> None:
        self.windows = list({window.id: window for window in windows}.values())
        self.evidence = [Evidence(text, tuple(window.id for window in self.windows))]

    def keep(self, text: str, holds: Callable[[ConverterWindow], bool]) -> None:
        left = [window for window in self.windows if holds(window)]
        if len(left) < len(self.windows):
            self.windows = left
            self.evidence.append(Evidence(text, tuple(window.id for window in left)))


def _matches(
    component: Component, tables: Converters
) -> list[tuple[ConverterWindow, ComponentContract, dict[str, int]]]:
    found = []
    fits: dict[tuple[int, int], dict[str, int] | None] = {}  # windows share the rules of what did not change
    for window in tables.windows:
        for contract in window.components:
            key = (id(contract.inputs), id(contract.outputs))
            if key not in fits:
                sizes = _fit(contract.inputs, component.inputs, {})
                fits[key] = None if sizes is None else _fit(contract.outputs, component.outputs, sizes)
            sizes = fits[key]
            if sizes is not None and sizes.get("B", contract.batches[0]) in contract.batches:
                found.append((window, contract, sizes))
    return found


def _fit(
    rules: tuple[FeatureRule, ...], features: tuple[DeclaredFeature, ...], sizes: dict[str, int]
) -> dict[str, int] | None:
    by_name = {feature.name: feature for feature in features}
    for rule in rules:
        if rule.repeated:
            index = 0
            while (name := rule.name.format(i=index)) in by_name:
                one = by_name.pop(name)
                solved = rule.at(index).shape_formula.solve(one.shape, known=sizes)
                if solved is None or one.dtype not in rule.dtypes:
                    return None
                sizes = {key: value for key, value in solved.items() if not key.endswith(f"_{index}")}
                index += 1
            if index == 0:
                return None
            sizes["residuals"] = index
            continue
        feature = by_name.pop(rule.name, None)
        if feature is None or feature.dtype not in rule.dtypes:
            return None
        solved = rule.shape_formula.solve(feature.shape, known=sizes)
        if solved is None:
            return None
        sizes = solved
    return None if by_name else sizes


def _prefer(component: Component, kinds: list[str]) -> str:
    """Choose between components of equal features (text encoders; UNet and refiner) by the file name, then order."""
    return component.named if component.named in kinds else kinds[0]


def _family(kind: str, sizes: dict[str, int], component: Component, families: list[str]) -> str:
    found = list(dict.fromkeys(families))
    if len(found) == 1:
        return found[0]
    version = component.version.lower()
    if kind == "refiner":
        return "sdxl-refiner"
    if sizes.get("L") == 16 and "sd3" in found:
        return "sd3"
    if "T" in sizes and "sdxl-refiner" in found:
        return "sdxl-refiner" if sizes["T"] == 5 else "sdxl"
    if "sdxl" in found and (_is_xl(component) or not {"sd1", "sd2"} & set(found)):
        return "sd3" if "sd3" in found and "stable-diffusion-3" in version else "sdxl"
    if sizes.get("D") in _WIDTHS and _WIDTHS[sizes["D"]] in found:
        return _WIDTHS[sizes["D"]]
    if "sd2" in found and re.search(r"stable-diffusion-2|sd-?2|sd-turbo", version):
        return "sd2"
    return "sd1" if "sd1" in found else found[0]


def _is_xl(component: Component) -> bool:
    version = component.version.lower()
    return component.license.startswith("OpenRAIL++-M") or bool(re.search(r"(^|[^a-z])(sd)?xl([^a-z]|$)", version))


def _narrow(narrowing: _Narrowing, component: Component, kind: str, sizes: dict[str, int], family: str) -> None:
    _narrow_by_key(narrowing, component, kind)
    _narrow_by_program(narrowing, component, kind, sizes)
    if kind == "vae_encoder" and sizes.get("h") != sizes.get("w") and form(component) == "legacy":
        narrowing.keep("five inputs and not square", lambda window: window.id != "C2")
    if family == "sdxl" and kind == "unet" and component.license:
        plus = component.license.startswith("OpenRAIL++-M")
        narrowing.keep(
            "the licence text " + ("is" if plus else "is not") + " the one of SDXL",
            lambda window: window.component(kind, family=family).license == ("openrail++" if plus else "openrail"),
        )


def _quantizes_activations(component: Component) -> bool:
    return component.fingerprint.operators.get("quantize", 0) > 0 and component.specification >= 8


def _narrow_by_key(narrowing: _Narrowing, component: Component, kind: str) -> None:
    described = bool(component.author or component.license or component.version)
    key = component.metadata.get("com.github.apple.ml-stable-diffusion.version", "")
    if kind in DENOISERS and described:
        if key:
            narrowing.keep(
                f"the converter's version key is {key}",
                lambda window: window.version_key == key or (key == "1.0.0" and window.id == "C7"),
            )
        elif not _quantizes_activations(component):
            narrowing.keep("the converter's version key is absent", lambda window: not window.version_key)
    if "faciliate" in " ".join(feature.description for feature in component.outputs):
        narrowing.keep(
            "the output's description has a spelling slip that was corrected on 2022-12-14",
            lambda window: window.id == "C1",
        )


def _narrow_by_program(narrowing: _Narrowing, component: Component, kind: str, sizes: dict[str, int]) -> None:
    quantized_activations = _quantizes_activations(component)
    if quantized_activations:
        narrowing.keep("activations are quantized", lambda window: "w8a8" in window.compression)
    elif component.specification and kind != "multilingual_projection":
        narrowing.keep(
            f"specification version {component.specification}",
            lambda window: component.specification in window.specifications,
        )
    if sizes.get("S", 77) not in (77, 8) and kind in ("unet", "control-unet"):
        narrowing.keep(f"{sizes['S']} tokens instead of 77", lambda window: bool(window.version_key))
    forms = component.fingerprint.compression
    if any("palette" in name for name in forms):
        narrowing.keep("palettized weights", lambda window: any("palette" in c for c in window.compression))
    elif "8-bit linear" in forms and not quantized_activations:  # activation quantization makes weights linear, too
        narrowing.keep("weights of 8-bit linear form", lambda window: "affine8" in window.compression)
    if component.fingerprint.attention == "SPLIT_EINSUM_V2":
        narrowing.keep("attention SPLIT_EINSUM_V2", lambda window: "SPLIT_EINSUM_V2" in window.attention)
    if kind == "text_encoder" and component.fingerprint.mask == "unpatched":
        narrowing.keep("the causal mask is not patched", lambda window: window.causal_mask != "patched")


def _hints(component: Component) -> tuple[str, ...]:
    hints = []
    if _REPAIRED in component.metadata:
        hints.append("repaired by this project; the windows are those of the form it has now")
    library = component.metadata.get("com.github.apple.coremltools.version", "")
    if library:
        hints.append(f"written with coremltools {library} (an old converter can run on a newer library)")
    if any(feature.dtype == "FLOAT16" for feature in component.outputs):
        hints.append("float16 outputs: coremltools 7.0b2 or later, most likely 2023-08-15 to 2023-09-26")
    return tuple(hints)


def _chunk(component: Component) -> int | None:
    """Tell which half of a denoiser this is by its features, None when it is none.

    The first half has the original inputs but not the output; the second has the output and takes internal values.
    """
    names = {feature.name for feature in component.inputs}
    residuals = {name for name in names if name.startswith("additional_residual_")}
    foreign = names - _CHUNK_ORIGINALS - residuals
    has_output = component.output("noise_pred") is not None
    if has_output and foreign and "sample" not in foreign and len(component.outputs) == 1:
        return 2
    if not has_output and {"sample", "timestep"} <= names and not foreign and "controlnet_cond" not in names:
        controlnet = all(feature.name.startswith("additional_residual_") for feature in component.outputs)
        return None if controlnet else 1
    return None


def _chunk_identity(component: Component, chunk: int, tables: Converters) -> Identity:
    names = {feature.name for feature in component.inputs}
    kind = component.named if component.named in DENOISERS else ""
    if not kind:
        kind = "control-unet" if any(name.startswith("additional_residual_") for name in names) else "unet"
    sizes: dict[str, int] = {}
    sample = component.input("sample") or component.output("noise_pred")
    context = component.input("encoder_hidden_states")
    for feature, keys in ((sample, ("B", "Cin" if chunk == 1 else "Cout", "h", "w")), (context, ("", "D", "", "S"))):
        if feature is not None and len(feature.shape) == len(keys):
            sizes.update({k: size for k, size in zip(keys, feature.shape, strict=True) if k and size is not None})
    xl = "text_embeds" in names
    family = ("sdxl-refiner" if kind == "refiner" else "sdxl") if xl else _WIDTHS.get(sizes.get("D", 0), "sd1")
    source = component.metadata.get("com.github.apple.coremltools.source", "")
    narrowing = _Narrowing(list(tables.windows), "a half of a denoiser")
    hints = _hints(component)
    if not component.metadata:
        hints += ("no metadata: coremltools' bisect_model leaves none, nor does the converter's own chunker with 6.x",)
    if source == "milinternal":
        narrowing.keep("cut by the converter's own chunker", lambda window: window.chunker == "legacy")
    _narrow_by_library(narrowing, component)
    if kind in ("control-unet", "refiner"):
        narrowing.keep(kind, lambda window: any(c.component == kind for c in window.components))
    if xl:
        narrowing.keep("SDXL", lambda window: any(c.family == "sdxl" for c in window.components))
    return Identity(
        kind,
        chunk,
        family,
        form(component),
        sizes,
        tuple(window.id for window in narrowing.windows),
        tuple(narrowing.evidence),
        hints,
    )
