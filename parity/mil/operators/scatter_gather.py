"""Reading from and writing to places that other tensors name: gather and scatter families.

Before iOS 17 negative indices count from the end. Since then they are out of range, and `validate_indices` makes any
index out of range an error; without it the format calls the result undefined but safe. Here gathers clamp such indices
and scatters drop what they would write.
"""

from __future__ import annotations

import math

import torch

from parity.errors import UnsupportedError, UsageError
from parity.mil.operators.registry import Context, operator

_REDUCE = {"mul": "prod", "max": "amax", "min": "amin"}


def _located(
    context: Context, indices: torch.Tensor, size: int, validate: bool | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return usable indices as int64, and which of them are in range (None: all).

    With `validate` None (before iOS 17) negative indices count from the end.
    """
    indices = indices.long()
    if not indices.numel():
        return indices, None
    low, high = (int(bound) for bound in torch.aminmax(indices))
    if low >= 0 and high < size:
        return indices, None
    if validate:
        raise UsageError(
            f"operation {context.name!r} ({context.type}): index {low if low < 0 else high} is out of range for an "
            f"axis of size {size}, and the program asks for validation"
        )
    if validate is None:
        indices = torch.where(indices < 0, indices + size, indices)
    return indices.clamp(0, max(0, size - 1)), (indices >= 0) & (indices < size)


def _gather(
    context: Context, x: torch.Tensor, indices: torch.Tensor, axis: int, batch_dims: int, validate: bool | None
) -> torch.Tensor:
    axis %= x.dim()
    indices, _ = _located(context, indices, x.shape[axis], validate)
    if batch_dims == 0:
        if indices.dim() == 0:
            return x.select(axis, int(indices))
        if indices.dim() == 1:
            return x.index_select(axis, indices)
        return x.index_select(axis, indices.flatten()).unflatten(axis, indices.shape)
    batch = x.shape[:batch_dims].numel()
    rows = x.flatten(0, batch_dims - 1).movedim(axis - batch_dims + 1, 1)  # (batch, size, …)
    taken = rows[torch.arange(batch).unsqueeze(1), indices.reshape(batch, -1)]  # (batch, taken, …)
    taken = taken.movedim(1, axis - batch_dims + 1)
    return taken.reshape(*x.shape[:axis], *indices.shape[batch_dims:], *x.shape[axis + 1 :])


def _gather_nd(
    context: Context, x: torch.Tensor, indices: torch.Tensor, batch_dims: int, validate: bool | None
) -> torch.Tensor:
    position: list[torch.Tensor] = []
    for axis in range(batch_dims):
        shape = [-1 if axis == other else 1 for other in range(indices.dim() - 1)]
        position.append(torch.arange(x.shape[axis]).reshape(shape))
    for depth, part in enumerate(indices.unbind(-1)):
        position.append(_located(context, part, x.shape[batch_dims + depth], validate)[0])
    return x[tuple(position)]


@operator("gather", exact=True, aliases=True, static=("axis", "batch_dims"))
def gather_ios15(
    context: Context, x: torch.Tensor, indices: torch.Tensor, axis: int = 0, batch_dims: int = 0
) -> torch.Tensor:
    """Slices of x along the axis, in the shape of `indices`; the first `batch_dims` axes of both go together."""
    return _gather(context, x, indices, axis, batch_dims, None)


@operator("gather", exact=True, aliases=True, since="iOS17", static=("axis", "batch_dims", "validate_indices"))
def gather(
    context: Context,
    x: torch.Tensor,
    indices: torch.Tensor,
    axis: int = 0,
    batch_dims: int = 0,
    validate_indices: bool = False,
) -> torch.Tensor:
    """The same without negative indices."""
    return _gather(context, x, indices, axis, batch_dims, validate_indices)


@operator("gather_along_axis", exact=True, static=("axis",))
def gather_along_axis_ios15(context: Context, x: torch.Tensor, indices: torch.Tensor, axis: int = 0) -> torch.Tensor:
    """``x[…, indices[…, i, …], …]``: one index per element of the result."""
    return torch.gather(x, axis, _located(context, indices, x.shape[axis], None)[0])


@operator("gather_along_axis", exact=True, since="iOS17", static=("axis", "validate_indices"))
def gather_along_axis(
    context: Context, x: torch.Tensor, indices: torch.Tensor, axis: int = 0, validate_indices: bool = False
) -> torch.Tensor:
    """The same without negative indices."""
    return torch.gather(x, axis, _located(context, indices, x.shape[axis], validate_indices)[0])


@operator("gather_nd", exact=True, aliases=True, static=("batch_dims",))
def gather_nd_ios15(context: Context, x: torch.Tensor, indices: torch.Tensor, batch_dims: int = 0) -> torch.Tensor:
    """``x[indices[…, :]]``: the last axis of `indices` is a position in the axes after the batch."""
    return _gather_nd(context, x, indices, batch_dims, None)


@operator("gather_nd", exact=True, aliases=True, since="iOS17", static=("batch_dims", "validate_indices"))
def gather_nd(
    context: Context, x: torch.Tensor, indices: torch.Tensor, batch_dims: int = 0, validate_indices: bool = False
) -> torch.Tensor:
    """The same without negative indices."""
    return _gather_nd(context, x, indices, batch_dims, validate_indices)


def _write(
    rows: torch.Tensor, targets: torch.Tensor, keep: torch.Tensor | None, updates: torch.Tensor, mode: str
) -> torch.Tensor:
    """Return a copy of `rows` (R, width) with `updates` (M, width) written to the rows `targets` (M).

    With several updates of one row, `update` keeps the last and the others combine all.
    """
    if keep is not None:
        targets, updates = targets[keep], updates[keep]
    result = rows.clone()
    if mode == "update":
        order = torch.arange(len(targets))
        last = torch.full((len(rows),), -1).scatter_reduce(0, targets, order, "amax")
        written = last >= 0
        result[written] = updates[last[written]]
        return result
    index = targets.unsqueeze(1).expand_as(updates)
    if mode == "add":
        return result.scatter_add_(0, index, updates)
    if mode == "sub":
        return result.scatter_add_(0, index, -updates)
    if mode == "div":
        divisors = torch.ones_like(rows).scatter_reduce(0, index, updates, "prod")
        return result / divisors if rows.is_floating_point() else torch.div(result, divisors, rounding_mode="trunc")
    if mode in _REDUCE:
        return result.scatter_reduce_(0, index, updates, _REDUCE[mode])
    raise UnsupportedError(f"scatter mode {mode!r}; known are update, add, sub, mul, div, max and min")


def _scatter(
    context: Context,
    data: torch.Tensor,
    indices: torch.Tensor,
    updates: torch.Tensor,
    axis: int,
    mode: str,
    validate: bool | None,
) -> torch.Tensor:
    axis %= data.dim()
    size, width = data.shape[axis], data.numel() // max(1, data.shape[axis])
    targets, keep = _located(context, indices.flatten(), size, validate)
    first = data.movedim(axis, 0)
    taken = updates.reshape(*data.shape[:axis], targets.numel(), *data.shape[axis + 1 :]).movedim(axis, 0)
    result = _write(first.reshape(size, width), targets, keep, taken.reshape(targets.numel(), width), mode)
    return result.reshape(first.shape).movedim(0, axis)


def _scatter_along_axis(
    context: Context,
    data: torch.Tensor,
    indices: torch.Tensor,
    updates: torch.Tensor,
    axis: int,
    mode: str,
    validate: bool | None,
) -> torch.Tensor:
    size = data.shape[axis]
    targets, keep = _located(context, indices.movedim(axis, -1), size, validate)
    last = data.movedim(axis, -1)
    start = torch.arange(last.shape[:-1].numel()).unsqueeze(1) * size
    flat = (targets.reshape(-1, targets.shape[-1]) + start).flatten()
    values = updates.movedim(axis, -1).reshape(-1, 1)
    result = _write(last.reshape(-1, 1), flat, None if keep is None else keep.flatten(), values, mode)
    return result.reshape(last.shape).movedim(-1, axis)


def _scatter_nd(
    context: Context,
    data: torch.Tensor,
    indices: torch.Tensor,
    updates: torch.Tensor,
    mode: str,
    validate: bool | None,
) -> torch.Tensor:
    depth = indices.shape[-1]
    count = math.prod(indices.shape[:-1])
    targets = torch.zeros(count, dtype=torch.int64)
    keep: torch.Tensor | None = None
    for axis, part in enumerate(indices.reshape(count, depth).unbind(1)):
        along, inside = _located(context, part, data.shape[axis], validate)
        targets = targets * data.shape[axis] + along
        if inside is not None:
            keep = inside if keep is None else keep & inside
    rows = data.reshape(data.shape[:depth].numel(), -1)
    return _write(rows, targets, keep, updates.reshape(count, rows.shape[1]), mode).reshape(data.shape)


@operator("scatter", static=("axis", "mode"))
def scatter_ios15(
    context: Context,
    data: torch.Tensor,
    indices: torch.Tensor,
    updates: torch.Tensor,
    axis: int = 0,
    mode: str = "add",
) -> torch.Tensor:
    """Combine the slices of `data` that `indices` names along the axis with `updates`."""
    return _scatter(context, data, indices, updates, axis, mode, None)


@operator("scatter", since="iOS17", static=("axis", "mode", "validate_indices"))
def scatter(
    context: Context,
    data: torch.Tensor,
    indices: torch.Tensor,
    updates: torch.Tensor,
    axis: int = 0,
    mode: str = "add",
    validate_indices: bool = False,
) -> torch.Tensor:
    """The same without negative indices."""
    return _scatter(context, data, indices, updates, axis, mode, validate_indices)


@operator("scatter_along_axis", static=("axis", "mode"))
def scatter_along_axis_ios15(
    context: Context,
    data: torch.Tensor,
    indices: torch.Tensor,
    updates: torch.Tensor,
    axis: int = 0,
    mode: str = "add",
) -> torch.Tensor:
    """Combine ``data[…, indices[…, i, …], …]`` with ``updates[…, i, …]``."""
    return _scatter_along_axis(context, data, indices, updates, axis, mode, None)


@operator("scatter_along_axis", since="iOS17", static=("axis", "mode", "validate_indices"))
def scatter_along_axis(
    context: Context,
    data: torch.Tensor,
    indices: torch.Tensor,
    updates: torch.Tensor,
    axis: int = 0,
    mode: str = "add",
    validate_indices: bool = False,
) -> torch.Tensor:
    """The same without negative indices."""
    return _scatter_along_axis(context, data, indices, updates, axis, mode, validate_indices)


@operator("scatter_nd", static=("mode",))
def scatter_nd_ios15(
    context: Context,
    data: torch.Tensor,
    indices: torch.Tensor,
    updates: torch.Tensor,
    mode: str = "add",
) -> torch.Tensor:
    """Combine ``data[indices[…, :]]`` with `updates`."""
    return _scatter_nd(context, data, indices, updates, mode, None)


@operator("scatter_nd", since="iOS17", static=("mode", "validate_indices"))
def scatter_nd(
    context: Context,
    data: torch.Tensor,
    indices: torch.Tensor,
    updates: torch.Tensor,
    mode: str = "add",
    validate_indices: bool = False,
) -> torch.Tensor:
    """The same without negative indices."""
    return _scatter_nd(context, data, indices, updates, mode, validate_indices)
