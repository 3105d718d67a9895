"""Which kind of model is a checkpoint, and which tasks does it draw?

Answered from ``model_index.json`` and the UNet's configuration alone, so that a run can be planned before any library
is imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from parity import recipes

TASKS: Final[Mapping[str, tuple[str, ...]]] = {
    "sd": ("txt2img", "img2img", "inpaint", "controlnet", "controlnet-inpaint"),
    "sd-inpaint": ("inpaint",),
    "sdxl": ("txt2img", "img2img", "controlnet"),
    "sdxl-refiner": ("img2img",),
    "sd3": ("txt2img", "img2img"),
    "unconditional": ("unconditional",),
}
"""Family of a checkpoint to the tasks that the suite draws with it."""

SAID: Final[Mapping[str, str]] = {
    "sd": "a model of Stable Diffusion 1 or 2",
    "sd-inpaint": "an inpainting model of Stable Diffusion 1 or 2 (its UNet takes 9 channels)",
    "sdxl": "a model of SDXL",
    "sdxl-refiner": "SDXL's refiner",
    "sd3": "a model of Stable Diffusion 3",
    "unconditional": "an unconditional model (a UNet2DModel, without texts)",
}
"""What a family is called in a message."""

_INPAINTING = 9  # channels: latents, mask, latents of the masked picture


def of(index: Mapping[str, Any], unet: Mapping[str, Any]) -> str:
    """Return the family of a checkpoint: a key of :data:`TASKS`, or an empty text for one that is not drawn.

    Parameters
    ----------
    index : mapping
        Its ``model_index.json``.
    unet : mapping
        The configuration of its UNet; empty where there is none.

    Examples
    --------
    >>> of({"unet": ["diffusers", "UNet2DModel"]}, {"in_channels": 3})
    'unconditional'
    """
    parts = {part for part, entry in index.items() if isinstance(entry, list) and entry and entry[-1]}
    if index.get("unet", ["", ""])[-1] == "UNet2DModel" and not parts & {"vae", "vqvae", "text_encoder"}:
        return "unconditional"
    if index.get("transformer", ["", ""])[-1] == "SD3Transformer2DModel":
        return "sd3" if {"text_encoder", "text_encoder_2", "vae"} <= parts else ""
    if not {"unet", "vae"} <= parts or parts & {"transformer", "text_encoder_3"}:
        return ""
    channels = int(unet.get("in_channels", 4))
    if "text_encoder_2" in parts:
        kind = "sdxl" if "text_encoder" in parts else "sdxl-refiner"
        return kind if channels == 4 and unet.get("addition_embed_type") == "text_time" else ""
    if "text_encoder" not in parts or unet.get("addition_embed_type"):
        return ""
    return {4: "sd", _INPAINTING: "sd-inpaint"}.get(channels, "")


def identify(source: str) -> str:
    """Return the family of a checkpoint by path, shipped name or hub id; empty where it cannot be told.

    Opening the model says what is wrong with it; here a question about it is only planned.
    """
    read = _read(source)
    return of(*read) if read else ""


def has_part(source: str, part: str) -> bool:
    """Tell whether a checkpoint's index lists a part; False where that cannot be told."""
    read = _read(source)
    return bool(read and (read[0].get(part) or [None])[-1])


def _read(source: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Read a checkpoint's index and its UNet's configuration."""
    folder = recipes.find(source)
    folder = Path(source).expanduser() if folder is None else folder
    return _local(folder) if folder.is_dir() else _hub(source)


def _local(folder: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    found = []
    for name in ("model_index.json", "unet/config.json"):
        try:
            table = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            table = {}
        found.append(table if isinstance(table, dict) else {})
    return (found[0], found[1]) if found[0] else None


def _hub(name: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    from huggingface_hub import hf_hub_download

    try:
        index = hf_hub_download(name, "model_index.json")
        unet = hf_hub_download(name, "unet/config.json")
    except Exception:  # no hub, no such repository, no such file: the hub's client has many errors for it
        return None
    return json.loads(Path(index).read_text(encoding="utf-8")), json.loads(Path(unet).read_text(encoding="utf-8"))
