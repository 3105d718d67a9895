"""What exactly is to be written, and can the contract express it?

A request (components, contract, sizes, attention, precision) is checked against the contract tables and the model's
configurations before anything heavy is imported; the result is one :class:`parity.convert.job.Job` for each package,
with concrete features, file name and texts. Bad input ends here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from parity import memory
from parity.contracts import ComponentContract, ConverterWindow, FeatureRule, converter, converters
from parity.contracts.names import OF_EACH_STEP, TEXT_ENCODERS
from parity.convert import base, compress, ranks
from parity.convert.job import ATTENTION, FLOAT32, TARGETS, Job, Settings, TensorSpec
from parity.convert.sizes import check_eighths, residuals, sizes
from parity.errors import UsageError
from parity.models.source import PARTS, Source, open_model, open_network

DEFAULT_COMPONENTS: Final = ("text_encoder", "unet", "vae_decoder", "vae_encoder")
SD3_COMPONENTS: Final = ("text_encoder", "text_encoder_2", "mmdit", "vae_decoder")


def plan(
    model: Any,
    *,
    components: Sequence[str] | None = None,
    settings: Settings | None = None,
    identifier: str | None = None,
    controlnets: Sequence[str | Path] = (),
    refiner: Any = None,
    vae: str | Path | None = None,
) -> list[Job]:
    """Check a request and return its jobs in the order of conversion.

    Parameters
    ----------
    model : path, hub id or DiffusionPipeline
        What is converted: a diffusers folder, a hub id, or a pipeline in memory.
    components : sequence of str, optional
        Any of :data:`parity.models.source.PARTS`; :data:`DEFAULT_COMPONENTS` by default, :data:`SD3_COMPONENTS` of
        Stable Diffusion 3.
    settings : Settings
        How; the defaults of :class:`parity.convert.job.Settings` otherwise.
    identifier : str, optional
        Model id for file names and metadata.
    controlnets : sequence of path or hub id
        For the component ``controlnet``.
    refiner : path, hub id or DiffusionPipeline, optional
        For the component ``refiner`` of a base model.
    vae : path or hub id, optional
        An ``AutoencoderKL`` for the VAE's components instead of the model's own (1.1.0 and later).

    Raises
    ------
    ParityError
        One clear message; nothing has been written.
    """
    settings = settings or Settings()
    window = converter(settings.contract)
    _check_settings(settings, window)
    source = open_model(model, identifier=identifier)
    if components is None:
        components = SD3_COMPONENTS if source.family == "sd3" else DEFAULT_COMPONENTS
    jobs: list[Job] = []
    for component in dict.fromkeys(components):
        if component not in PARTS:
            raise UsageError(f"unknown component {component!r}; there are {', '.join(PARTS)}")
        if component == "controlnet":
            jobs.extend(_controlnet_jobs(source, window, settings, controlnets))
        elif component == "refiner":
            jobs.append(_refiner_job(source, window, settings, refiner))
        elif vae is not None and PARTS[component] == "vae":
            jobs.append(_vae_job(source, window, settings, component, vae))
        else:
            jobs.append(_job(source, window, settings, component))
    if vae is not None and all(job.part != "vae" for job in jobs):
        raise UsageError("a VAE was named, but neither vae_decoder nor vae_encoder is among the components")
    if not jobs:
        raise UsageError(f"components: name at least one of {', '.join(PARTS)}")
    return jobs


def _check_settings(settings: Settings, window: ConverterWindow) -> None:
    if settings.attention not in ATTENTION:
        raise UsageError(f"unknown attention {settings.attention!r}; there are {', '.join(ATTENTION)}")
    if settings.attention not in window.attention:
        raise UsageError(
            f"attention {settings.attention}: converter {window.name} has {', '.join(window.attention)}; "
            "1.0.0 and later have all three"
        )
    _check_target(settings, window)
    if settings.attention_rank not in (None, *ranks.RANKS):
        raise UsageError(f"attention rank {settings.attention_rank!r}: 3 or 4")
    if not settings.output_shapes and (settings.outputs == "FLOAT16" or window.order >= converter("C6b").order):
        raise UsageError(
            "outputs without shape: coremltools 6.1 to 7.0b1 wrote them, with FLOAT32; contracts before C6b only"
        )
    if settings.outputs not in (None, "FLOAT16", "FLOAT32"):
        raise UsageError(f"outputs {settings.outputs!r}: FLOAT16 or FLOAT32")
    if settings.float32 not in (None, *FLOAT32):
        raise UsageError(f"float32 {settings.float32!r}: {' or '.join(FLOAT32)}")
    _check_compression(settings, window)
    for name, size in (("height", settings.height), ("width", settings.width)):
        if size is not None and (size <= 0 or size % 8):
            raise UsageError(f"{name} {size}: the image size must be a positive multiple of 8 (the VAE's factor)")


def _check_target(settings: Settings, window: ConverterWindow) -> None:
    if settings.target not in TARGETS:
        raise UsageError(f"unknown deployment target {settings.target!r}; there are {', '.join(TARGETS)}")
    if TARGETS[settings.target] not in window.specifications:
        raise UsageError(
            f"deployment target {settings.target}: converter {window.name} writes macOS13 only; main has all"
        )


def _check_compression(settings: Settings, window: ConverterWindow) -> None:
    if settings.compression is not None:
        if settings.compression not in compress.NAMES:
            raise UsageError(f"unknown compression {settings.compression!r}; there are {', '.join(compress.NAMES)}")
        if settings.compression not in window.compression:
            own = ", ".join(name for name in window.compression if name in compress.NAMES)
            raise UsageError(f"compression {settings.compression}: converter {window.name} has {own}")
    if settings.recipe is not None:
        if settings.compression is not None:
            raise UsageError("a recipe and a compression exclude each other; give one")
        if window.order < converter("C6").order:
            raise UsageError(f"mixed bits: converter {window.name} has none; C6 and later have")


def _latent(source: Source, settings: Settings) -> tuple[int, int] | None:
    if settings.height is None and settings.width is None:
        return None
    size = source.denoiser.get("sample_size") or 64
    default = size if isinstance(size, (list, tuple)) else (size, size)
    height, width = ((n or 8 * d) // 8 for n, d in zip((settings.height, settings.width), default, strict=True))
    channels = source.configs.get("vae", {}).get("block_out_channels", [1])[0]
    needed = 8 * height * 8 * width * channels * 4  # bytes: what the VAE's last layers hold, in float32
    if needed > memory.physical():
        raise UsageError(
            f"height {8 * height}, width {8 * width}: one layer of the VAE holds {needed / 2**30:,.0f} GiB, "
            f"and this machine has {memory.physical() / 2**30:,.0f} GiB"
        )
    return height, width


def _job(source: Source, window: ConverterWindow, settings: Settings, component: str) -> Job:
    source.config(PARTS[component])
    if source.family == "sd3" and component == "vae_encoder":
        raise UsageError(
            "component vae_encoder: no converter release writes Stable Diffusion 3's (main exports SDXL's under its "
            "name, which is of no use), and no release of an app takes a picture to start from with this family"
        )
    # a refiner's VAE is its base's, which no release converted again from the refiner
    family = "sdxl" if source.family == "sdxl-refiner" and PARTS[component] == "vae" else source.family
    contract = window.component(component, family=family)
    ids = {"model_id": source.identifier}
    return _make(source, source, window, settings, contract, PARTS[component], None, ids, source.identifier)


def _vae_job(source: Source, window: ConverterWindow, settings: Settings, component: str, vae: str | Path) -> Job:
    """Plan a VAE that replaces the model's: names and texts stay the model's, SDXL's decoder becomes half precision."""
    if window.order < converter("1.1.0").order:
        raise UsageError(f"custom VAE: converter {window.name} has no such option; 1.1.0 and later have")
    name, folder, config = open_network(vae, "AutoencoderKL")
    theirs, mine = config.get("latent_channels", 4), source.denoiser["out_channels"]
    if theirs != mine:
        raise UsageError(f"VAE {name} has {theirs} latent channels, the denoiser of {source.identifier} gives {mine}")
    half = component == "vae_decoder" and source.family.startswith("sdxl")
    contract = window.component(component, family=source.family, variant="custom-vae" if half else "")
    other = replace(source, configs={**source.configs, "vae": config})
    ids = {"model_id": source.identifier}
    return _make(source, other, window, settings, contract, "vae", folder, ids, source.identifier)


