"""Convolutions: conv, conv_quantized and conv_transpose in one to three spatial dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import conv_transpose1d, conv_transpose2d, conv_transpose3d
from torch.nn.functional import pad as torch_pad

from parity.errors import UnsupportedError
from parity.mil.operators import accumulate, sequential
from parity.mil.operators.padding import explicit, reversed_pairs
from parity.mil.operators.registry import Context, operator

_FORWARD = {3: torch.conv1d, 4: torch.conv2d, 5: torch.conv3d}
_TRANSPOSED = {3: conv_transpose1d, 4: conv_transpose2d, 5: conv_transpose3d}
_STATIC = ("strides", "pad_type", "pad", "dilations", "groups")


@operator("conv", accumulates=True, static=_STATIC)
def conv(
    context: Context,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    strides: tuple[int, ...] | None = None,
    pad_type: str = "valid",
    pad: tuple[int, ...] | None = None,
    dilations: tuple[int, ...] | None = None,
    groups: int = 1,
) -> torch.Tensor:
    """Convolve x (N, C_in, …) with weight (C_out, C_in/groups, …)."""
    rank = x.dim()
    strides = (1,) * (rank - 2) if strides is None else strides
    dilations = (1,) * (rank - 2) if dilations is None else dilations
    if pad_type == "valid" or (pad_type == "custom" and pad is None):
        padding: tuple[int, ...] = (0,) * (rank - 2)
    else:
        pads = explicit(pad_type, pad, sizes=x.shape[2:], kernel=weight.shape[2:], strides=strides, dilations=dilations)
        padding = pads[::2]
        if padding != pads[1::2]:
            x, padding = torch_pad(x, reversed_pairs(pads)), (0,) * (rank - 2)
    if context.half_accumulate:
        if any(padding):
            x = torch_pad(x, [amount for amount in reversed(padding) for _ in (0, 1)])
        return accumulate.convolution(x, weight, bias, strides=strides, dilations=dilations, groups=groups)
    if context.sequential and bias is not None:
        sums = sequential.half(_FORWARD[rank](x, weight, None, strides, padding, dilations, groups))
        return sums + bias.reshape(1, -1, *((1,) * (rank - 2)))
    return _FORWARD[rank](x, weight, bias, strides, padding, dilations, groups)


@operator("conv_quantized", accumulates=True, static=(*_STATIC, "quantization_type", "nbits"))
def conv_quantized(
    context: Context,
    x: torch.Tensor,
    weight: torch.Tensor,
    quantization_type: str,
    quant_scale: torch.Tensor,
    quant_bias: torch.Tensor,
    bias: torch.Tensor | None = None,
    nbits: int = 8,
    strides: tuple[int, ...] | None = None,
    pad_type: str = "valid",
    pad: tuple[int, ...] | None = None,
    dilations: tuple[int, ...] | None = None,
    groups: int = 1,
) -> torch.Tensor:
    """`conv` with 8-bit weights: ``weight * quant_scale + quant_bias``, per output channel or for all."""
    if quantization_type != "linear" or nbits != 8:
        raise UnsupportedError(
            f"operation {context.name!r}: conv_quantized of type {quantization_type!r} with {nbits} bits; the format "
            "documents only linear quantization (`W = W_q * scale + bias`) with bytes"
        )
    shape = (-1,) + (1,) * (weight.dim() - 1)
    values = weight.float() * quant_scale.reshape(shape) + quant_bias.reshape(shape)
    offsets = None if bias is None else bias.float()
    return conv(context, x, values, offsets, strides, pad_type, pad, dilations, groups)


def _dilate(x: torch.Tensor, strides: Sequence[int]) -> torch.Tensor:
    """Insert ``stride - 1`` zeros between the elements of each spatial axis."""
    sizes = [(size - 1) * stride + 1 for size, stride in zip(x.shape[2:], strides, strict=True)]
    spread = x.new_zeros(*x.shape[:2], *sizes)
    places: tuple[Any, ...] = (..., *(slice(None, None, stride) for stride in strides))
    spread[places] = x
    return spread


def _half_transposed(
    x: torch.Tensor, weight: torch.Tensor, strides: Sequence[int], dilations: Sequence[int], groups: int
) -> torch.Tensor:
    """The same as a convolution of the spread input with the flipped kernel, accumulated in float16."""
    spatial = tuple(range(2, x.dim()))
    kernel = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1).flip(spatial)
    reach = [(k - 1) * dilation for k, dilation in zip(weight.shape[2:], dilations, strict=True)]
    spread = torch_pad(_dilate(x, strides), [amount for amount in reversed(reach) for _ in (0, 1)])
    ones = (1,) * len(spatial)
    return accumulate.convolution(spread, kernel, None, strides=ones, dilations=dilations, groups=groups)


@operator("conv_transpose", accumulates=True, static=(*_STATIC, "output_shape"))
def conv_transpose(
    context: Context,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    pad: tuple[int, ...] | None = None,
    output_shape: tuple[int, ...] | None = None,
    pad_type: str = "valid",
    strides: tuple[int, ...] | None = None,
    dilations: tuple[int, ...] | None = None,
    groups: int = 1,
) -> torch.Tensor:
    """Transposed convolution of x (N, C_in, …) with weight (C_in, C_out/groups, …).

    The full result is cropped by `pad` at the start, then to `output_shape` (or to what `pad_type` gives) at the end;
    where the full result is shorter, it goes on with zeros, plus the bias.
    """
    rank = x.dim()
    spatial = rank - 2
    strides = (1,) * spatial if strides is None else strides
    dilations = (1,) * spatial if dilations is None else dilations
    full = [
        (size - 1) * stride + (k - 1) * dilation + 1
        for size, stride, k, dilation in zip(x.shape[2:], strides, weight.shape[2:], dilations, strict=True)
    ]
    if output_shape is not None:
        wanted = list(output_shape[2:])
    elif pad_type in ("same", "same_lower"):
        wanted = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
    else:
        amounts = pad if pad_type == "custom" and pad is not None else (0,) * (2 * spatial)
        wanted = [size - amounts[2 * axis] - amounts[2 * axis + 1] for axis, size in enumerate(full)]
    if pad_type == "custom" and pad is not None:
        before = list(pad[::2])
    elif pad_type == "valid":
        before = [0] * spatial
    else:
        rests = [max(0, have - want) for have, want in zip(full, wanted, strict=True)]
        before = [rest - rest // 2 if pad_type == "same_lower" else rest // 2 for rest in rests]
    extents = list(zip(full, before, wanted, strict=True))
    if context.half_accumulate:
        result = _half_transposed(x, weight, strides, dilations, groups)
    else:
        after = [have - start - want for have, start, want in extents]
        if after == before:
            return _TRANSPOSED[rank](x, weight, bias, strides, before, 0, groups, dilations)
        result = _TRANSPOSED[rank](x, weight, None, strides, 0, 0, groups, dilations)
    window: tuple[Any, ...] = (..., *(slice(start, start + want) for _, start, want in extents))
    result = result[window]
    missing = [max(0, start + want - have) for have, start, want in extents]
    if any(missing):
        result = torch_pad(result, [amount for rest in reversed(missing) for amount in (0, rest)])
    return result if bias is None else result + bias.reshape(1, -1, *((1,) * spatial))
