"""Pools: average, maximum and L2, in one to three spatial dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn import functional

from parity.mil.operators import accumulate, sequential
from parity.mil.operators.limits import affordable
from parity.mil.operators.padding import explicit, reversed_pairs
from parity.mil.operators.registry import Context, operator

_STATIC = ("kernel_sizes", "strides", "pad_type", "pad", "ceil_mode")
_AVERAGE = {3: functional.avg_pool1d, 4: functional.avg_pool2d, 5: functional.avg_pool3d}
_MAXIMUM = {3: functional.max_pool1d, 4: functional.max_pool2d, 5: functional.max_pool3d}


def _pads(
    x: torch.Tensor,
    kernel: Sequence[int],
    strides: Sequence[int],
    pad_type: str,
    pad: Sequence[int] | None,
    ceil_mode: bool,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the padding as declared, and what `ceil_mode` needs beyond it at the end of each axis.

    In ceil mode a last window counts that starts inside the input or its leading padding.
    """
    sizes = x.shape[2:]
    pads = explicit(pad_type, pad, sizes=sizes, kernel=kernel, strides=strides, dilations=(1,) * len(sizes))
    if not ceil_mode:
        return pads, (0,) * len(sizes)
    extra = []
    for axis, (size, k, stride) in enumerate(zip(sizes, kernel, strides, strict=True)):
        before, after = pads[2 * axis], pads[2 * axis + 1]
        count = -(-(size + before + after - k) // stride) + 1
        if (count - 1) * stride >= size + before:
            count -= 1
        extra.append(max(0, (count - 1) * stride + k - size - before - after))
    return pads, tuple(extra)


def _padded(x: torch.Tensor, pads: Sequence[int], extra: Sequence[int], value: float) -> torch.Tensor:
    widths = list(pads)
    for axis, amount in enumerate(extra):
        widths[2 * axis + 1] += amount
    return functional.pad(x, reversed_pairs(widths), value=value) if any(widths) else x


@operator("avg_pool", accumulates=True, static=(*_STATIC, "exclude_padding_from_average"))
def avg_pool(
    context: Context,
    x: torch.Tensor,
    kernel_sizes: tuple[int, ...],
    pad_type: str,
    strides: tuple[int, ...] | None = None,
    pad: tuple[int, ...] | None = None,
    exclude_padding_from_average: bool = False,
    ceil_mode: bool = False,
) -> torch.Tensor:
    """Mean of each window, over its padded size or over the input's elements in it only."""
    strides = (1,) * len(kernel_sizes) if strides is None else strides
    pads, extra = _pads(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    pool = _AVERAGE[x.dim()]
    padded = _padded(x, pads, extra, 0.0)
    if context.half_accumulate or context.sequential:
        parts, axes = accumulate.windows(padded, kernel_sizes, strides)
        affordable(context, parts.shape)
        result = sequential.mean(parts, axes) if context.sequential else accumulate.mean(parts, axes, False)
    else:
        result = pool(padded, kernel_sizes, strides)
    if (exclude_padding_from_average and any(pads)) or any(extra):
        inside = x.new_ones(1, 1, *x.shape[2:])
        if not exclude_padding_from_average:
            inside = _padded(inside, pads, (0,) * len(extra), 1.0)
            inside = _padded(inside, (0,) * len(pads), extra, 0.0)
        else:
            inside = _padded(inside, pads, extra, 0.0)
        result = result / pool(inside, kernel_sizes, strides)
    return result


@operator("max_pool", exact=True, static=_STATIC)
def max_pool(
    context: Context,
    x: torch.Tensor,
    kernel_sizes: tuple[int, ...],
    pad_type: str,
    strides: tuple[int, ...] | None = None,
    pad: tuple[int, ...] | None = None,
    ceil_mode: bool = False,
) -> torch.Tensor:
    """Maximum of each window; padding never wins."""
    strides = (1,) * len(kernel_sizes) if strides is None else strides
    pads, extra = _pads(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    return _MAXIMUM[x.dim()](_padded(x, pads, extra, -torch.inf), kernel_sizes, strides)


@operator("l2_pool", accumulates=True, static=_STATIC)
def l2_pool(
    context: Context,
    x: torch.Tensor,
    kernel_sizes: tuple[int, ...],
    pad_type: str,
    strides: tuple[int, ...] | None = None,
    pad: tuple[int, ...] | None = None,
    ceil_mode: bool = False,
) -> torch.Tensor:
    """Square root of the sum of squares in each window."""
    strides = (1,) * len(kernel_sizes) if strides is None else strides
    pads, extra = _pads(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    squares = _padded(x * x, pads, extra, 0.0)
    if context.half_accumulate:
        parts, axes = accumulate.windows(accumulate.half(squares), kernel_sizes, strides)
        affordable(context, parts.shape)
        return torch.sqrt(accumulate.total(parts, axes, False))
    return torch.sqrt(_AVERAGE[x.dim()](squares, kernel_sizes, strides) * math.prod(kernel_sizes))
