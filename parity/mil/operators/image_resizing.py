"""Image operators: upsampling, resizing, cropping, region crops, resampling and affine maps."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from parity.errors import UnsupportedError
from parity.mil.operators import sampling
from parity.mil.operators.limits import affordable
from parity.mil.operators.registry import Context, operator

_SCALES = ("scale_factor_height", "scale_factor_width")
_SIZES = ("target_size_height", "target_size_width")


def _scaled(size: int, factor: int | float) -> int:
    """floor(size * factor), multiplied in float32 as the format's shape rule is."""
    return size * factor if isinstance(factor, int) else int(np.floor(np.float32(factor) * np.float32(size)))


def _images(x: torch.Tensor) -> torch.Tensor:
    return x if x.dim() == 4 else x.reshape(1, -1, *x.shape[-2:])


def _picked(context: Context, x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Nearest neighbour, source floor(i * in / out)."""
    affordable(context, [*x.shape[:-2], height, width])
    return functional.interpolate(_images(x), size=(height, width)).reshape(*x.shape[:-2], height, width)


def _interpolated(context: Context, x: torch.Tensor, height: int, width: int, mode: str) -> torch.Tensor:
    affordable(context, [*x.shape[:-2], height, width])
    rows, columns = sampling.grid(mode, x.shape[-2], height), sampling.grid(mode, x.shape[-1], width)
    return sampling.linear(sampling.linear(x, -2, rows), -1, columns)


@operator("upsample_nearest_neighbor", exact=True, aliases=True, static=_SCALES)
def upsample_nearest_neighbor(
    context: Context, x: torch.Tensor, scale_factor_height: int | float = 1, scale_factor_width: int | float = 1
) -> torch.Tensor:
    """Enlarge the last two axes by factors, whole or fractional."""
    height, width = _scaled(x.shape[-2], scale_factor_height), _scaled(x.shape[-1], scale_factor_width)
    return _picked(context, x, height, width)


@operator("resize_nearest_neighbor", exact=True, aliases=True, static=_SIZES)
def resize_nearest_neighbor(
    context: Context, x: torch.Tensor, target_size_height: int, target_size_width: int
) -> torch.Tensor:
    """Bring the last two axes to given sizes."""
    return _picked(context, x, target_size_height, target_size_width)


@operator("upsample_bilinear", static=(*_SCALES, "align_corners", "half_pixel_centers"))
def upsample_bilinear(
    context: Context,
    x: torch.Tensor,
    scale_factor_height: int | float = 1,
    scale_factor_width: int | float = 1,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> torch.Tensor:
    """Enlarge the last two axes by factors; the spacing follows from the sizes, not from the factors."""
    height, width = _scaled(x.shape[-2], scale_factor_height), _scaled(x.shape[-1], scale_factor_width)
    unaligned = "DEFAULT" if half_pixel_centers is False else "UNALIGN_CORNERS"
    return _interpolated(context, x, height, width, "STRICT_ALIGN_CORNERS" if align_corners else unaligned)


@operator("resize_bilinear", static=(*_SIZES, "sampling_mode"))
def resize_bilinear(
    context: Context,
    x: torch.Tensor,
    target_size_height: int = 1,
    target_size_width: int = 1,
    sampling_mode: str = "DEFAULT",
) -> torch.Tensor:
    """Bring the last two axes to given sizes (modes: `sampling.grid`)."""
    return _interpolated(context, x, target_size_height, target_size_width, sampling_mode)


@operator(
    "resize", aliases=True, since="iOS17", static=("shape", "resized_dims", "interpolation_mode", "sampling_mode")
)
def resize(
    context: Context,
    x: torch.Tensor,
    shape: tuple[int, ...],
    resized_dims: int,
    interpolation_mode: str = "LINEAR",
    sampling_mode: str = "DEFAULT",
) -> torch.Tensor:
    """Bring the last `resized_dims` axes to the last sizes of `shape`; 0 keeps a size."""
    methods = {"LINEAR": sampling.linear, "NEAREST_NEIGHBOR": sampling.nearest}
    if interpolation_mode not in methods:
        raise UnsupportedError(f"operation {context.name!r}: resize by {interpolation_mode!r}; {', '.join(methods)}")
    affordable(context, [*x.shape[:-resized_dims], *shape[-resized_dims:]])
    result = x
    for axis in range(-resized_dims, 0):
        positions = sampling.grid(sampling_mode, x.shape[axis], shape[axis] or x.shape[axis])
        result = methods[interpolation_mode](result, axis, positions)
    return result if x.is_floating_point() else result.to(x.dtype)


@operator("crop", exact=True, aliases=True, static=("crop_height", "crop_width"))
def crop(context: Context, x: torch.Tensor, crop_height: tuple[int, int], crop_width: tuple[int, int]) -> torch.Tensor:
    """Cut (before, after) off the last two axes."""
    (top, bottom), (left, right) = crop_height, crop_width
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


def _corners(boxes: torch.Tensor, mode: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return top, left, bottom and right of boxes (N, 4)."""
    a, b, c, d = boxes.unbind(1)
    if mode.endswith("WIDTH_FIRST"):
        a, b, c, d = b, a, d, c
    if mode.startswith("CENTER_SIZE"):
        return a - c / 2, b - d / 2, a + c / 2, b + d / 2
    if mode.startswith("CORNERS"):
        return a, b, c, d
    raise UnsupportedError(
        f"box_coordinate_mode {mode!r}; known are CORNERS_* and CENTER_SIZE_* _HEIGHT_FIRST, _WIDTH_FIRST"
    )


def _inside(
    top: torch.Tensor, left: torch.Tensor, bottom: torch.Tensor, right: torch.Tensor, last: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Replace boxes of which nothing lies between 0 and `last` by the whole image."""
    beyond = torch.zeros_like(top, dtype=torch.bool)
    for start, end, limit in ((top, bottom, last[0]), (left, right, last[1])):
        low, high = torch.minimum(start, end), torch.maximum(start, end)
        beyond |= ((low >= limit) & (high > limit)) | ((high <= 0) & (low < 0))
    starts = (torch.where(beyond, 0.0, start) for start in (top, left))
    ends = (torch.where(beyond, limit.double(), end) for end, limit in ((bottom, last[0]), (right, last[1])))
    return (*starts, *ends)


def _crops(
    images: torch.Tensor,
    boxes: torch.Tensor,
    *,
    size: tuple[int, int],
    normalized: bool,
    scale: float,
    box_mode: str,
    mode: str,
    value: float | None,
) -> torch.Tensor:
    """Return box n of image n, (N, C, height, width); beyond the image lies `value`, or its border if None.

    Without `value`, a box of which nothing lies inside the image gives the whole image: the one result of the kind that
    coremltools' tests record of the framework. The format forbids such boxes.
    """
    last = torch.tensor([images.shape[2] - 1, images.shape[3] - 1], dtype=torch.float64)
    top, left, bottom, right = _corners(boxes.double() * scale, box_mode)
    if value is None:
        top, left, bottom, right = _inside(top, left, bottom, right, torch.ones(2) if normalized else last)
    positions = []
    for start, end, limit, count in ((top, bottom, last[0], size[0]), (left, right, last[1], size[1])):
        if normalized:
            start, end = start * limit, end * limit
        length = (end - start).abs().unsqueeze(1)
        direction = torch.where(end < start, -1.0, 1.0).unsqueeze(1)
        positions.append(start.unsqueeze(1) + direction * sampling.grid(mode, length + 1, count))
    rows = positions[0].unsqueeze(2).expand(-1, -1, size[1])
    columns = positions[1].unsqueeze(1).expand(-1, size[0], -1)
    result = sampling.sample(images, rows, columns, mode="bilinear", padding="border", value=0.0)
    if value is None:
        return result
    outside = (rows < 0) | (rows > last[0]) | (columns < 0) | (columns > last[1])
    return result.masked_fill(outside.unsqueeze(1), value)


_CROP_RESIZE = (
    "target_height",
    "target_width",
    "normalized_coordinates",
    "spatial_scale",
    "box_coordinate_mode",
    "sampling_mode",
)


def _regions(x: torch.Tensor, roi: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Pair images and boxes: (N, 1, 4, 1, 1) with every image, (N, 1, 5, 1, 1) with the image that comes first."""
    boxes = roi.reshape(len(roi), -1)
    if boxes.shape[1] == 5:
        return x[boxes[:, 0].long()], boxes[:, 1:], 1
    return x.repeat(len(boxes), 1, 1, 1), boxes.repeat_interleave(len(x), 0), len(x)


@operator("crop_resize", static=_CROP_RESIZE)
def crop_resize_ios15(
    context: Context,
    x: torch.Tensor,
    roi: torch.Tensor,
    target_height: int = 1,
    target_width: int = 1,
    normalized_coordinates: bool = False,
    spatial_scale: float = 1.0,
    box_coordinate_mode: str = "CORNERS_HEIGHT_FIRST",
    sampling_mode: str = "DEFAULT",
) -> torch.Tensor:
    """Cut boxes out of images, to (N, B or 1, C, height, width); beyond an image its border goes on.

    A box of which nothing lies inside gives the whole image.
    """
    affordable(context, [len(roi), *x.shape[:2], target_height, target_width])
    images, boxes, batch = _regions(x, roi)
    crops = _crops(
        images,
        boxes,
        size=(target_height, target_width),
        normalized=normalized_coordinates,
        scale=spatial_scale,
        box_mode=box_coordinate_mode,
        mode=sampling_mode,
        value=None,
    )
    return crops.unflatten(0, (-1, batch))


@operator("crop_resize", since="iOS16", static=(*_CROP_RESIZE, "pad_value"))
def crop_resize_ios16(
    context: Context,
    x: torch.Tensor,
    roi: torch.Tensor,
    target_height: int = 1,
    target_width: int = 1,
    normalized_coordinates: bool = False,
    spatial_scale: float = 1.0,
    box_coordinate_mode: str = "CORNERS_HEIGHT_FIRST",
    sampling_mode: str = "DEFAULT",
    pad_value: float = 0.0,
) -> torch.Tensor:
    """The same; positions beyond the image give `pad_value`."""
    affordable(context, [len(roi), *x.shape[:2], target_height, target_width])
    images, boxes, batch = _regions(x, roi)
    crops = _crops(
        images,
        boxes,
        size=(target_height, target_width),
        normalized=normalized_coordinates,
        scale=spatial_scale,
        box_mode=box_coordinate_mode,
        mode=sampling_mode,
        value=pad_value,
    )
    return crops.unflatten(0, (-1, batch))


@operator("crop_resize", since="iOS17", static=(*_CROP_RESIZE, "pad_value"))
def crop_resize(
    context: Context,
    x: torch.Tensor,
    boxes: torch.Tensor,
    box_indices: torch.Tensor | None = None,
    target_height: int = 1,
    target_width: int = 1,
    normalized_coordinates: bool = False,
    spatial_scale: float = 1.0,
    box_coordinate_mode: str = "CORNERS_HEIGHT_FIRST",
    sampling_mode: str = "DEFAULT",
    pad_value: float = 0.0,
) -> torch.Tensor:
    """Cut boxes (N, 4) out of the images that `box_indices` (N) names, to (N, C, height, width)."""
    affordable(context, [len(boxes), x.shape[1], target_height, target_width])
    return _crops(
        x[: len(boxes)] if box_indices is None else x[box_indices.long()],
        boxes,
        size=(target_height, target_width),
        normalized=normalized_coordinates,
        scale=spatial_scale,
        box_mode=box_coordinate_mode,
        mode=sampling_mode,
        value=pad_value,
    )


_RESAMPLE = ("sampling_mode", "padding_mode", "padding_value", "coordinates_mode", "align_corners")


def _pixels(coordinates: torch.Tensor, size: int, mode: str, align_corners: bool) -> torch.Tensor:
    values = coordinates.double()
    if mode == "unnormalized":
        return values
    if mode == "normalized_minus_one_to_one":
        values = (values + 1) / 2
    elif mode != "normalized_zero_to_one":
        raise UnsupportedError(
            f"coordinates_mode {mode!r}; known are unnormalized, normalized_minus_one_to_one, normalized_zero_to_one"
        )
    return values * (size - 1) if align_corners else values * size - 0.5


@operator("resample", static=_RESAMPLE)
def resample(
    context: Context,
    x: torch.Tensor,
    coordinates: torch.Tensor,
    sampling_mode: str,
    padding_mode: str,
    padding_value: float,
    coordinates_mode: str,
    align_corners: bool,
) -> torch.Tensor:
    """Read x (B, C, H, W) at coordinates (B, h, w, 2) of (x, y)."""
    column = _pixels(coordinates[..., 0], x.shape[3], coordinates_mode, align_corners)
    row = _pixels(coordinates[..., 1], x.shape[2], coordinates_mode, align_corners)
    return sampling.sample(x, row, column, mode=sampling_mode, padding=padding_mode, value=padding_value)


@operator("affine", static=("output_height", "output_width", *_RESAMPLE))
def affine(
    context: Context,
    x: torch.Tensor,
    transform_matrix: torch.Tensor,
    output_height: int,
    output_width: int,
    sampling_mode: str,
    padding_mode: str,
    padding_value: float,
    coordinates_mode: str,
    align_corners: bool,
) -> torch.Tensor:
    """Read x at ``(a0 u + a1 v + a2, b0 u + b1 v + b2)`` for normalized output positions (u, v)."""
    affordable(context, [*x.shape[:2], output_height, output_width])
    theta = transform_matrix.double().reshape(-1, 2, 3).expand(len(x), -1, -1)
    shape = [len(x), 1, output_height, output_width]
    points = functional.affine_grid(theta, shape, align_corners=align_corners)
    return resample(context, x, points, sampling_mode, padding_mode, padding_value, coordinates_mode, align_corners)
