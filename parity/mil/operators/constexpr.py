"""Compressed weights: affine, look-up tables, sparse, blockwise, and their chains.

In iOS 16 programs the packed forms (indices of a look-up table, bits of a mask) are bytes with the least significant
bits first and a shape beside them, and all inputs stand among the operation's *attributes*; since iOS 18 they are
tensors of sub-byte integers, which arrive one to a byte, and ordinary inputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from parity.mil.operators.registry import Context, operator


def _unpacked(packed: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """Return `count` unsigned integers of `bits` bits from little-endian bytes, one to a byte."""
    if bits == 8:
        return packed[:count]
    group = math.lcm(bits, 8) // 8  # bytes that hold a whole number of values
    padded = torch.nn.functional.pad(packed, (0, -len(packed) % group)).reshape(-1, group)
    word = sum(padded[:, byte].int() << 8 * byte for byte in range(group))
    mask = (1 << bits) - 1
    values = [(word >> bits * place & mask).to(torch.uint8) for place in range(group * 8 // bits)]
    return torch.stack(values, 1).flatten()[:count]


def _along(parameter: torch.Tensor, rank: int, axis: int) -> torch.Tensor:
    if parameter.dim() == 0:
        return parameter
    return parameter.reshape([-1 if position == axis % rank else 1 for position in range(rank)])


@operator("constexpr_affine_dequantize", since="iOS16", static=("axis",))
def constexpr_affine_dequantize(
    context: Context, quantized_data: torch.Tensor, zero_point: torch.Tensor, scale: torch.Tensor, axis: int
) -> torch.Tensor:
    """scale * (data - zero_point), parameters scalar or along the axis."""
    rank = quantized_data.dim()
    return (quantized_data.float() - _along(zero_point, rank, axis).float()) * _along(scale, rank, axis)


@operator("constexpr_cast", aliases=True, since="iOS16", static=("output_dtype",))
def constexpr_cast(context: Context, source_val: torch.Tensor, output_dtype: str) -> torch.Tensor:
    """float16 to float32."""
    return source_val.float()


@operator("constexpr_lut_to_dense", exact=True, since="iOS16", static=("shape",))
def constexpr_lut_to_dense_ios16(
    context: Context, indices: torch.Tensor, lut: torch.Tensor, shape: tuple[int, ...]
) -> torch.Tensor:
    """``lut[indices]`` with indices packed into as many bits as the table needs."""
    bits = len(lut).bit_length() - 1
    places = _unpacked(indices.flatten(), bits, math.prod(shape))
    return lut.index_select(0, places.int()).reshape(shape)


@operator("constexpr_sparse_to_dense", exact=True, since="iOS16", static=("shape",))
def constexpr_sparse_to_dense_ios16(
    context: Context, nonzero_data: torch.Tensor, mask: torch.Tensor, shape: tuple[int, ...]
) -> torch.Tensor:
    """Values where the packed mask has ones, zeros elsewhere."""
    return _dense(nonzero_data, _unpacked(mask.flatten(), 1, math.prod(shape)).reshape(shape))


def _dense(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    result = torch.zeros(mask.shape, dtype=values.dtype)
    return result.masked_scatter_(mask != 0, values)


def _shift_scale(data: torch.Tensor, scale: torch.Tensor, offset: torch.Tensor | None) -> torch.Tensor:
    """scale * (data - offset), each scale for a block of ``data.shape[axis] / scale.shape[axis]`` elements."""
    blocks = [part for size, count in zip(data.shape, scale.shape, strict=True) for part in (count, size // count)]
    counts = [part for count in scale.shape for part in (count, 1)]
    result = data.float().reshape(blocks)
    if offset is not None:
        result = result - offset.float().reshape(counts)
    return (result * scale.reshape(counts)).reshape(data.shape)


def _group(shape: Sequence[int], groups: Sequence[int]) -> torch.Tensor:
    """Return which look-up table each element of an array of `shape` uses; `groups` of them per axis."""
    table = torch.zeros((), dtype=torch.int32)
    for axis, (size, count) in enumerate(zip(shape, groups, strict=True)):
        along = torch.arange(size, dtype=torch.int32) // (size // count)
        table = table * count + along.reshape([-1 if axis == other else 1 for other in range(len(shape))])
    return table


def _palettized(indices: torch.Tensor, lut: torch.Tensor, vector_axis: int | None) -> torch.Tensor:
    palette, width = lut.shape[-2:]
    place = indices.int()
    if lut.numel() != palette * width:
        place = place + _group(indices.shape, lut.shape[:-2]) * palette
    values = lut.reshape(-1, width).index_select(0, place.flatten()).reshape(*indices.shape, width)
    if width == 1 or vector_axis is None:
        return values.squeeze(-1)
    axis = vector_axis % indices.dim()
    return values.movedim(-1, axis + 1).flatten(axis, axis + 1)


@operator("constexpr_blockwise_shift_scale", since="iOS18")
def constexpr_blockwise_shift_scale(
    context: Context, data: torch.Tensor, scale: torch.Tensor, offset: torch.Tensor | None = None
) -> torch.Tensor:
    """scale * (data - offset), blockwise in every axis."""
    return _shift_scale(data, scale, offset)


@operator("constexpr_lut_to_dense", exact=True, since="iOS18", static=("vector_axis",))
def constexpr_lut_to_dense(
    context: Context, indices: torch.Tensor, lut: torch.Tensor, vector_axis: int | None = None
) -> torch.Tensor:
    """Entries of the element's look-up table (…, palette, width); vectors extend along `vector_axis`."""
    return _palettized(indices, lut, vector_axis)


@operator("constexpr_sparse_to_dense", exact=True, since="iOS18")
def constexpr_sparse_to_dense(context: Context, nonzero_data: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Values where the mask is 1, zeros elsewhere."""
    return _dense(nonzero_data, mask)


@operator("constexpr_lut_to_sparse", exact=True, aliases=True, since="iOS18", static=("vector_axis",))
def constexpr_lut_to_sparse(
    context: Context,
    indices_mask: torch.Tensor,
    indices_nonzero_data: torch.Tensor,
    lut: torch.Tensor,
    vector_axis: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask and values of sparse indices after the look-up."""
    values = _palettized(_dense(indices_nonzero_data, indices_mask), lut, vector_axis)
    width = lut.shape[-1]
    mask = indices_mask
    if width > 1 and vector_axis is not None:
        mask = indices_mask.repeat_interleave(width, vector_axis)
    return mask, values[mask != 0]


@operator("constexpr_sparse_blockwise_shift_scale", aliases=True, since="iOS18")
def constexpr_sparse_blockwise_shift_scale(
    context: Context,
    data_mask: torch.Tensor,
    nonzero_data: torch.Tensor,
    scale: torch.Tensor,
    offset: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask and values of sparse data after scale * (data - offset)."""
    values = _shift_scale(_dense(nonzero_data, data_mask), scale, offset)
    return data_mask, values[data_mask != 0]
