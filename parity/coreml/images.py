"""Which pictures does Core ML accept, and which picture does it make of numbers?

An image feature is a tensor inside the program: ``(1, 3, height, width)`` in the declared channel order for colour,
``(1, 1, height, width)`` for grayscale, with values 0 to 255 (grayscale float16: the values themselves). Scale and bias
are operations of the program, so nothing is normalised here.

Modes as in Core ML's Python binding: inputs ``RGB`` (also for BGR features), ``L``, and ``F`` for grayscale float16;
outputs ``RGBA`` with opaque alpha, ``L`` and ``F``. coremltools' own image tests prove the modes and channel orders.
*Not verified on hardware*: colour outputs outside 0 to 255 are clipped and fractions rounded half to even.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

    from parity.mil.features import Feature

_MODES = {"rgb": "RGB", "bgr": "RGB", "grayscale": "L", "grayscale_fp16": "F"}


def is_image(value: object) -> bool:
    """Return whether a value is a PIL image."""
    from PIL import Image

    return isinstance(value, Image.Image)


def check_mode(image: Image.Image, feature: Feature) -> None:
    """Refuse an image whose mode is not the one of the feature.

    Raises
    ------
    RuntimeError
        Names both modes.
    """
    mode = _MODES[feature.color]
    if image.mode != mode:
        raise RuntimeError(
            f"Feature {feature.name} is a {feature.color} image and needs a PIL image of mode {mode!r}, "
            f"but this one has mode {image.mode!r}."
        )


def from_tensor(tensor: np.ndarray, feature: Feature) -> Image.Image:
    """Return the picture that an image output is.

    Parameters
    ----------
    tensor : numpy.ndarray
        Floating point, (1, channels, height, width) or (channels, height, width); 3 channels for colour, else 1.
    feature : Feature
        The image feature.

    Returns
    -------
    PIL.Image.Image
        Mode ``RGBA`` with alpha 255, ``L`` or ``F``.

    Raises
    ------
    RuntimeError
        The tensor has another shape.
    """
    from PIL import Image

    channels = feature.channels
    planes = tensor.reshape(tensor.shape[-3:]) if tensor.ndim >= 3 and tensor.size else tensor
    if planes.ndim != 3 or planes.size != tensor.size or planes.shape[0] != channels:
        raise RuntimeError(
            f"Output {feature.name} is a {feature.color} image, whose tensor has shape (1, {channels}, height, width), "
            f"but the program computed shape {tensor.shape}."
        )
    if feature.color == "grayscale_fp16":
        return Image.fromarray(planes[0].astype(np.float16).astype(np.float32))
    values = np.nan_to_num(planes.astype(np.float32), nan=0.0, posinf=255.0, neginf=0.0)
    pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    if feature.color == "grayscale":
        return Image.fromarray(pixels[0])
    colour = pixels if feature.color == "rgb" else pixels[::-1]
    opaque = np.full((1, *pixels.shape[1:]), 255, np.uint8)
    return Image.fromarray(np.ascontiguousarray(np.concatenate([colour, opaque]).transpose(1, 2, 0)))