def _refiner_job(source: Source, window: ConverterWindow, settings: Settings, refiner: Any) -> Job:
    if refiner is None:
        raise UsageError("component refiner: name the refiner model (refiner=… or --refiner); the base has none")
    other = open_model(refiner)
    if other.family != "sdxl-refiner":
        raise UsageError(f"refiner {other.identifier} is of family {other.family}; a refiner has text_encoder_2 only")
    contract = window.component("refiner", family="sdxl")
    ids = {"model_id": source.identifier}
    return _make(source, other, window, settings, contract, "unet", None, ids, other.identifier)


def _controlnet_jobs(
    source: Source, window: ConverterWindow, settings: Settings, controlnets: Sequence[str | Path]
) -> list[Job]:
    if not controlnets:
        raise UsageError("component controlnet: name at least one ControlNet (controlnets=… or --controlnet)")
    contract = window.component("controlnet", family=source.family)
    jobs = []
    for model in controlnets:
        name, folder, config = open_network(model, "ControlNetModel")
        base.require(source, name, folder, config)
        ids = {"model_id": source.identifier, "controlnet_id": name}
        jobs.append(_make(source, source, window, settings, contract, "controlnet", folder, ids, name))
    return jobs


def _make(
    original: Source,
    source: Source,
    window: ConverterWindow,
    settings: Settings,
    contract: ComponentContract,
    part: str,
    folder: Path | None,
    ids: Mapping[str, str],
    version: str,
) -> Job:
    latent = _latent(source, settings)
    if part == "vae" or latent is not None:  # what else is converted in the model's own size has latents alone
        check_eighths(source)
    batch = settings.batch if contract.component in OF_EACH_STEP else 2
    if batch not in contract.batches and contract.component not in TEXT_ENCODERS:
        raise UsageError(
            f"batch {batch}: {contract.component} of family {contract.family} is written with batch "
            f"{', '.join(map(str, contract.batches))} by converter {window.name}"
        )
    values = sizes(source, window, batch=batch, latent=latent, tokens=settings.tokens)
    if contract.component.startswith("text_encoder"):  # the token option changes the denoiser only
        values["S"] = int(source.config(part).get("max_position_embeddings", 77))
    extra = [] if source.family == "sd3" else residuals(source.config("unet"), values["h"], values["w"])
    text = source.configs.get("text_encoder") or source.configs.get("text_encoder_2") or {}
    author = converters().author_template.format(model_id=version if part == "controlnet" else original.identifier)
    license_texts = converters().licenses.get(contract.license, {})
    whole = (
        contract.compute == "FLOAT32" and settings.outputs in window.output_dtypes
    )  # left to coremltools: by precision
    rank = ranks.rank(contract.component, window)
    settings = replace(
        settings,
        attention_rank=None if rank is None else settings.attention_rank or rank,
        float32=_float32(settings, contract),
    )
    metadata = {converters().keys["converter"]: contract.version_key} if contract.version_key else {}
    return Job(
        key=f"controlnet:{version}" if part == "controlnet" else contract.component,
        contract=contract,
        source=source,
        part=part,
        folder=folder,
        inputs=_features(contract.inputs, values, extra, None),
        outputs=_features(contract.outputs, values, extra, None if whole else settings.outputs),
        file_name=contract.file_name(**ids),
        labels={
            "author": author,
            "license": license_texts.get("template", "").format(model_id=version),
            "version": version,
            "description": contract.description,
            "metadata": metadata,
            "output_shapes": settings.output_shapes,
        },
        vocabulary={"size": int(text.get("vocab_size", 2)), "end": int(_end(text))},
        settings=settings,
    )


