"""Element by element, one input: arithmetic, rounding, trigonometry, bounds and casts."""

from __future__ import annotations

from collections.abc import Callable

import torch

from parity.errors import UnsupportedError
from parity.mil.operators.registry import CARRIERS, Context, operator

_Unary = Callable[[torch.Tensor], torch.Tensor]


def _register(functions: dict[str, _Unary], *, exact: bool) -> None:
    def wrapped(function: _Unary) -> Callable[..., torch.Tensor]:
        def apply(context: Context, x: torch.Tensor) -> torch.Tensor:
            return function(x)

        return apply

    for kind, function in functions.items():
        operator(kind, exact=exact)(wrapped(function))


_register(
    {
        "abs": torch.abs,
        "ceil": torch.ceil,
        "floor": torch.floor,
        "logical_not": torch.logical_not,
        "round": torch.round,  # halves to even
        "sign": torch.sign,
    },
    exact=True,
)
_register(
    {
        "acos": torch.acos,
        "asin": torch.asin,
        "atan": torch.atan,
        "atanh": torch.atanh,
        "cos": torch.cos,
        "cosh": torch.cosh,
        "erf": torch.erf,
        "exp": torch.exp,
        "sin": torch.sin,
        "sinh": torch.sinh,
        "sqrt": torch.sqrt,
        "square": torch.square,
        "tan": torch.tan,
        "tanh": torch.tanh,
    },
    exact=False,
)


@operator("exp2")
def exp2(context: Context, x: torch.Tensor) -> torch.Tensor:
    """2 to the power of x; integers stay integers."""
    return torch.exp2(x) if x.is_floating_point() else torch.exp2(x.double()).to(x.dtype)


@operator("inverse", static=("epsilon",))
def inverse(context: Context, x: torch.Tensor, epsilon: float = 1e-4) -> torch.Tensor:
    """1 / (x + epsilon)."""
    return torch.reciprocal(x + epsilon)


@operator("log", static=("epsilon",))
def log(context: Context, x: torch.Tensor, epsilon: float = 1e-45) -> torch.Tensor:
    """Natural logarithm of x + epsilon."""
    return torch.log(x + epsilon)


@operator("rsqrt", static=("epsilon",))
def rsqrt(context: Context, x: torch.Tensor, epsilon: float = 1e-12) -> torch.Tensor:
    """1 / sqrt(x + epsilon)."""
    return torch.rsqrt(x + epsilon)


@operator("clip", exact=True, static=("alpha", "beta"))
def clip(context: Context, x: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    """min(max(x, alpha), beta)."""
    return torch.clamp(x, alpha, beta)


@operator("threshold", exact=True, static=("alpha",))
def threshold(context: Context, x: torch.Tensor, alpha: float) -> torch.Tensor:
    """max(x, alpha)."""
    return torch.clamp(x, min=alpha)


_INTEGER_RANGES = {
    name: (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    for name, bits, signed in (
        ("int8", 8, True),
        ("uint8", 8, False),
        ("int16", 16, True),
        ("uint16", 16, False),
        ("int32", 32, True),
        ("uint32", 32, False),
    )
}


@operator("cast", aliases=True, static=("dtype",))
def cast(context: Context, x: torch.Tensor, dtype: str) -> torch.Tensor:
    """Change the dtype.

    Floating point to integer truncates toward zero and saturates, NaN becomes 0 (the ARM instructions' behaviour);
    integer to narrower integer keeps the low bits.
    """
    carrier = CARRIERS.get(dtype)
    if carrier is None:
        raise UnsupportedError(f"operation {context.name!r}: cast to {dtype!r}; known are {', '.join(CARRIERS)}")
    target = getattr(torch, carrier)
    if dtype not in _INTEGER_RANGES or x.dtype == torch.bool:
        return x.to(target)
    low, high = _INTEGER_RANGES[dtype]
    if x.is_floating_point():
        return torch.nan_to_num(x.double(), nan=0.0).clamp(low, high).to(target)
    if low < 0:
        return x.to(target)
    return torch.bitwise_and(x.to(torch.int64), high).to(target)
