"""Decompression of weights against coremltools' own, packing by hand, and quantization of activations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil.mil.ops.defs.iOS16.constexpr_ops import constexpr_lut_to_dense as lut_ios16
from coremltools.converters.mil.mil.ops.defs.iOS16.constexpr_ops import constexpr_sparse_to_dense as sparse_ios16
from coremltools.converters.mil.mil.ops.defs.iOS18.compression import (
    constexpr_blockwise_shift_scale,
    constexpr_lut_to_dense,
    constexpr_lut_to_sparse,
    constexpr_sparse_blockwise_shift_scale,
    constexpr_sparse_to_dense,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.mil.operators.calling import call, rng

_SEEDS = st.integers(0, 2**32 - 1)
_SHAPES = hnp.array_shapes(max_dims=4, max_side=4)


def packed(values, bits):
    """Pack unsigned integers, least significant bits first."""
    flags = (values.astype(np.uint8).ravel()[:, None] >> np.arange(bits)) & 1
    return np.packbits(flags.ravel().astype(np.uint8), bitorder="little")


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8])
@given(seed=_SEEDS, shape=_SHAPES, integers=st.booleans())
def test_look_up_tables_of_ios16(bits, seed, shape, integers):
    generator = rng(seed)
    table = generator.standard_normal(2**bits).astype(np.float16)
    table = generator.integers(-128, 128, 2**bits).astype(np.int8) if integers else table
    indices = generator.integers(0, 2**bits, shape)
    result = call("constexpr_lut_to_dense", opset="iOS17", indices=packed(indices, bits), lut=table, shape=shape)
    np.testing.assert_array_equal(result, table[indices])
    if bits != 6 and bits != 8:  # coremltools' own unpacking, where it takes any shape
        np.testing.assert_array_equal(result, lut_ios16.decompress(table, packed(indices, bits), np.array(shape)))
    assert result.dtype == (np.int8 if integers else np.float32)


@given(seed=_SEEDS, shape=_SHAPES)
def test_sparse_weights_of_ios16(seed, shape):
    generator = rng(seed)
    mask = generator.integers(0, 2, shape)
    values = generator.standard_normal(mask.sum()).astype(np.float16)
    expected = np.zeros(shape, np.float32)
    expected[mask != 0] = values
    options = {"nonzero_data": values, "mask": packed(mask, 1), "shape": shape}
    np.testing.assert_array_equal(call("constexpr_sparse_to_dense", opset="iOS16", **options), expected)
    if mask.size % 8 == 0:
        np.testing.assert_array_equal(expected, sparse_ios16.decompress(values, packed(mask, 1), shape))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@given(seed=_SEEDS, shape=_SHAPES, vectors=st.tuples(st.booleans(), st.booleans()), data=st.data())
def test_affine(dtype, seed, shape, vectors, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    generator, limits = rng(seed), np.iinfo(dtype)
    steps = generator.integers(limits.min, limits.max + 1, shape).astype(dtype)
    size = shape[axis]
    zero = generator.integers(limits.min, limits.max + 1, size if vectors[0] else ()).astype(dtype)
    scale = np.asarray(generator.uniform(0.01, 0.1, size if vectors[1] else ()), np.float16)
    spread = [size if place == axis % len(shape) else 1 for place in range(len(shape))]
    exact = (steps.astype(np.float64) - zero.reshape(spread if vectors[0] else ())) * scale.astype(np.float64).reshape(
        spread if vectors[1] else ()
    )
    zero, scale = np.asarray(zero), np.asarray(scale)
    result = call(
        "constexpr_affine_dequantize", declared="fp16", quantized_data=steps, zero_point=zero, scale=scale, axis=axis
    )
    np.testing.assert_array_equal(result, exact.astype(np.float16))
    again = call("dequantize", declared="fp16", input=steps, zero_point=zero, scale=scale, axis=axis)
    np.testing.assert_array_equal(again, result)


def _blocks(draw, shape):
    """A number of blocks per axis that divides the axis."""
    return tuple(draw(st.sampled_from([count for count in range(1, size + 1) if size % count == 0])) for size in shape)


@given(
    seed=_SEEDS,
    shape=hnp.array_shapes(max_dims=4, max_side=6),
    offset=st.sampled_from(["none", "int", "float"]),
    data=st.data(),
)
def test_blockwise(seed, shape, offset, data):
    generator, counts = rng(seed), _blocks(data.draw, shape)
    steps = generator.integers(-8, 8, shape).astype(np.int8)  # int4 in its carrier
    scale = generator.uniform(0.01, 0.1, counts).astype(np.float16)
    shift = {
        "none": None,
        "int": generator.integers(-8, 8, counts).astype(np.int8),
        "float": generator.integers(-8, 8, counts).astype(np.float16),
    }[offset]
    options = {} if shift is None else {"offset": shift}
    result = call("constexpr_blockwise_shift_scale", declared="fp16", data=steps, scale=scale, **options)
    np.testing.assert_array_equal(result, constexpr_blockwise_shift_scale.decompress(steps, scale, shift))
    mask = generator.integers(0, 2, shape).astype(np.uint8)
    values = steps[mask != 0]
    kept, found = call(
        "constexpr_sparse_blockwise_shift_scale",
        declared="fp16",
        data_mask=mask,
        nonzero_data=values,
        scale=scale,
        **options,
    )
    expected = constexpr_sparse_blockwise_shift_scale.decompress(mask, values, scale, shift)
    np.testing.assert_array_equal(kept, expected[0])
    np.testing.assert_array_equal(found, expected[1])


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
@given(seed=_SEEDS, shape=hnp.array_shapes(min_dims=2, max_dims=4, max_side=4), width=st.integers(1, 3), data=st.data())
def test_grouped_and_vector_look_up_tables(bits, seed, shape, width, data):
    generator, groups = rng(seed), _blocks(data.draw, shape)
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    table = generator.standard_normal((*groups, 2**bits, width)).astype(np.float16)
    indices = generator.integers(0, 2**bits, shape).astype(np.uint8)
    options = {"lut": table, "vector_axis": axis} if width > 1 else {"lut": table}
    result = call("constexpr_lut_to_dense", indices=indices, **options)
    expected = constexpr_lut_to_dense.decompress(indices, table, axis if width > 1 else None)
    # coremltools swaps the vector axis with the last one; for tables grouped along axes that this confuses, loop
    loops = np.zeros(
        [size * (width if place == axis % len(shape) and width > 1 else 1) for place, size in enumerate(shape)],
        np.float32,
    )
    for place in np.ndindex(*shape):
        group = tuple(p // (size // count) for p, size, count in zip(place, shape, groups, strict=True))
        for part in range(width):
            target = list(place)
            if width > 1:
                target[axis] = place[axis] * width + part
            entry = (*group, indices[place], part)
            loops[tuple(target)] = table[entry]
    np.testing.assert_array_equal(result, loops)
    assert result.shape == expected.shape
    if width == 1 or axis % len(shape) == len(shape) - 1:
        np.testing.assert_array_equal(result, expected)


@given(seed=_SEEDS, shape=hnp.array_shapes(min_dims=2, max_dims=3, max_side=4), width=st.integers(1, 2))
def test_sparse_look_up_tables(seed, shape, width):
    generator = rng(seed)
    mask = generator.integers(0, 2, shape).astype(np.uint8)
    indices = generator.integers(0, 4, mask.sum()).astype(np.uint8)
    table = generator.standard_normal((*((1,) * len(shape)), 4, width)).astype(np.float16)
    axis = len(shape) - 1 if width > 1 else None
    options = {} if axis is None else {"vector_axis": axis}
    kept, values = call(
        "constexpr_lut_to_sparse", indices_mask=mask, indices_nonzero_data=indices, lut=table, **options
    )
    expected = constexpr_lut_to_sparse.decompress(mask, indices, table, axis)
    np.testing.assert_array_equal(kept, expected[0])
    np.testing.assert_array_equal(values, expected[1])
    dense = call("constexpr_sparse_to_dense", nonzero_data=values, mask=kept)
    np.testing.assert_array_equal(dense, constexpr_sparse_to_dense.decompress(expected[1], expected[0]))


def test_constexpr_cast():
    x = np.array([1.5, np.inf], np.float16)
    np.testing.assert_array_equal(call("constexpr_cast", source_val=x, output_dtype="fp32"), x.astype(np.float32))


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@given(seed=_SEEDS, shape=_SHAPES, zero=st.booleans(), vector=st.booleans(), data=st.data())
def test_quantize(dtype, seed, shape, zero, vector, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1)) if vector else 0
    generator, limits = rng(seed), np.iinfo(dtype)
    x = (generator.standard_normal(shape) * 20).astype(np.float32)
    size = shape[axis] if vector else ()
    scale = np.asarray(generator.uniform(0.05, 0.5, size), np.float32)
    offset = np.asarray(generator.integers(limits.min, limits.max + 1, size), dtype)
    spread = (
        [shape[place] if vector and place == axis % len(shape) else 1 for place in range(len(shape))] if vector else ()
    )
    steps = np.round(x / scale.reshape(spread)) + (offset.astype(np.float32).reshape(spread) if zero else 0)
    options: dict[str, Any] = {"zero_point": offset} if zero else {}
    options |= {"axis": axis} if vector else {}
    result = call("quantize", input=x, scale=scale, output_dtype=dtype, **options)
    np.testing.assert_array_equal(result, np.clip(steps, limits.min, limits.max))
    assert result.dtype == dtype
