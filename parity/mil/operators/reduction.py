"""Reductions over axes: sums, means, norms, products, extremes and where they are.

Integer sums wrap at 32 bits; integer means, norms and logarithms are computed in float64 and truncated.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from parity.mil.operators import accumulate
from parity.mil.operators.registry import Context, operator

_Axes = tuple[int, ...]


def _sum(x: torch.Tensor, axes: _Axes, keep: bool) -> torch.Tensor:
    return x.sum(axes, keepdim=keep, dtype=x.dtype)


def _prod(x: torch.Tensor, axes: _Axes, keep: bool) -> torch.Tensor:
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def _register_sum(kind: str, before: Callable | None, after: Callable | None) -> None:
    """Register ``after(sum(before(x)))``."""

    @operator(kind, accumulates=True, static=("axes", "keep_dims"))
    def reduce(context: Context, x: torch.Tensor, axes: _Axes | None = None, keep_dims: bool = False) -> torch.Tensor:
        axes = tuple(range(x.dim())) if axes is None else axes
        values = x if before is None else before(x)
        if context.half_accumulate:
            result = accumulate.total(accumulate.half(values), axes, keep_dims)
        else:
            result = _sum(values, axes, keep_dims)
        if after is not None:
            result = after(result) if x.is_floating_point() else after(result.double()).to(x.dtype)
        return result


_register_sum("reduce_sum", None, None)
_register_sum("reduce_sum_square", torch.square, None)
_register_sum("reduce_l1_norm", torch.abs, None)
_register_sum("reduce_l2_norm", torch.square, torch.sqrt)
_register_sum("reduce_log_sum", None, torch.log)


@operator("reduce_mean", accumulates=True, static=("axes", "keep_dims"))
def reduce_mean(context: Context, x: torch.Tensor, axes: _Axes | None = None, keep_dims: bool = False) -> torch.Tensor:
    """Mean over the axes (default all)."""
    axes = tuple(range(x.dim())) if axes is None else axes
    if context.half_accumulate:
        return accumulate.mean(x, axes, keep_dims)
    if not x.is_floating_point():
        return x.double().mean(axes, keepdim=keep_dims).to(x.dtype)
    return x.mean(axes, keepdim=keep_dims)


@operator("reduce_log_sum_exp", accumulates=True, static=("axes", "keep_dims"))
def reduce_log_sum_exp(
    context: Context, x: torch.Tensor, axes: _Axes | None = None, keep_dims: bool = False
) -> torch.Tensor:
    """log(sum(exp(x))) without overflow."""
    axes = tuple(range(x.dim())) if axes is None else axes
    if not x.is_floating_point():
        return x.double().logsumexp(axes, keepdim=keep_dims).to(x.dtype)
    if context.half_accumulate:
        top = x.amax(axes, keepdim=True)
        total = accumulate.total(accumulate.half(torch.exp(x - top)), axes, True)
        result = torch.log(total) + top
        return result if keep_dims else result.squeeze(axes)
    return x.logsumexp(axes, keepdim=keep_dims)


@operator("reduce_prod", static=("axes", "keep_dims"))
def reduce_prod(context: Context, x: torch.Tensor, axes: _Axes | None = None, keep_dims: bool = False) -> torch.Tensor:
    """Product over the axes (default all)."""
    return _prod(x, tuple(range(x.dim())) if axes is None else axes, keep_dims)


@operator("reduce_max", exact=True, static=("axes", "keep_dims"))
def reduce_max(context: Context, x: torch.Tensor, axes: _Axes = (), keep_dims: bool = False) -> torch.Tensor:
    """Largest element over the axes (default all)."""
    return x.amax(axes, keepdim=keep_dims)


@operator("reduce_min", exact=True, static=("axes", "keep_dims"))
def reduce_min(context: Context, x: torch.Tensor, axes: _Axes = (), keep_dims: bool = False) -> torch.Tensor:
    """Smallest element over the axes (default all)."""
    return x.amin(axes, keepdim=keep_dims)


@operator("reduce_argmax", exact=True, static=("axis", "keep_dims", "output_dtype"))
def reduce_argmax(
    context: Context, x: torch.Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32"
) -> torch.Tensor:
    """Index of the largest element along the axis; the first of equals."""
    return x.argmax(axis, keepdim=keep_dims).int()


@operator("reduce_argmin", exact=True, static=("axis", "keep_dims", "output_dtype"))
def reduce_argmin(
    context: Context, x: torch.Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32"
) -> torch.Tensor:
    """Index of the smallest element along the axis; the first of equals."""
    return x.argmin(axis, keepdim=keep_dims).int()
