"""Activations: element by element, most with constant parameters."""

from __future__ import annotations

import torch
from torch.nn import functional

from parity.errors import UnsupportedError
from parity.mil.operators import accumulate
from parity.mil.operators.registry import Context, operator

_GELU = {"EXACT": "none", "TANH_APPROXIMATION": "tanh"}


@operator("relu", exact=True)
def relu(context: Context, x: torch.Tensor) -> torch.Tensor:
    """max(x, 0)."""
    return torch.relu(x)


@operator("relu6", exact=True)
def relu6(context: Context, x: torch.Tensor) -> torch.Tensor:
    """min(max(x, 0), 6)."""
    return torch.clamp(x, 0, 6)


@operator("sigmoid")
def sigmoid(context: Context, x: torch.Tensor) -> torch.Tensor:
    """1 / (1 + exp(-x))."""
    return torch.sigmoid(x)


@operator("silu")
def silu(context: Context, x: torch.Tensor) -> torch.Tensor:
    """x * sigmoid(x)."""
    return functional.silu(x)


@operator("gelu", static=("mode",))
def gelu(context: Context, x: torch.Tensor, mode: str = "EXACT") -> torch.Tensor:
    """Gaussian error linear unit: exact, or by tanh, or as x * sigmoid(1.702 x)."""
    if mode in _GELU:
        # torch's AVX-512 kernel of the exact form makes NaN of +inf, which an overflow in float16 is
        return functional.gelu(x, approximate=_GELU[mode]).masked_fill_(x == torch.inf, torch.inf)
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    raise UnsupportedError(
        f"operation {context.name!r}: gelu mode {mode!r}; known are EXACT, TANH_APPROXIMATION, SIGMOID_APPROXIMATION"
    )


@operator("softmax", accumulates=True, static=("axis",))
def softmax(context: Context, x: torch.Tensor, axis: int = -1) -> torch.Tensor:
    """exp(x) / sum(exp(x)) along the axis."""
    if context.half_accumulate:
        powers = accumulate.half(torch.exp(x - x.amax(axis, keepdim=True)))
        return powers / accumulate.total(powers, (axis,), True)
    return torch.softmax(x, axis)


@operator("softplus")
def softplus(context: Context, x: torch.Tensor) -> torch.Tensor:
    """log(1 + exp(x)) without overflow."""
    return torch.log1p(torch.exp(-torch.abs(x))) + torch.relu(x)


def _per_channel(parameter: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return parameter.reshape(1, -1, *((1,) * (x.dim() - 2)))


@operator("softplus_parametric")
def softplus_parametric(context: Context, x: torch.Tensor, alpha: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
    """alpha * log(1 + exp(beta * x)) with parameters per channel (axis 1)."""
    return _per_channel(alpha, x) * softplus(context, _per_channel(beta, x) * x)


@operator("softsign")
def softsign(context: Context, x: torch.Tensor) -> torch.Tensor:
    """x / (1 + abs(x))."""
    return functional.softsign(x)


@operator("elu", static=("alpha",))
def elu(context: Context, x: torch.Tensor, alpha: float) -> torch.Tensor:
    """x where positive, else alpha * (exp(x) - 1)."""
    return functional.elu(x, alpha)


@operator("leaky_relu", static=("alpha",))
def leaky_relu(context: Context, x: torch.Tensor, alpha: float) -> torch.Tensor:
    """x where positive, else alpha * x."""
    return functional.leaky_relu(x, alpha)


@operator("prelu")
def prelu(context: Context, x: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """x where positive, else alpha * x, alpha per channel (axis 1)."""
    return functional.prelu(x, alpha)


@operator("thresholded_relu", exact=True, static=("alpha",))
def thresholded_relu(context: Context, x: torch.Tensor, alpha: float) -> torch.Tensor:
    """x where x >= alpha, else 0."""
    return torch.where(x >= alpha, x, 0)


@operator("clamped_relu", static=("alpha", "beta"))
def clamped_relu(context: Context, x: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    """min(beta, x) where x >= 0, else min(beta, alpha * x)."""
    return torch.clamp(torch.where(x >= 0, x, alpha * x), max=beta)


@operator("linear_activation", static=("alpha", "beta"))
def linear_activation(context: Context, x: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    """alpha * x + beta."""
    return x * alpha + beta


@operator("scaled_tanh", static=("alpha", "beta"))
def scaled_tanh(context: Context, x: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    """alpha * tanh(beta * x)."""
    return alpha * torch.tanh(beta * x)


@operator("sigmoid_hard", static=("alpha", "beta"))
def sigmoid_hard(context: Context, x: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    """min(max(alpha * x + beta, 0), 1)."""
    return torch.clamp(x * alpha + beta, 0, 1)
