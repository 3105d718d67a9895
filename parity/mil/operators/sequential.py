"""What does a plain float16 loop compute? The arithmetic of the profile ``float16-sequential``.

An interpreter without tuned kernels sums one product after the other. Core AI's runtime on Linux does, and these
functions equal it bit for bit (tests/coreai):

* **Matrix products** (linear, matmul, einsum, attention): each product is rounded to float16, then the running sum is,
  without fused multiply-add; a bias is added last.
* **Convolutions**: a float32 sum, rounded once before the bias is added.
* **Average pools**: a float32 sum of the window, rounded, then divided by the count: windows of large values overflow.
* **Running sums** (cumsum) round after each addition.
* Everything else (norms, means, softmax, activations) is as under ``declared``: float32 inside, rounded once.

Sums and products of two float16 values are computed in float32 and rounded: 24 bits are at least twice 11 plus two, so
the second rounding changes nothing.
"""

from __future__ import annotations

import torch

from parity.mil.operators.accumulate import half

__all__ = ["half", "linear", "matmul", "mean"]

_ELEMENTS = 1 << 16  # of the running sums: rows are taken in blocks whose sums stay in the cache


def matmul(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """``x @ y`` for matrices (..., M, K) and (..., K, N): products and running sums rounded to float16."""
    if x.shape[-1] == 0:
        return torch.matmul(x, y)
    rows = max(1, _ELEMENTS // max(1, y.shape[-1]))
    narrow = y.half()
    return torch.cat([_product(part.half(), narrow) for part in x.split(rows, -2)], -2).float()


def _product(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    total = x[..., :1] * y[..., :1, :]  # torch rounds each float16 operation once
    for index in range(1, x.shape[-1]):
        total += x[..., index : index + 1] * y[..., index : index + 1, :]
    return total


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """``x @ weight.T + bias``; the bias comes last and its sum is left to the caller's rounding."""
    rows = x.unsqueeze(0) if x.dim() == 1 else x
    result = matmul(rows.flatten(0, -2), weight.T).reshape(*x.shape[:-1], -1)
    return result if bias is None else result + bias


def mean(x: torch.Tensor, axes: tuple[int, ...]) -> torch.Tensor:
    """Mean over the last axes: the float32 sum is rounded before the division."""
    values = x.flatten(axes[0])
    return half(values.cumsum(-1)[..., -1]) / values.shape[-1]
