"""Norms: batch, instance, layer, L2 and local response."""

from __future__ import annotations

import torch
from torch.nn import functional

from parity.mil.operators import accumulate
from parity.mil.operators.registry import Context, operator


def _per_channel(parameter: torch.Tensor, rank: int) -> torch.Tensor:
    return parameter.reshape(1, -1, *((1,) * (rank - 2)))


def _half_standardized(x: torch.Tensor, axes: tuple[int, ...], epsilon: float) -> torch.Tensor:
    """(x - mean) / sqrt(variance + epsilon) with means and squares in float16."""
    centred = accumulate.half(x - accumulate.mean(x, axes, True))
    variance = accumulate.mean(accumulate.half(centred * centred), axes, True)
    return centred * torch.rsqrt(variance + epsilon)


@operator("batch_norm", static=("epsilon",))
def batch_norm(
    context: Context,
    x: torch.Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
    gamma: torch.Tensor | None = None,
    beta: torch.Tensor | None = None,
    epsilon: float = 1e-5,
) -> torch.Tensor:
    """Normalize x (N, C, …) with given statistics per channel."""
    return torch.batch_norm(x, gamma, beta, mean, variance, False, 0.0, epsilon, False)


@operator("instance_norm", accumulates=True, static=("epsilon",))
def instance_norm(
    context: Context,
    x: torch.Tensor,
    gamma: torch.Tensor | None = None,
    beta: torch.Tensor | None = None,
    epsilon: float = 1e-5,
) -> torch.Tensor:
    """Normalize x (N, C, …) over its spatial axes."""
    if context.half_accumulate:
        result = _half_standardized(x, tuple(range(2, x.dim())), epsilon)
        result = result if gamma is None else result * _per_channel(gamma, x.dim())
        return result if beta is None else result + _per_channel(beta, x.dim())
    return torch.instance_norm(x, gamma, beta, None, None, True, 0.0, epsilon, False)


@operator("layer_norm", accumulates=True, static=("axes", "epsilon"))
def layer_norm(
    context: Context,
    x: torch.Tensor,
    axes: tuple[int, ...] | None = None,
    gamma: torch.Tensor | None = None,
    beta: torch.Tensor | None = None,
    epsilon: float = 1e-5,
) -> torch.Tensor:
    """Normalize over the axes (default all); gamma and beta have the shape of those axes."""
    rank = x.dim()
    normalized = sorted(axis % rank for axis in (range(rank) if axes is None else axes))
    if context.half_accumulate:
        shape = [x.shape[axis] if axis in normalized else 1 for axis in range(rank)]
        result = _half_standardized(x, tuple(normalized), epsilon)
        result = result if gamma is None else result * gamma.reshape(shape)
        return result if beta is None else result + beta.reshape(shape)
    if normalized[0] == rank - len(normalized):
        return torch.layer_norm(x, x.shape[normalized[0] :], gamma, beta, epsilon)
    order = [axis for axis in range(rank) if axis not in normalized] + normalized
    inverse = sorted(range(rank), key=order.__getitem__)
    sizes = [x.shape[axis] for axis in normalized]
    return torch.layer_norm(x.permute(order), sizes, gamma, beta, epsilon).permute(inverse)


@operator("l2_norm", accumulates=True, static=("epsilon",))
def l2_norm(context: Context, x: torch.Tensor, epsilon: float = 1e-6) -> torch.Tensor:
    """x / sqrt(sum of squares over the last three axes + epsilon)."""
    axes = (-3, -2, -1)
    squares = x * x
    total = accumulate.total(accumulate.half(squares), axes, True) if context.half_accumulate else None
    return x / torch.sqrt((squares.sum(axes, keepdim=True) if total is None else total) + epsilon)


@operator("local_response_norm", accumulates=True, static=("size", "alpha", "beta", "k"))
def local_response_norm(
    context: Context, x: torch.Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> torch.Tensor:
    """x / (k + alpha / size * sum of squares over `size` neighbouring channels) ** beta.

    An even number of channels reaches one further back than forth, as PyTorch's does.
    """
    if context.half_accumulate:
        squares = functional.pad(accumulate.half(x * x).movedim(1, -1), (size // 2, (size - 1) // 2))
        sums = accumulate.total(squares.unfold(-1, size, 1), (-1,), False).movedim(-1, 1)
        return x / (k + alpha / size * sums) ** beta
    return functional.local_response_norm(x, size, alpha, beta, k)
