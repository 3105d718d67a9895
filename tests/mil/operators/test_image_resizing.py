"""Resizing and sampling of images against the format's formulas, PyTorch, and loops over pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.nn import functional

from parity.errors import UnsupportedError
from tests.mil.operators.calling import call, rng

_SEEDS = st.integers(0, 2**32 - 1)
_SIDE = st.integers(1, 7)
MODES = ["STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS", "UNALIGN_CORNERS"]


def positions(mode, size, count):
    """The formulas of the format's documentation, position by position."""
    found = []
    for i in range(count):
        if mode.endswith("ALIGN_CORNERS") and mode != "UNALIGN_CORNERS":
            where = i * (size - 1) / (count - 1) if count > 1 else 0.0
            if mode == "ALIGN_CORNERS" and count == 1:
                where = (size - 1) / 2
        elif mode == "DEFAULT":
            where = i * (size - size / count) / (count - 1) if count > 1 else 0.0
        elif mode == "OFFSET_CORNERS":
            delta = max(1, size - 1) / count
            where = 0.5 * delta + i * delta
        else:
            where = (i + 0.5) * size / count - 0.5
        found.append(min(size - 1, max(0.0, where)))
    return found


def interpolated(x, axis, found):
    x = np.moveaxis(x.astype(np.float64), axis, 0)
    low = np.floor(found).astype(int)
    high = np.minimum(low + 1, len(x) - 1)
    weight = (np.asarray(found) - low).reshape(-1, *((1,) * (x.ndim - 1)))
    return np.moveaxis(x[low] * (1 - weight) + x[high] * weight, 0, axis)


@pytest.mark.parametrize("mode", MODES)
@given(
    seed=_SEEDS,
    sizes=st.tuples(_SIDE, _SIDE),
    wanted=st.tuples(_SIDE, _SIDE),
    lead=hnp.array_shapes(max_dims=2, max_side=3),
)
def test_resize_bilinear(mode, seed, sizes, wanted, lead):
    x = rng(seed).standard_normal((*lead, *sizes)).astype(np.float32)
    expected = interpolated(x, -2, positions(mode, sizes[0], wanted[0]))
    expected = interpolated(expected, -1, positions(mode, sizes[1], wanted[1]))
    result = call("resize_bilinear", x=x, target_size_height=wanted[0], target_size_width=wanted[1], sampling_mode=mode)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)
    options = {"resized_dims": 2, "sampling_mode": mode}
    np.testing.assert_allclose(call("resize", x=x, shape=(1, *wanted), **options), result, rtol=1e-6, atol=1e-6)


