"""Quantization of activations: quantize and dequantize (iOS 17)."""

from __future__ import annotations

import torch

from parity.mil.operators.registry import Context, operator

_RANGES = {"int8": (-128, 127, torch.int8), "uint8": (0, 255, torch.uint8)}


def _along(parameter: torch.Tensor, rank: int, axis: int | None) -> torch.Tensor:
    """Give a vector the rank of the data, its elements along the axis."""
    if parameter.dim() == 0 or axis is None:
        return parameter
    return parameter.reshape([-1 if position == axis % rank else 1 for position in range(rank)])


@operator("quantize", exact=True, since="iOS17", static=("output_dtype", "axis"))
def quantize(
    context: Context,
    input: torch.Tensor,
    scale: torch.Tensor,
    output_dtype: str,
    zero_point: torch.Tensor | None = None,
    axis: int | None = None,
) -> torch.Tensor:
    """clip(round(input / scale) + zero_point), halves to even."""
    low, high, dtype = _RANGES[output_dtype]
    steps = torch.round(input / _along(scale, input.dim(), axis))
    if zero_point is not None:
        steps = steps + _along(zero_point, input.dim(), axis).float()
    return steps.clamp(low, high).to(dtype)


@operator("dequantize", since="iOS17", static=("axis",))
def dequantize(
    context: Context,
    input: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor | None = None,
    axis: int | None = None,
) -> torch.Tensor:
    """scale * (input - zero_point)."""
    steps = input.float()
    if zero_point is not None:
        steps = steps - _along(zero_point, input.dim(), axis).float()
    return steps * _along(scale, input.dim(), axis)
