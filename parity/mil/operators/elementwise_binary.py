"""Element by element, two inputs with NumPy's broadcasting: arithmetic, comparison, logic.

Integer division by zero gives 0 (as the ARM instructions and NumPy do): programs guard it with `select` after the fact.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from parity.mil.operators.registry import Context, operator

_Binary = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _register(functions: dict[str, _Binary], *, exact: bool) -> None:
    def wrapped(function: _Binary) -> Callable[..., torch.Tensor]:
        def apply(context: Context, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return function(x, y)

        return apply

    for kind, function in functions.items():
        operator(kind, exact=exact)(wrapped(function))


_register({"add": torch.add, "mul": torch.mul, "sub": torch.sub, "pow": torch.pow}, exact=False)
_register(
    {
        "equal": torch.eq,
        "greater": torch.gt,
        "greater_equal": torch.ge,
        "less": torch.lt,
        "less_equal": torch.le,
        "logical_and": torch.logical_and,
        "logical_or": torch.logical_or,
        "logical_xor": torch.logical_xor,
        "maximum": torch.maximum,
        "minimum": torch.minimum,
        "not_equal": torch.ne,
    },
    exact=True,
)


def _guarded(function: _Binary, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    zero = y == 0
    return function(x, y.masked_fill(zero, 1)).masked_fill(zero, 0)


def _floor_div(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.div(x, y, rounding_mode="floor")


@operator("real_div")
def real_div(context: Context, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """x / y; integers are divided exactly and truncated toward zero."""
    if x.is_floating_point():
        return torch.div(x, y)
    return _guarded(lambda a, b: torch.div(a, b, rounding_mode="trunc"), x, y)


@operator("floor_div")
def floor_div(context: Context, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Floor of x / y."""
    return _floor_div(x, y) if x.is_floating_point() else _guarded(_floor_div, x, y)


@operator("mod")
def mod(context: Context, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """x - y * floor(x / y): the sign follows y."""
    return torch.remainder(x, y) if x.is_floating_point() else _guarded(torch.remainder, x, y)
