"""Making, joining, splitting, padding, sorting and counting tensors."""

from __future__ import annotations

import torch
from torch.nn import functional

from parity.errors import UnsupportedError
from parity.mil.operators import accumulate
from parity.mil.operators.limits import affordable
from parity.mil.operators.registry import Context, operator

_Tensors = tuple[torch.Tensor, ...]
_DTYPES = {bool: torch.bool, int: torch.int32, float: torch.float32}


@operator("identity", exact=True, aliases=True)
def identity(context: Context, x: torch.Tensor) -> torch.Tensor:
    """x itself."""
    return x


@operator("shape", exact=True)
def shape(context: Context, x: torch.Tensor) -> torch.Tensor:
    """Sizes of x as int32."""
    return torch.tensor(x.shape, dtype=torch.int32)


@operator("fill", exact=True, static=("shape", "value"))
def fill(context: Context, shape: tuple[int, ...], value: bool | int | float = 0.0) -> torch.Tensor:
    """Tensor of one value; the value's type gives the dtype."""
    affordable(context, shape)
    return torch.full(shape, value, dtype=_DTYPES[type(value)])


@operator("fill_like", exact=True, since="iOS16", static=("value",))
def fill_like(context: Context, ref_tensor: torch.Tensor, value: bool | int | float = 0.0) -> torch.Tensor:
    """Tensor of one value with the reference's shape."""
    return torch.full(ref_tensor.shape, value, dtype=_DTYPES[type(value)])


@operator("range_1d", static=("start", "end", "step"))
def range_1d(context: Context, end: int | float, start: int | float, step: int | float) -> torch.Tensor:
    """start, start + step, … as long as below `end` (above, for negative steps)."""
    affordable(context, [int((end - start) / step) if step else 0])
    return torch.arange(start, end, step, dtype=_DTYPES[type(start)])


@operator("concat", exact=True, static=("axis", "interleave"), variadic=("values",))
def concat(context: Context, values: _Tensors, axis: int, interleave: bool = False) -> torch.Tensor:
    """Join along the axis, one after the other or element by element in turn; scalars make a vector."""
    if values[0].dim() == 0:
        return torch.stack(values)
    if interleave:
        axis %= values[0].dim()
        return torch.stack(values, axis + 1).flatten(axis, axis + 1)
    return torch.cat(values, axis)


@operator("stack", exact=True, static=("axis",), variadic=("values",))
def stack(context: Context, values: _Tensors, axis: int) -> torch.Tensor:
    """Join along a new axis."""
    return torch.stack(values, axis)