def _float32(settings: Settings, contract: ComponentContract) -> str | None:
    """Return what a component keeps in float32; None where that changes nothing, so that its package is shared."""
    if contract.compute == "FLOAT32" or (settings.float32 != "all" and contract.component not in OF_EACH_STEP):
        return None
    return settings.float32


def _end(text: Mapping[str, Any]) -> int:
    end = int(text.get("eos_token_id") or 2)
    return int(text.get("vocab_size", 3)) - 1 if end == 2 else end  # 2 in old configurations: the largest id is meant


def _features(
    rules: Sequence[FeatureRule],
    values: Mapping[str, int],
    extra: Sequence[tuple[int, int, int]],
    dtype: str | None,
) -> tuple[TensorSpec, ...]:
    result = []
    for rule in rules:
        if dtype is not None and dtype not in rule.dtypes:
            raise UsageError(f"outputs {dtype}: this release writes {rule.name} as {' or '.join(rule.dtypes)}")
        if not rule.repeated:
            result.append(TensorSpec(rule.name, rule.shape(values), dtype or rule.dtype, rule.role))
            continue
        for i, (c, h, w) in enumerate(extra):
            one = rule.at(i)
            shape = one.shape({**values, f"C_{i}": c, f"h_{i}": h, f"w_{i}": w})
            result.append(TensorSpec(one.name, shape, dtype or one.dtype, one.role))
    return tuple(result)
