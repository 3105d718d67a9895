"""What if sums accumulated in float16? The arithmetic of the profile ``float16-accumulate``, in one place.

Hardware that multiplies float16 does not all accumulate in float32. Under the profile ``float16-accumulate`` the
operators with dot products or sums use these functions:

* **Dot products** (conv, conv_transpose, linear, matmul, einsum, attention): blocks of :data:`BLOCK` products are
  summed in float32 and rounded to float16; the blocks accumulate one after the other, rounding each time. The order
  along the contracted axis is the memory order; a convolution goes tap by tap.
* **Sums** (reductions, norms, softmax, windows of pools): a balanced tree, every level rounded. **Means** average pairs
  at each level, so that they do not overflow where the mean itself is representable.
* **Running sums** (cumsum) round after each addition.
* **Recurrent layers**: products as above; gates and states are rounded at each step instead of staying in float32.

This models accumulation done with care, not a device: no hardware's order of summation is reproduced, and it is no
bound. A plain loop that rounds each product too (:mod:`parity.mil.operators.sequential`) is worse in long products.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch

BLOCK = 8
"""Products that are summed before the first rounding to float16."""


def half(x: torch.Tensor) -> torch.Tensor:
    """Round float32 values to float16 (overflow to infinity, subnormals kept), in float32."""
    return x.half().float()


def matmul(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """``x @ y`` for matrices (..., M, K) and (..., K, N) with float16 accumulation."""
    result: torch.Tensor | None = None
    for start in range(0, x.shape[-1], BLOCK):
        block = half(torch.matmul(x[..., start : start + BLOCK], y[..., start : start + BLOCK, :]))
        result = block if result is None else half(result + block)
    return torch.matmul(x, y) if result is None else result


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """``x @ weight.T + bias`` with float16 accumulation; the bias comes last and its sum is left to the caller."""
    rows = x.unsqueeze(0) if x.dim() == 1 else x
    result = matmul(rows, weight.T).reshape(*x.shape[:-1], -1)
    return result if bias is None else result + bias


def convolution(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    *,
    strides: Sequence[int],
    dilations: Sequence[int],
    groups: int,
) -> torch.Tensor:
    """Convolution of the padded `x` (N, C, …) with `weight` (C_out, C/groups, …), float16 accumulation."""
    kernel = weight.shape[2:]
    sizes = [
        (size - (k - 1) * dilation - 1) // stride + 1
        for size, k, dilation, stride in zip(x.shape[2:], kernel, dilations, strides, strict=True)
    ]
    channels = x.shape[1] // groups
    function = (torch.conv1d, torch.conv2d, torch.conv3d)[len(kernel) - 1]
    result: torch.Tensor | None = None
    for tap in itertools.product(*(range(k) for k in kernel)):
        window: tuple[Any, ...] = (
            ...,
            *(
                slice(t * dilation, t * dilation + (size - 1) * stride + 1, stride)
                for t, dilation, size, stride in zip(tap, dilations, sizes, strides, strict=True)
            ),
        )
        seen = x[window].unflatten(1, (groups, channels))
        one: tuple[Any, ...] = (..., *(slice(t, t + 1) for t in tap))
        taps = weight[one]
        for start in range(0, channels, BLOCK):
            part = seen[:, :, start : start + BLOCK].flatten(1, 2)
            block = half(function(part, taps[:, start : start + BLOCK], None, groups=groups))
            result = block if result is None else half(result + block)
    assert result is not None
    if bias is not None:
        result = result + bias.reshape(1, -1, *(1 for _ in kernel))
    return result


def _tree(x: torch.Tensor, axes: Sequence[int], keep_dims: bool, *, average: bool) -> torch.Tensor:
    axes = sorted(axis % x.dim() for axis in axes)
    kept = [axis for axis in range(x.dim()) if axis not in axes]
    values = x.permute(*kept, *axes).reshape(*(x.shape[axis] for axis in kept), -1)
    count, level = values.shape[-1], 1
    while values.shape[-1] > 1:
        if values.shape[-1] % 2:
            values = torch.nn.functional.pad(values, (0, 1))
        values = values[..., ::2] + values[..., 1::2]
        values, level = half(values * 0.5 if average else values), level * 2
    result = values[..., 0] * (level / count) if average else values.sum(-1)
    return result.reshape([1 if axis in axes else size for axis, size in enumerate(x.shape)]) if keep_dims else result


def total(x: torch.Tensor, axes: Sequence[int], keep_dims: bool) -> torch.Tensor:
    """Sum over the axes in a tree whose every level is rounded to float16."""
    return _tree(x, axes, keep_dims, average=False)


def mean(x: torch.Tensor, axes: Sequence[int], keep_dims: bool) -> torch.Tensor:
    """Mean over the axes by averaging pairs, every level rounded to float16."""
    return _tree(x, axes, keep_dims, average=True)


def running(x: torch.Tensor, axis: int) -> torch.Tensor:
    """Cumulative sum along the axis, rounded to float16 after each addition."""
    sums: list[torch.Tensor] = []
    for part in x.unbind(axis):
        sums.append(half(sums[-1] + part) if sums else part)
    return torch.stack(sums, axis) if sums else x.clone()


def windows(x: torch.Tensor, kernel: Sequence[int], strides: Sequence[int]) -> tuple[torch.Tensor, tuple[int, ...]]:
    """Return the windows of (N, C, …), as a view with further axes at the end, and those axes."""
    for axis, (size, stride) in enumerate(zip(kernel, strides, strict=True), 2):
        x = x.unfold(axis, size, stride)
    return x, tuple(range(-len(kernel), 0))
