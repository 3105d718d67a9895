"""New shapes, orders and windows for the same elements: reshape, transpose, slices, blocks of space and depth."""

from __future__ import annotations

import functools

import torch

from parity.errors import FormatError
from parity.mil.operators.registry import Context, operator

_SLICE = ("begin", "end", "stride", "begin_mask", "end_mask", "squeeze_mask")


@operator("reshape", exact=True, aliases=True, static=("shape",))
def reshape(context: Context, x: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Same elements, new shape.

    A 0 inherits the size of x, aligned at the right (iOS 17; before, ranks had to agree, which is the same); one -1 is
    what remains.
    """
    if 0 in shape:
        offset = x.dim() - len(shape)
        shape = tuple(
            size if size else (x.shape[axis + offset] if axis + offset >= 0 else 1) for axis, size in enumerate(shape)
        )
    return x.reshape(shape)


@operator(
    "reshape_like",
    exact=True,
    aliases=True,
    since="iOS16",
    static=("begins", "ends", "end_masks"),
    variadic=("ref_tensors", "begins", "ends", "end_masks"),
)
def reshape_like(
    context: Context,
    x: torch.Tensor,
    ref_tensors: tuple[torch.Tensor, ...],
    begins: tuple[int, ...],
    ends: tuple[int, ...],
    end_masks: tuple[bool, ...],
) -> torch.Tensor:
    """Reshape to the joined parts ``ref.shape[begin:end]`` of the references' shapes."""
    shape: list[int] = []
    for reference, begin, end, to_the_end in zip(ref_tensors, begins, ends, end_masks, strict=True):
        shape += reference.shape[begin:] if to_the_end else reference.shape[begin:end]
    return x.reshape(shape)


@operator("expand_dims", exact=True, aliases=True, static=("axes",))
def expand_dims(context: Context, x: torch.Tensor, axes: tuple[int, ...]) -> torch.Tensor:
    """Insert axes of size 1; positions refer to the result."""
    if len(axes) == 1:
        return x.unsqueeze(axes[0])
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@operator("squeeze", exact=True, aliases=True, static=("axes",))
def squeeze(context: Context, x: torch.Tensor, axes: tuple[int, ...] | None = None) -> torch.Tensor:
    """Remove axes of size 1, all or those named; other sizes stay."""
    return x.squeeze() if axes is None else x.squeeze(axes)


@operator("transpose", exact=True, aliases=True, static=("perm",))
def transpose(context: Context, x: torch.Tensor, perm: tuple[int, ...]) -> torch.Tensor:
    """Permute the axes."""
    return x.permute(perm)


@operator("reverse", exact=True, static=("axes",))
def reverse(context: Context, x: torch.Tensor, axes: tuple[int, ...] | None = None) -> torch.Tensor:
    """Reverse the order along the axes (all by default)."""
    return x.flip(tuple(range(x.dim())) if axes is None else axes)


@operator("reverse_sequence", exact=True, static=("seq_axis", "batch_axis"))
def reverse_sequence(
    context: Context, x: torch.Tensor, lengths: torch.Tensor, seq_axis: int = 0, batch_axis: int = 0
) -> torch.Tensor:
    """Reverse the first ``lengths[b]`` elements along `seq_axis` in each batch entry b."""
    seq_axis, batch_axis = seq_axis % x.dim(), batch_axis % x.dim()
    position = torch.arange(x.shape[seq_axis])
    length = lengths.to(torch.int64).unsqueeze(1)
    source = torch.where(position < length, length - 1 - position, position)  # (batch, sequence)
    if batch_axis > seq_axis:
        source = source.T
    shape = [1] * x.dim()
    shape[batch_axis], shape[seq_axis] = x.shape[batch_axis], x.shape[seq_axis]
    return torch.gather(x, seq_axis, source.reshape(shape).expand(x.shape))


@functools.lru_cache(maxsize=1024)
def slices(
    shape: tuple[int, ...],
    begin: tuple[int, ...],
    end: tuple[int, ...],
    stride: tuple[int, ...] | None,
    begin_mask: tuple[bool, ...] | None,
    end_mask: tuple[bool, ...] | None,
    squeeze_mask: tuple[bool, ...] | None,
) -> tuple[tuple[slice | int, ...], tuple[int, ...]]:
    """Return the index that NumPy would be given, strides made positive, and the axes of the result to flip."""
    index: list[slice | int] = []
    flips: list[int] = []
    kept = 0
    for axis, size in enumerate(shape):
        if squeeze_mask is not None and squeeze_mask[axis]:
            position = 0 if begin_mask is not None and begin_mask[axis] else begin[axis]
            if not -size <= position < size:
                raise FormatError(f"slice: index {position} is outside axis {axis} of size {size}")
            index.append(position)
            continue
        step = 1 if stride is None else stride[axis]
        if step == 0:
            raise FormatError(f"slice: the stride of axis {axis} is 0")
        first = None if begin_mask is not None and begin_mask[axis] else begin[axis]
        last = None if end_mask is not None and end_mask[axis] else end[axis]
        if step > 0:
            index.append(slice(first, last, step))
        else:  # torch knows no negative strides: take the same elements upwards, then flip
            positions = range(size)[first:last:step]
            if positions:
                index.append(slice(positions[-1], positions[0] + 1, -step))
                flips.append(kept)
            else:
                index.append(slice(0, 0))
        kept += 1
    return tuple(index), tuple(flips)


@operator("slice_by_index", exact=True, aliases=True, static=_SLICE)
def slice_by_index(
    context: Context,
    x: torch.Tensor,
    begin: tuple[int, ...],
    end: tuple[int, ...],
    stride: tuple[int, ...] | None = None,
    begin_mask: tuple[bool, ...] | None = None,
    end_mask: tuple[bool, ...] | None = None,
    squeeze_mask: tuple[bool, ...] | None = None,
) -> torch.Tensor:
    """NumPy's basic indexing: ``x[begin:end:stride]`` per axis, or ``x[begin]`` where squeezed."""
    index, flips = slices(x.shape, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    result = x[index]
    return result.flip(flips) if flips else result


@operator("slice_update", exact=True, since="iOS18", static=_SLICE)
def slice_update(
    context: Context,
    x: torch.Tensor,
    update: torch.Tensor,
    begin: tuple[int, ...],
    end: tuple[int, ...],
    stride: tuple[int, ...] | None = None,
    begin_mask: tuple[bool, ...] | None = None,
    end_mask: tuple[bool, ...] | None = None,
    squeeze_mask: tuple[bool, ...] | None = None,
) -> torch.Tensor:
    """Copy of x in which the slice (see `slice_by_index`) is replaced by `update`."""
    index, flips = slices(x.shape, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    result = x.clone(memory_format=torch.contiguous_format)
    target = result[index]
    target.copy_((update.flip(flips) if flips else update).reshape(target.shape))
    return result


@operator("slice_by_size", exact=True, aliases=True, static=("begin", "size"))
def slice_by_size(context: Context, x: torch.Tensor, begin: tuple[int, ...], size: tuple[int, ...]) -> torch.Tensor:
    """Per axis `size` elements from `begin` on; -1 takes all that remain."""
    index = []
    for axis, (first, count) in enumerate(zip(begin, size, strict=True)):
        first = first + x.shape[axis] if first < 0 else first
        index.append(slice(first, None if count == -1 else first + count))
    return x[tuple(index)]


@operator("sliding_windows", exact=True, aliases=True, static=("axis", "size", "stride"))
def sliding_windows(context: Context, x: torch.Tensor, axis: int, size: int, stride: int = 1) -> torch.Tensor:
    """All windows of `size` along the axis; the window's own axis follows it."""
    axis %= x.dim()
    return x.unfold(axis, size, stride).movedim(-1, axis + 1)


@operator("pixel_shuffle", exact=True, static=("upscale_factor",))
def pixel_shuffle(context: Context, x: torch.Tensor, upscale_factor: int) -> torch.Tensor:
    """(n, C f², H, W) to (n, C, H f, W f); the channel is the slowest part of the depth."""
    return torch.pixel_shuffle(x, upscale_factor)


@operator("pixel_unshuffle", exact=True, since="iOS16", static=("downscale_factor",))
def pixel_unshuffle(context: Context, x: torch.Tensor, downscale_factor: int) -> torch.Tensor:
    """(n, C, H f, W f) to (n, C f², H, W)."""
    return torch.pixel_unshuffle(x, downscale_factor)


@operator("depth_to_space", exact=True, static=("block_size",))
def depth_to_space(context: Context, x: torch.Tensor, block_size: int) -> torch.Tensor:
    """(n, b² C, H, W) to (n, C, H b, W b); the channel is the fastest part of the depth (TensorFlow's order)."""
    n, depth, height, width = x.shape
    blocks = x.reshape(n, block_size, block_size, depth // block_size**2, height, width)
    return blocks.permute(0, 3, 4, 1, 5, 2).reshape(n, -1, height * block_size, width * block_size)


@operator("space_to_depth", exact=True, static=("block_size",))
def space_to_depth(context: Context, x: torch.Tensor, block_size: int) -> torch.Tensor:
    """(n, C, H b, W b) to (n, b² C, H, W), the inverse of `depth_to_space`."""
    n, channels, height, width = x.shape
    height, width = height // block_size, width // block_size
    blocks = x.reshape(n, channels, height, block_size, width, block_size)
    return blocks.permute(0, 3, 5, 1, 2, 4).reshape(n, -1, height, width)


@operator("space_to_batch", exact=True, static=("block_shape", "paddings"))
def space_to_batch(
    context: Context, x: torch.Tensor, block_shape: tuple[int, int], paddings: tuple[tuple[int, int], tuple[int, int]]
) -> torch.Tensor:
    """Zero-pad the two spatial axes, then move blocks of them to the front of the batch axis."""
    (top, bottom), (left, right) = paddings
    x = torch.nn.functional.pad(x, (left, right, top, bottom))
    n, channels, height, width = x.shape
    rows, columns = block_shape
    blocks = x.reshape(n, channels, height // rows, rows, width // columns, columns)
    return blocks.permute(3, 5, 0, 1, 2, 4).reshape(-1, channels, height // rows, width // columns)


@operator("batch_to_space", exact=True, aliases=True, static=("block_shape", "crops"))
def batch_to_space(
    context: Context, x: torch.Tensor, block_shape: tuple[int, int], crops: tuple[tuple[int, int], tuple[int, int]]
) -> torch.Tensor:
    """Inverse of `space_to_batch`, cropping instead of padding."""
    rows, columns = block_shape
    _, channels, height, width = x.shape
    blocks = x.reshape(rows, columns, -1, channels, height, width)
    whole = blocks.permute(2, 3, 4, 0, 5, 1).reshape(-1, channels, height * rows, width * columns)
    (top, bottom), (left, right) = crops
    return whole[:, :, top : height * rows - bottom, left : width * columns - right]
