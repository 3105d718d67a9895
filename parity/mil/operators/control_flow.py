"""Choice, loops and lists: select, cond, while_loop, and the MIL list operators.

A MIL list is a Python list of tensors that is never changed in place; an element that was never written and whose
shape is unknown is None.
"""

from __future__ import annotations

from typing import Any

import torch

from parity.errors import UsageError
from parity.mil.operators.limits import affordable
from parity.mil.operators.registry import CARRIERS, Context, operator

_List = list[torch.Tensor | None]
_ELEMENT = 1 << 8  # what an element of a list costs, in floating-point numbers


@operator("select", exact=True)
def select(context: Context, cond: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a where the condition holds, else b, broadcast together."""
    return torch.where(cond, a, b)


@operator("cond", exact=True, aliases=True)
def cond(context: Context, pred: torch.Tensor) -> tuple[Any, ...]:
    """Results of block 0 if the predicate holds, else of block 1."""
    return context.run_block(0 if bool(pred) else 1, ())


@operator("while_loop", exact=True, aliases=True, variadic=("loop_vars",))
def while_loop(context: Context, loop_vars: tuple[Any, ...]) -> tuple[Any, ...]:
    """Run block 1 on the variables as long as block 0 says so."""
    while bool(context.run_block(0, loop_vars)[0]):
        loop_vars = context.run_block(1, loop_vars)
    return loop_vars


@operator(
    "make_list",
    exact=True,
    static=("init_length", "dynamic_length", "elem_shape", "dtype"),
    variadic=("elem_shape",),
)
def make_list(
    context: Context,
    elem_shape: tuple[int | str, ...],
    init_length: int = 1,
    dynamic_length: bool = True,
    dtype: str = "fp32",
) -> _List:
    """List of `init_length` elements: zeros where the shape is known, else unwritten."""
    known = [size for size in elem_shape if isinstance(size, int)]
    affordable(context, [_ELEMENT, init_length, *known])
    if len(known) < len(elem_shape):
        return [None] * init_length
    return [torch.zeros(elem_shape, dtype=getattr(torch, CARRIERS[dtype])) for _ in range(init_length)]


@operator("list_length", exact=True)
def list_length(context: Context, ls: _List) -> torch.Tensor:
    """Number of elements."""
    return torch.tensor(len(ls), dtype=torch.int32)


@operator("list_read", exact=True, aliases=True, static=("index",))
def list_read(context: Context, ls: _List, index: int) -> torch.Tensor:
    """One element."""
    if not -len(ls) <= index < len(ls) or (element := ls[index]) is None:
        raise UsageError(
            f"operation {context.name!r}: list_read of element {index} of a list of {len(ls)}, which was not written"
        )
    return element


def _written(context: Context, ls: _List, index: int, value: torch.Tensor) -> None:
    if index >= len(ls):
        affordable(context, [_ELEMENT, index])
        blank = torch.zeros_like(ls[0]) if ls and ls[0] is not None else None
        ls.extend([blank] * (index + 1 - len(ls)))
    ls[index] = value


@operator("list_write", exact=True, aliases=True, static=("index",))
def list_write(context: Context, ls: _List, index: int, value: torch.Tensor) -> _List:
    """The list with one element replaced; it grows where needed."""
    result = list(ls)
    _written(context, result, index, value)
    return result


@operator("list_gather", exact=True, static=("indices",))
def list_gather(context: Context, ls: _List, indices: tuple[int, ...]) -> torch.Tensor:
    """Chosen elements, stacked; unwritten ones count as zeros."""
    elements = [ls[index] for index in indices]
    known = next((element for element in elements if element is not None), None)
    if known is None:
        raise UsageError(f"operation {context.name!r}: list_gather of elements that were never written")
    return torch.stack([torch.zeros_like(known) if element is None else element for element in elements])


@operator("list_scatter", exact=True, aliases=True, static=("indices",))
def list_scatter(context: Context, ls: _List, indices: tuple[int, ...], value: torch.Tensor) -> _List:
    """The list with the chosen elements replaced by the slices of `value`; it grows where needed."""
    result = list(ls)
    for index, element in zip(indices, value, strict=True):
        _written(context, result, index, element)
    return result
