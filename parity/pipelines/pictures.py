"""How are masks and control images read, and which are refused?

A mask belongs to one start picture and has its size. A control image may have another size than the picture that is
drawn (it is resized as diffusers does when it is told a size), but not another shape: stretched, it would control
something else. Transparency is refused where a task has no use for it, since it would be ignored in silence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from parity.errors import FormatError
from parity.models.model import Model
from parity.pipelines.draws import hidden_holes
from parity.pipelines.request import Request, open_picture

_GRAY = ("1", "L", "I;16", "I", "F")
_OPAQUE = (*_GRAY, "RGB", "YCbCr", "CMYK", "LAB", "HSV")


def read_mask(request: Request, model: Model) -> Any:
    """Read the mask of a request as diffusers does: gray, resized, 0 or 1.

    Returns
    -------
    torch.Tensor
        float32 (1, 1, height, width); 1 is drawn anew.

    Raises
    ------
    MissingError, FormatError
        No such file, not a picture, another size than the start picture, transparency, or nothing to draw.
    """
    from diffusers.image_processor import VaeImageProcessor

    assert request.mask is not None  # Request refuses both
    assert request.image is not None
    mask = _opaque(request.mask, "mask", "a mask is gray: white is drawn anew, black is kept")
    wanted = open_picture(request.image).size
    if mask.size != wanted:
        raise FormatError(
            f"mask {request.mask}: {_size(mask.size)} pixels, but the start picture {request.image.name} has "
            f"{_size(wanted)}; both must cover the same picture"
        )
    processor = VaeImageProcessor(
        vae_scale_factor=model.vae_scale, do_normalize=False, do_binarize=True, do_convert_grayscale=True
    )
    height, width = model.image_size
    read = processor.preprocess(mask, height=height, width=width)
    if not read.any():
        raise FormatError(f"mask {request.mask}: black everywhere, so nothing is drawn; white marks what is drawn anew")
    return read


def read_control(path: Path, model: Model, *, holes: bool = False) -> Any:
    """Read a control image as diffusers does: RGB in [0, 1], resized.

    Parameters
    ----------
    path : path
        The file.
    model : Model
        For the size of the pictures.
    holes : bool
        Whether transparent pixels become -1, as ControlNets for inpainting want it; they are refused otherwise.

    Returns
    -------
    torch.Tensor
        float32 (1, 3, height, width).

    Raises
    ------
    MissingError, FormatError
        No such file, not a picture, of another shape than the pictures, or transparent where that means nothing.
    """
    import torch
    from diffusers.image_processor import VaeImageProcessor

    height, width = model.image_size
    picture = (
        open_picture(path, "") if holes else _opaque(path, "control image", "only controlnet-inpaint has a use for it")
    )
    if picture.size[0] * height != picture.size[1] * width:
        raise FormatError(
            f"control image {path}: {_size(picture.size)} pixels, but the pictures have {_size((width, height))}: "
            "another shape; crop it, so that it says where things are"
        )
    processor = VaeImageProcessor(vae_scale_factor=model.vae_scale, do_convert_rgb=True, do_normalize=False)
    read = processor.preprocess(picture.convert("RGB"), height=height, width=width)
    if not holes:
        return read
    if (hidden := _transparent(picture)) is None:
        raise FormatError(f"control image {path}: it has no transparent pixels, which mark what is drawn anew")
    whole = np.asarray(hidden.resize((width, height)), np.float32)[None, None]
    return torch.from_numpy(hidden_holes(np.concatenate([read.numpy(), whole], axis=1), holes=True))


def control_layers(path: Path, model: Model) -> np.ndarray:
    """Read a control image for an app: float32 (1, 3 or 4, height, width) in [0, 1], the fourth its opacity.

    Raises
    ------
    MissingError, FormatError
        As :func:`read_control`.
    """
    picture = open_picture(path, "")
    opacity = _transparent(picture)
    colours = read_control(path, model, holes=opacity is not None)
    if opacity is None:
        return np.asarray(colours.numpy(), np.float32)
    height, width = model.image_size
    plain = picture.convert("RGB").resize((width, height))
    layers = np.asarray(plain, np.float32).transpose(2, 0, 1)[None] / np.float32(255)
    whole = np.asarray(opacity.resize((width, height)), np.float32)[None, None] / np.float32(255)
    return np.concatenate([layers, whole], axis=1)


def _opaque(path: Path, what: str, reason: str) -> Any:
    picture = open_picture(path, "")
    if picture.mode == "P" and "transparency" not in picture.info:
        return picture.convert("RGB")
    if picture.mode not in _OPAQUE:
        raise FormatError(f"{what} {path}: mode {picture.mode}, with transparency that would be ignored; {reason}")
    return picture


def _transparent(picture: Any) -> Any:
    """Return a picture's opacity as a gray picture, or None where nothing is transparent."""
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return None
    opacity = picture.convert("RGBA").getchannel("A")
    return opacity if opacity.getextrema()[0] == 0 else None


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