@operator("split", exact=True, aliases=True, static=("num_splits", "split_sizes", "axis"))
def split(
    context: Context,
    x: torch.Tensor,
    axis: int,
    num_splits: int | None = None,
    split_sizes: tuple[int, ...] | None = None,
) -> _Tensors:
    """Parts along the axis: of given sizes, or equal ones."""
    if split_sizes is not None:
        return x.split(split_sizes, axis)
    if num_splits is None:
        raise UnsupportedError(f"operation {context.name!r}: split needs num_splits or split_sizes")
    return x.split(x.shape[axis] // num_splits, axis)


@operator("tile", exact=True, static=("reps",))
def tile(context: Context, x: torch.Tensor, reps: tuple[int, ...]) -> torch.Tensor:
    """Repeat x ``reps[axis]`` times along each axis."""
    affordable(context, [size * count for size, count in zip(x.shape, reps, strict=True)])
    return x.repeat(reps)


@operator("flatten2d", exact=True, aliases=True, static=("axis",))
def flatten2d(context: Context, x: torch.Tensor, axis: int = 1) -> torch.Tensor:
    """Matrix of the axes before and from `axis` on."""
    return x.reshape(x.shape[:axis].numel(), x.shape[axis:].numel())


@operator("pad", exact=True, aliases=True, static=("pad", "mode", "constant_val"))
def pad(
    context: Context,
    x: torch.Tensor,
    pad: tuple[int, ...],
    mode: str = "constant",
    constant_val: float = 0.0,
) -> torch.Tensor:
    """Pad the last ``len(pad) / 2`` axes, each by (before, after)."""
    first = x.dim() - len(pad) // 2
    sizes = zip(x.shape[first:], pad[::2], pad[1::2], strict=True)
    affordable(context, [*x.shape[:first], *(size + before + after for size, before, after in sizes)])
    if mode == "constant":
        widths = [pad[i + side] for i in range(len(pad) - 2, -1, -2) for side in (0, 1)]
        return functional.pad(x, widths, value=constant_val)
    if mode not in ("reflect", "replicate"):
        raise UnsupportedError(
            f"operation {context.name!r}: pad mode {mode!r}; known are constant, reflect and replicate"
        )
    for axis in range(first, x.dim()):
        before, after = pad[2 * (axis - first)], pad[2 * (axis - first) + 1]
        if before or after:
            last = x.shape[axis] - 1
            source = torch.arange(-before, last + 1 + after)
            if mode == "reflect":
                source = last - (last - source.abs()).abs()
            x = x.index_select(axis, source.clamp(0, last))
    return x


@operator("one_hot", exact=True, static=("one_hot_vector_size", "axis", "on_value", "off_value"))
def one_hot(
    context: Context,
    indices: torch.Tensor,
    one_hot_vector_size: int,
    axis: int = -1,
    on_value: bool | int | float = 1,
    off_value: bool | int | float = 0,
) -> torch.Tensor:
    """`on_value` at the index along a new axis, `off_value` elsewhere; indices out of range give a row of it."""
    axis %= indices.dim() + 1
    affordable(context, [*indices.shape, one_hot_vector_size])
    positions = torch.arange(one_hot_vector_size).reshape(-1, *((1,) * (indices.dim() - axis)))
    hit = indices.unsqueeze(axis) == positions
    dtype = _DTYPES[type(on_value)]
    return torch.where(hit, torch.tensor(on_value, dtype=dtype), torch.tensor(off_value, dtype=dtype))


@operator("non_zero", exact=True)
def non_zero(context: Context, x: torch.Tensor) -> torch.Tensor:
    """Indices (N, rank) of the elements that are not zero, in row-major order."""
    return torch.nonzero(x).int()


@operator("band_part", exact=True, aliases=True, static=("lower", "upper"))
def band_part(context: Context, x: torch.Tensor, lower: int = -1, upper: int = -1) -> torch.Tensor:
    """Zero outside the band of `lower` and `upper` diagonals of the last two axes; negative keeps the whole side."""
    if lower >= 0:
        x = x.triu(-lower)
    return x.tril(upper) if upper >= 0 else x


@operator("cumsum", accumulates=True, static=("axis", "exclusive", "reverse"))
def cumsum(
    context: Context, x: torch.Tensor, axis: int = 0, exclusive: bool = False, reverse: bool = False
) -> torch.Tensor:
    """Running sum along the axis, from the end if `reverse`, without the element itself if `exclusive`."""
    values = x.flip(axis) if reverse else x
    halves = context.half_accumulate or context.sequential
    sums = accumulate.running(values, axis) if halves else values.cumsum(axis, dtype=x.dtype)
    if exclusive and x.shape[axis]:
        zero = sums.narrow(axis, 0, 1).mul(0)
        sums = torch.cat((zero, sums.narrow(axis, 0, x.shape[axis] - 1)), axis)
    return sums.flip(axis) if reverse else sums


@operator("argsort", exact=True, static=("axis", "ascending"))
def argsort(context: Context, x: torch.Tensor, axis: int = -1, ascending: bool = False) -> torch.Tensor:
    """Indices that sort along the axis; equals keep their order."""
    return torch.argsort(x, dim=axis, descending=not ascending, stable=True).int()


def _topk(x: torch.Tensor, k: int, axis: int, ascending: bool) -> tuple[torch.Tensor, torch.Tensor]:
    values, indices = torch.sort(x, dim=axis, descending=not ascending, stable=True)
    count = x.shape[axis] if k == -1 else k
    return values.narrow(axis, 0, count), indices.narrow(axis, 0, count).int()


@operator("topk", exact=True, static=("k", "axis", "ascending"))
def topk_ios15(
    context: Context, x: torch.Tensor, k: int = 1, axis: int = -1, ascending: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k largest (smallest) values along the axis and their indices; of equals the first."""
    return _topk(x, k, axis, ascending)


@operator(
    "topk",
    exact=True,
    since="iOS16",
    static=("k", "axis", "ascending", "sort", "return_indices", "output_indices_dtype"),
)
def topk(
    context: Context,
    x: torch.Tensor,
    k: int = 1,
    axis: int = -1,
    ascending: bool = False,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: str = "int32",
) -> tuple[torch.Tensor, torch.Tensor] | torch.Tensor:
    """The same with k = -1 for all; always sorted; indices may be declared uint16 (iOS 17) or left out."""
    values, indices = _topk(x, k, axis, ascending)
    return (values, indices) if return_indices else values