def test_sampling_modes_give_the_documented_grids():
    """The examples of the format's documentation, for an input [0, 1]."""
    x = np.array([0.0, 1.0], np.float32).reshape(1, 1, 2)
    grids = {
        ("UNALIGN_CORNERS", 5): [0.0, 0.1, 0.5, 0.9, 1.0],
        ("ALIGN_CORNERS", 5): [0.0, 0.25, 0.5, 0.75, 1.0],
        ("DEFAULT", 5): [0.0, 0.4, 0.8, 1.0, 1.0],
        ("OFFSET_CORNERS", 5): [0.1, 0.3, 0.5, 0.7, 0.9],
        ("UNALIGN_CORNERS", 6): [0.0, 0.0, 0.33333, 0.66667, 1.0, 1.0],
        ("STRICT_ALIGN_CORNERS", 6): [0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
        ("DEFAULT", 6): [0.0, 0.33333, 0.66667, 1.0, 1.0, 1.0],
        ("OFFSET_CORNERS", 6): [0.08333, 0.25, 0.41667, 0.58333, 0.75, 0.91667],
    }
    for (mode, count), grid in grids.items():
        result = call("resize_bilinear", x=x, target_size_height=1, target_size_width=count, sampling_mode=mode)
        np.testing.assert_allclose(result.ravel(), grid, atol=1e-5, err_msg=mode)
    with pytest.raises(UnsupportedError, match="sampling mode 'CORNERS'"):
        call("resize_bilinear", x=x, sampling_mode="CORNERS")


def test_resize_keeps_sizes_of_zero_and_picks_the_nearest():
    x = np.array([[-6.0, 9.0]], np.float32).T.reshape(1, 1, 2, 1)
    result = call("resize", x=x, shape=(3, 2), resized_dims=2, interpolation_mode="NEAREST_NEIGHBOR")
    np.testing.assert_array_equal(result[0, 0], [[-6, -6], [9, 9], [9, 9]])
    np.testing.assert_array_equal(call("resize", x=x, shape=(1, 0, 0), resized_dims=2), x)
    whole = call("resize", x=np.array([[[0, 3]]], np.int32), shape=(1, 1, 4), resized_dims=2)
    assert whole.dtype == np.int32
    with pytest.raises(UnsupportedError, match="'CUBIC'"):
        call("resize", x=x, shape=(3, 2), resized_dims=2, interpolation_mode="CUBIC")


@pytest.mark.parametrize("factors", [(2, 3), (2.5, 1.5), (0.5, 0.75), (1, 1)])
@pytest.mark.parametrize("align", [True, False])
def test_upsample_bilinear_is_pytorchs(factors, align):
    x = rng(3).standard_normal((2, 3, 6, 8)).astype(np.float32)
    reference = functional.interpolate(
        torch.from_numpy(x), scale_factor=factors, mode="bilinear", align_corners=align, recompute_scale_factor=True
    )
    result = call(
        "upsample_bilinear", x=x, scale_factor_height=factors[0], scale_factor_width=factors[1], align_corners=align
    )
    np.testing.assert_allclose(result, reference, rtol=1e-5, atol=1e-5)
    halves = call("upsample_bilinear", x=x, scale_factor_height=2, align_corners=False, half_pixel_centers=False)
    expected = interpolated(x, -2, [min(i / 2, 5) for i in range(12)])
    np.testing.assert_allclose(halves, expected, rtol=1e-5, atol=1e-5)


def test_an_infinite_pixel_gives_its_infinity_where_it_takes_part():
    x = np.array([[[[1, np.inf, 2, 3]]]], np.float32)
    options = {"scale_factor_height": 1, "scale_factor_width": 2, "align_corners": False}
    expected = [1, np.inf, np.inf, np.inf, np.inf, 2.25, 2.75, 3]
    np.testing.assert_array_equal(call("upsample_bilinear", x=x, **options).ravel(), expected)
    opposite = call("upsample_bilinear", x=np.array([[[[np.inf, -np.inf]]]], np.float32), **options).ravel()
    np.testing.assert_array_equal(opposite, [np.inf, np.nan, np.nan, -np.inf])


@pytest.mark.parametrize("factors", [(2, 3), (2.5, 1.5), (0.5, 0.75), (1, 1)])
@pytest.mark.parametrize("shape", [(2, 3, 6, 8), (3, 6, 8), (1, 2, 1, 6, 8)])
def test_nearest_neighbours_are_pytorchs(factors, shape):
    x = rng(4).standard_normal(shape).astype(np.float32)
    size = [int(6 * factors[0]), int(8 * factors[1])]
    flat = torch.from_numpy(x).reshape(1, -1, 6, 8)
    reference = functional.interpolate(flat, size=size).reshape(*shape[:-2], *size)
    result = call("upsample_nearest_neighbor", x=x, scale_factor_height=factors[0], scale_factor_width=factors[1])
    np.testing.assert_array_equal(result, reference)
    again = call("resize_nearest_neighbor", x=x, target_size_height=size[0], target_size_width=size[1])
    np.testing.assert_array_equal(again, reference)


def test_scale_factors_multiply_in_float32():
    """float32(0.7) * 10 is 7 in float32 and below 7 in float64; the format's shapes follow float32."""
    x = np.zeros((1, 1, 1, 10), np.float32)
    assert call("upsample_nearest_neighbor", x=x, scale_factor_width=float(np.float32(0.7))).shape == (1, 1, 1, 7)


def test_crop():
    x = rng(5).random((2, 4, 5)).astype(np.float32)
    np.testing.assert_array_equal(call("crop", x=x, crop_height=(1, 2), crop_width=(0, 3)), x[:, 1:2, :2])


PADDINGS = {"border": ("border", None), "reflection": ("reflection", True), "symmetric": ("reflection", False)}


@pytest.mark.parametrize("padding", [*PADDINGS, "constant"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@given(seed=_SEEDS, align=st.booleans(), sizes=st.tuples(st.integers(2, 5), st.integers(2, 5)))
def test_resample_is_pytorchs_grid_sample(padding, mode, seed, align, sizes):
    """PyTorch reflects about pixel centres when corners are aligned, and about edges otherwise."""
    reflected = PADDINGS.get(padding, ("zeros", None))[1]
    align = align if reflected is None else reflected
    generator = rng(seed)
    x = generator.standard_normal((2, 3, *sizes)).astype(np.float32)
    grid = generator.uniform(-2.2, 2.2, (2, 4, 3, 2)).astype(np.float32)
    theirs = PADDINGS.get(padding, ("zeros", None))[0]
    reference = functional.grid_sample(torch.from_numpy(x), torch.from_numpy(grid), mode, theirs, align).numpy()
    options = {"sampling_mode": mode, "padding_mode": padding, "padding_value": 0.0, "align_corners": align}
    result = call("resample", x=x, coordinates=grid, coordinates_mode="normalized_minus_one_to_one", **options)
    close = np.isclose(result, reference, rtol=1e-4, atol=1e-4)
    assert close.all() if mode == "bilinear" else close.mean() > 0.97  # ties of float32 positions may fall either way
    unit = ((grid.astype(np.float64) + 1) / 2).astype(np.float32)
    again = call("resample", x=x, coordinates=unit, coordinates_mode="normalized_zero_to_one", **options)
    assert np.isclose(again, result, rtol=1e-3, atol=1e-3).mean() > (0.999 if mode == "bilinear" else 0.97)


def test_resample_in_pixels_with_a_padding_value():
    x = np.array([[11.0, 22.0], [33.0, 44.0]], np.float32).reshape(1, 1, 2, 2)
    coordinates = np.array([[0.0, -0.5], [0.5, 0.5], [3.0, 0.0], [1.0, 1.0]], np.float32).reshape(1, 2, 2, 2)
    options = {"padding_mode": "constant", "coordinates_mode": "unnormalized", "align_corners": False}
    result = call("resample", x=x, coordinates=coordinates, sampling_mode="bilinear", padding_value=6.0, **options)
    np.testing.assert_allclose(result.ravel(), [8.5, 27.5, 6.0, 44.0], rtol=1e-6)
    whole = coordinates.astype(np.int32)
    result = call("resample", x=x, coordinates=whole, sampling_mode="nearest", padding_value=6.0, **options)
    np.testing.assert_allclose(result.ravel(), [11, 11, 6, 44])
    for wrong in ({"padding_mode": "wrap"}, {"coordinates_mode": "polar"}, {"sampling_mode": "cubic"}):
        with pytest.raises(UnsupportedError, match=next(iter(wrong.values()))):
            call(
                "resample",
                x=x,
                coordinates=coordinates,
                **({"sampling_mode": "bilinear", "padding_value": 0.0} | options | wrong),
            )


@pytest.mark.parametrize("matrices", [1, 2])
def test_affine_is_pytorchs(matrices):
    generator = rng(matrices)
    x = generator.standard_normal((2, 3, 5, 4)).astype(np.float32)
    matrix = (np.eye(2, 3).ravel() + generator.normal(0, 0.3, (matrices, 6))).astype(np.float32)
    theta = torch.from_numpy(matrix).reshape(-1, 2, 3).expand(2, -1, -1)
    grid = functional.affine_grid(theta, [2, 3, 6, 7], align_corners=True)
    reference = functional.grid_sample(torch.from_numpy(x), grid, align_corners=True)
    result = call(
        "affine",
        x=x,
        transform_matrix=matrix,
        output_height=6,
        output_width=7,
        sampling_mode="bilinear",
        padding_mode="constant",
        padding_value=0.0,
        coordinates_mode="normalized_minus_one_to_one",
        align_corners=True,
    )
    np.testing.assert_allclose(result, reference, rtol=1e-4, atol=1e-5)


def _cropped(image, box, wanted, mode, value):
    """Loop over output pixels; boxes as top, left, bottom, right in pixels."""
    channels, rows, columns = image.shape
    height, width = wanted
    result = np.zeros((channels, height, width))
    grids = []
    for start, end, count in ((box[0], box[2], height), (box[1], box[3], width)):
        length = abs(end - start) + 1
        sign = -1 if end < start else 1
        grids.append([start + sign * place for place in positions(mode, length, count)])
    for i, row in enumerate(grids[0]):
        for j, column in enumerate(grids[1]):
            if value is not None and not (0 <= row <= rows - 1 and 0 <= column <= columns - 1):
                result[:, i, j] = value
                continue
            row_in, column_in = min(max(row, 0), rows - 1), min(max(column, 0), columns - 1)
            result[:, i, j] = interpolated(interpolated(image, 1, [row_in]), 2, [column_in])[:, 0, 0]
    return result


@pytest.mark.parametrize("mode", MODES)
@given(
    seed=_SEEDS,
    wanted=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    normalized=st.booleans(),
    layout=st.sampled_from(["CORNERS", "CENTER_SIZE"]),
    width_first=st.booleans(),
)
def test_crop_resize(mode, seed, wanted, normalized, layout, width_first):
    generator = rng(seed)
    x = generator.standard_normal((2, 2, 5, 6)).astype(np.float32)
    limits = np.array([4, 5, 4, 5])
    boxes = generator.uniform(-0.2, 1.2, (3, 4)).astype(np.float32)  # top, left, bottom, right; some upside down
    if layout == "CENTER_SIZE":
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
    boxes = boxes if normalized else (boxes * limits).astype(np.float32)
    given_boxes = boxes
    if layout == "CENTER_SIZE":
        given_boxes = np.concatenate(((boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]), 1)
    if width_first:
        given_boxes = given_boxes[:, [1, 0, 3, 2]]
    pixels = boxes.astype(np.float64) * (limits if normalized else 1)
    images = np.array([1, 0, 1], np.int32)
    options = {
        "target_height": wanted[0],
        "target_width": wanted[1],
        "normalized_coordinates": normalized,
        "box_coordinate_mode": f"{layout}_{'WIDTH' if width_first else 'HEIGHT'}_FIRST",
        "sampling_mode": mode,
    }
    expected = [_cropped(x[i], box, wanted, mode, 7.0) for i, box in zip(images, pixels, strict=True)]
    near = [_cropped(x[i], box + 1e-4, wanted, mode, 7.0) for i, box in zip(images, pixels, strict=True)]
    stable = np.isclose(expected, near, atol=1e-2)  # elsewhere a position lies on the image's border
    result = call("crop_resize", x=x, boxes=given_boxes, box_indices=images, pad_value=7.0, **options)
    assert np.isclose(result, expected, rtol=1e-3, atol=1e-3)[stable].all()
    roi = np.concatenate((images[:, None].astype(np.float32), given_boxes), 1).reshape(3, 1, 5, 1, 1)
    older = call("crop_resize", opset="iOS16", x=x, roi=roi, pad_value=7.0, **options)
    np.testing.assert_array_equal(older[:, 0], result)
    every = call("crop_resize", opset="iOS15", x=x, roi=given_boxes.reshape(3, 1, 4, 1, 1), **options)
    assert every.shape == (3, 2, 2, *wanted)
    low, high = np.minimum(pixels[:, :2], pixels[:, 2:]), np.maximum(pixels[:, :2], pixels[:, 2:])
    inside = ((low < limits[:2]) & (high > 0)).all(1)
    whole = np.array([0, 0, 4, 5])
    shown = [box if within else whole for box, within in zip(pixels, inside, strict=True)]
    bordered = [[_cropped(image, box, wanted, mode, None) for image in x] for box in shown]
    np.testing.assert_allclose(every, bordered, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("normalized", [False, True])
def test_boxes_of_which_nothing_lies_inside_give_the_whole_image_in_ios15(normalized):
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    scale = 1 if normalized else 3
    boxes = np.array([[2, 2, 1, 1], [-1, 0, -0.5, 1], [0, 0, 1 / 3, 1 / 3]], np.float32) * scale
    options = {"target_height": 2, "target_width": 2, "normalized_coordinates": normalized}
    result = call(
        "crop_resize", opset="iOS15", x=x, roi=boxes.reshape(3, 1, 4, 1, 1), sampling_mode="UNALIGN_CORNERS", **options
    )
    expected = np.array([2.5, 4.5, 10.5, 12.5])  # coremltools' tests record these for the first box, one higher
    np.testing.assert_allclose(result[:2].reshape(2, 4), [expected, expected], atol=1e-5)
    np.testing.assert_allclose(result[2].reshape(4), [0, 1, 4, 5], atol=1e-5)


def test_crop_resize_scales_boxes():
    x = rng(9).standard_normal((1, 1, 4, 4)).astype(np.float32)
    box = np.array([[2.0, 2.0, 4.0, 4.0]], np.float32)
    options = {"target_height": 2, "target_width": 2, "sampling_mode": "ALIGN_CORNERS"}
    np.testing.assert_allclose(
        call("crop_resize", x=x, boxes=box, spatial_scale=0.5, **options), x[:, :, 1:3, 1:3], rtol=1e-6
    )
    with pytest.raises(UnsupportedError, match="box_coordinate_mode 'POLAR'"):
        call("crop_resize", x=x, boxes=box, box_coordinate_mode="POLAR")
