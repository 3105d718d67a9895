"""Matrix products: linear, matmul, einsum, and scaled dot product attention."""

from __future__ import annotations

import math

import torch
from torch.nn.functional import linear as torch_linear
from torch.nn.functional import scaled_dot_product_attention as torch_attention

from parity.mil.operators import accumulate, sequential
from parity.mil.operators.registry import Context, operator


@operator("linear", accumulates=True)
def linear(context: Context, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """``x @ weight.T + bias``; integers meet floating-point numbers as such (iOS 17)."""
    if x.dtype != weight.dtype:
        x, weight, bias = x.float(), weight.float(), None if bias is None else bias.float()
    if context.half_accumulate:
        return accumulate.linear(x, weight, bias)
    if context.sequential:
        return sequential.linear(x, weight, bias)
    return torch_linear(x, weight, bias)


@operator("matmul", accumulates=True, static=("transpose_x", "transpose_y"))
def matmul(
    context: Context, x: torch.Tensor, y: torch.Tensor, transpose_x: bool = False, transpose_y: bool = False
) -> torch.Tensor:
    """Batched matrix product with NumPy's broadcasting; a transposition leaves vectors alone."""
    if x.dtype != y.dtype:  # one of them constant, iOS 17
        x, y = x.float(), y.float()
    if transpose_x and x.dim() > 1:
        x = x.mT
    if transpose_y and y.dim() > 1:
        y = y.mT
    if context.half_accumulate or context.sequential:
        multiply = sequential.matmul if context.sequential else accumulate.matmul
        result = multiply(x if x.dim() > 1 else x.unsqueeze(0), y if y.dim() > 1 else y.unsqueeze(1))
        result = result if y.dim() > 1 else result.squeeze(-1)
        return result if x.dim() > 1 else result.squeeze(-1 if y.dim() == 1 else -2)
    return torch.matmul(x, y)


@operator("einsum", accumulates=True, static=("equation",), variadic=("values",))
def einsum(context: Context, values: tuple[torch.Tensor, ...], equation: str) -> torch.Tensor:
    """Einstein summation; MIL allows ``nchw,nwhu->nchu`` and ``chw,whr->chr`` up to renaming."""
    if context.half_accumulate or context.sequential:
        x, y = values  # (…, C, H, W) and (…, W, H, U): a matrix product batched over H
        multiply = sequential.matmul if context.sequential else accumulate.matmul
        return multiply(x.transpose(-3, -2), y.transpose(-3, -2)).transpose(-3, -2)
    return torch.einsum(equation, *values)


@operator("scaled_dot_product_attention", accumulates=True, since="iOS18")
def scaled_dot_product_attention(
    context: Context,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """``softmax(query @ key.T / sqrt(E) + mask) @ value``; a boolean mask says which positions take part.

    Under ``float16-accumulate`` and ``float16-sequential`` scores, probabilities and both products are rounded to
    float16, under the latter after scaling the query; otherwise nothing but the result is, as in a fused kernel.
    """
    if not (context.half_accumulate or context.sequential):
        return torch_attention(query, key, value, attn_mask)
    if context.sequential:
        multiply = sequential.matmul
        scale = sequential.half(torch.tensor(1 / math.sqrt(query.shape[-1])))
        scores = multiply(sequential.half(query * scale), key.mT)
    else:
        multiply = accumulate.matmul
        scores = accumulate.half(multiply(query, key.mT) / math.sqrt(query.shape[-1]))
    if attn_mask is not None:
        masked = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, -math.inf) if masked else accumulate.half(scores + attn_mask)
    return multiply(accumulate.half(torch.softmax(scores, -1)), value)
