"""Which numbers do the formulas of a contract get for this model?

Contracts state shapes over names such as ``B``, ``h`` or ``D``; here each name gets its value from the model's
configurations and the request. Quirks of old windows are reproduced where they decide shapes (the safety checker's
image size), and refused where they would give files that do not fit together (a latent size that the UNet ignores).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from parity.contracts import ConverterWindow, converter
from parity.errors import UsageError
from parity.models.source import Source


def sizes(
    source: Source,
    window: ConverterWindow,
    *,
    batch: int = 2,
    latent: tuple[int, int] | None = None,
    tokens: int | None = None,
) -> dict[str, int]:
    """Return values for every name that the model's contracts use.

    Parameters
    ----------
    source : Source
        The model, for its configurations.
    window : ConverterWindow
        The release, for what it can write.
    batch : int
        ``B`` of the denoiser.
    latent : (int, int), optional
        Latent height and width; the configuration's size by default.
    tokens : int, optional
        ``S`` of the denoiser; the text encoder's length by default.

    Raises
    ------
    UsageError
        A size that the window cannot write.
    """
    denoiser = source.denoiser
    text = source.configs.get("text_encoder") or source.configs.get("text_encoder_2") or {}
    second = source.configs.get("text_encoder_2", {})
    vae = source.configs.get("vae", {})
    default = _pair(denoiser.get("sample_size") or 64)
    height, width = latent or default
    if (height, width) != default and "unet" not in window.latent_size_flags:
        raise UsageError(
            f"latent size {height}x{width}: the UNet of converter {window.name} ignores it, so UNet and decoder would "
            f"not fit; leave it out ({default[0]}x{default[1]}) or choose converter 0.3.0 or later"
        )
    if batch not in window.batches:
        raise UsageError(f"batch {batch}: converter {window.name} writes {', '.join(map(str, window.batches))}")
    if tokens is not None and window.order < converter("1.0.0").order:
        raise UsageError(f"token length {tokens}: converter {window.name} has no such option; 1.0.0 or later has")
    pixels = _safety_size(vae, latent, window)
    heads = source.configs.get("safety_checker", {})
    own = _transformer(source, height, width) if source.family == "sd3" else _unet(source, second)
    return {
        "B": batch,
        "h": height,
        "w": width,
        "Cin": int(denoiser["in_channels"]),
        "Cout": int(denoiser["out_channels"]),
        "L": int(vae.get("latent_channels", 4)),
        "S": tokens or int(text.get("max_position_embeddings", 77)),
        **own,
        "E1": int(text.get("hidden_size", 0)),
        "E2": int(second.get("hidden_size", 0)),
        "P": int(second.get("projection_dim", 0)),
        "Hs": pixels[0],
        "Ws": pixels[1],
        "K": int(heads.get("num_concepts", 17)),
    }


def _unet(source: Source, second: Mapping[str, Any]) -> dict[str, int]:
    unet = source.config("unet")
    cross = unet["cross_attention_dim"]
    width = int(max(cross) if isinstance(cross, (list, tuple)) else cross)
    return {"D": width, "T": _time_ids(source, unet, second)}


def _transformer(source: Source, height: int, width: int) -> dict[str, int]:
    """Return the width of the transformer's text, once model and size are known to be what the contract can say."""
    config = source.config("transformer")
    patch, largest = int(config.get("patch_size", 2)), int(config.get("pos_embed_max_size", 96))
    for name, size in (("height", height), ("width", width)):
        if size % patch or size // patch > largest:
            raise UsageError(
                f"{name} {8 * size}: the transformer of {source.identifier} takes multiples of {8 * patch} up to "
                f"{8 * patch * largest}"
            )
    first, second = source.config("text_encoder"), source.config("text_encoder_2")
    pooled = [int(first.get("projection_dim", 0)), int(second.get("projection_dim", 0))]
    if pooled[0] != first.get("hidden_size") or sum(pooled) != config.get("pooled_projection_dim"):
        raise UsageError(
            f"model {source.identifier}: the transformer takes pooled texts of width "
            f"{config.get('pooled_projection_dim')}, the text encoders give {pooled[0]} and {pooled[1]}, the first "
            f"of which the contract expects to be its hidden size, {first.get('hidden_size')}"
        )
    return {"J": int(config["joint_attention_dim"])}


def check_eighths(source: Source) -> None:
    """Refuse a VAE that halves pictures another number of times: contracts and apps count on eighths.

    Raises
    ------
    UsageError
        It has other than four levels.
    """
    levels = len(source.configs.get("vae", {}).get("block_out_channels", ()))
    if levels not in (0, 4):
        raise UsageError(
            f"{source.identifier}: its VAE has {levels} levels (block_out_channels in vae/config.json), so its "
            f"pictures are {2 ** (levels - 1)} times as large as its latents; the models that ml-stable-diffusion "
            "writes and apps read are 8 times as large, which takes 4 levels. Its other components can be converted "
            "(--components) in the model's own size"
        )


def residuals(unet: Mapping[str, Any], height: int, width: int) -> list[tuple[int, int, int]]:
    """Return (C, h, w) of each ControlNet residual: the UNet's skip connections in order, then its middle block.

    >>> shapes = residuals({"block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2}, 64, 64)
    >>> len(shapes), shapes[0], shapes[-1]
    (13, (320, 64, 64), (1280, 8, 8))
    """
    channels = [int(c) for c in unet["block_out_channels"]]
    layers = unet.get("layers_per_block", 2)
    counts = [int(n) for n in layers] if isinstance(layers, (list, tuple)) else [int(layers)] * len(channels)
    return [*_skips(channels, counts, height, width)]


def _skips(channels: list[int], counts: list[int], height: int, width: int) -> Iterator[tuple[int, int, int]]:
    yield channels[0], height, width
    for level, (c, count) in enumerate(zip(channels, counts, strict=True)):
        for _ in range(count):
            yield c, height, width
        if level < len(channels) - 1:
            height, width = (height - 1) // 2 + 1, (width - 1) // 2 + 1  # 3x3 convolution, stride 2, padding 1
            yield c, height, width
    yield channels[-1], height, width


def _pair(size: Any) -> tuple[int, int]:
    return (int(size[0]), int(size[1])) if isinstance(size, (list, tuple)) else (int(size), int(size))


def _time_ids(source: Source, unet: Mapping[str, Any], second: Mapping[str, Any]) -> int:
    if unet.get("addition_embed_type") != "text_time":
        return 0
    width = int(unet["projection_class_embeddings_input_dim"]) - int(second.get("projection_dim", 0))
    entries, rest = divmod(width, int(unet["addition_time_embed_dim"]))
    expected = 5 if source.configs["model_index"].get("requires_aesthetics_score") else 6
    if rest or entries != expected:
        raise UsageError(
            f"model {source.identifier}: the UNet's added embedding takes {entries} time ids, "
            f"the pipeline (requires_aesthetics_score) gives {expected}"
        )
    return entries


def _safety_size(vae: Mapping[str, Any], latent: tuple[int, int] | None, window: ConverterWindow) -> tuple[int, int]:
    default = _pair(vae.get("sample_size") or 512)
    if latent is None or "safety_checker" not in window.latent_size_flags:
        return default
    # from C3 until C4c the latent size was taken for the size in pixels
    scale = 1 if window.id in {"C3", "C4a", "C4b"} else 8
    return latent[0] * scale, latent[1] * scale
