"""Operators that move, join, cut, sort and count elements, against NumPy."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from parity.errors import FormatError, UnsupportedError
from tests.mil.operators.calling import call, rng

_SEEDS = st.integers(0, 2**32 - 1)
_KINDS = [np.float32, np.int32, np.bool_, np.int8]


def _filled(shape, dtype=np.float32, seed=0):
    return (np.arange(np.prod(shape, dtype=int)) + seed % 7).reshape(shape).astype(dtype)


@pytest.mark.parametrize("dtype", _KINDS)
def test_reshape(dtype):
    x = _filled((2, 3, 4), dtype)
    for shape, expected in [
        ((4, 6), (4, 6)),
        ((3, -1), (3, 8)),
        ((0, 0, -1), (2, 3, 4)),
        ((6, 0), (6, 4)),
        ((-1, 0), (6, 4)),
    ]:
        np.testing.assert_array_equal(call("reshape", x=x, shape=shape), x.reshape(expected))
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        call("reshape", x=x, shape=(5, 5))
    assert call("reshape", x=_filled((1,)), shape=()).shape == ()


def test_reshape_like():
    x, one, other = _filled((6, 10)), np.zeros((2, 3, 4)), np.zeros((9, 5, 2))
    result = call("reshape_like", x=x, ref_tensors=(one, other), begins=(0, 1), ends=(2, 0), end_masks=(False, True))
    np.testing.assert_array_equal(result, x.reshape(2, 3, 5, 2))


@given(shape=hnp.array_shapes(min_dims=0, max_dims=3), data=st.data())
def test_expand_and_squeeze(shape, data):
    x = _filled(shape)
    count = data.draw(st.integers(1, 3))
    rank = len(shape) + count
    axes = tuple(
        data.draw(st.lists(st.integers(-rank, rank - 1), min_size=count, max_size=count, unique_by=lambda a: a % rank))
    )
    expanded = call("expand_dims", x=x, axes=axes)
    np.testing.assert_array_equal(expanded, np.expand_dims(x, axes))
    np.testing.assert_array_equal(call("squeeze", x=expanded, axes=axes), x)
    np.testing.assert_array_equal(call("squeeze", x=expanded), np.squeeze(expanded))


def test_squeeze_leaves_other_sizes():
    assert call("squeeze", x=_filled((2, 1, 4)), axes=(0, 1)).shape == (2, 4)


@given(shape=hnp.array_shapes(min_dims=1, max_dims=4), data=st.data())
def test_transpose_and_reverse(shape, data):
    x = _filled(shape)
    perm = tuple(data.draw(st.permutations(range(len(shape)))))
    np.testing.assert_array_equal(call("transpose", x=x, perm=perm), x.transpose(perm))
    axes = tuple(data.draw(st.sets(st.sampled_from(range(len(shape))))))
    np.testing.assert_array_equal(call("reverse", x=x, axes=axes) if axes else np.flip(x, ()), np.flip(x, axes))
    np.testing.assert_array_equal(call("reverse", x=x), np.flip(x))


@given(data=st.data(), shape=hnp.array_shapes(min_dims=2, max_dims=4, max_side=4))
def test_reverse_sequence(data, shape):
    batch, seq = data.draw(st.permutations(range(len(shape))))[:2]
    lengths = np.array(
        data.draw(st.lists(st.integers(0, shape[seq]), min_size=shape[batch], max_size=shape[batch])), np.int32
    )
    x = _filled(shape)
    expected = np.moveaxis(x.copy(), (batch, seq), (0, 1))
    for row, length in enumerate(lengths):
        expected[row, :length] = expected[row, :length][::-1].copy()
    result = call("reverse_sequence", x=x, lengths=lengths, seq_axis=seq, batch_axis=batch)
    np.testing.assert_array_equal(result, np.moveaxis(expected, (0, 1), (batch, seq)))


@st.composite
def slicings(draw):
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=6))
    begin, end, stride, masks = [], [], [], []
    for size in shape:
        begin.append(draw(st.integers(-size, size - 1)))
        end.append(draw(st.integers(-size - 1, size + 2)))
        stride.append(draw(st.sampled_from([1, 1, 2, 3, -1, -2])))
        masks.append(draw(st.tuples(st.booleans(), st.booleans(), st.booleans())))
    begin_mask, end_mask, squeeze_mask = zip(*masks, strict=True)
    return shape, tuple(begin), tuple(end), tuple(stride), begin_mask, end_mask, squeeze_mask


def _index(shape, begin, end, stride, begin_mask, end_mask, squeeze_mask):
    index = []
    for axis in range(len(shape)):
        if squeeze_mask[axis]:
            index.append(0 if begin_mask[axis] else begin[axis])
        else:
            start = None if begin_mask[axis] else begin[axis]
            index.append(slice(start, None if end_mask[axis] else end[axis], stride[axis]))
    return tuple(index)


@given(case=slicings(), dtype=st.sampled_from(_KINDS))
def test_slice_by_index_is_numpys(case, dtype):
    shape, *parameters = case
    x = _filled(shape, dtype)
    names = ("begin", "end", "stride", "begin_mask", "end_mask", "squeeze_mask")
    result = call("slice_by_index", x=x, **dict(zip(names, parameters, strict=True)))
    expected = x[_index(*case)]
    assert result.shape == expected.shape
    np.testing.assert_array_equal(result, expected)


@given(case=slicings())
def test_slice_update_is_numpys_assignment(case):
    shape, *parameters = case
    x = _filled(shape)
    expected = x.copy()
    update = -1 - _filled(expected[_index(*case)].shape)
    expected[_index(*case)] = update
    names = ("begin", "end", "stride", "begin_mask", "end_mask", "squeeze_mask")
    result = call("slice_update", x=x, update=update, **dict(zip(names, parameters, strict=True)))
    np.testing.assert_array_equal(result, expected)


def test_slices_that_cannot_be_are_named():
    with pytest.raises(FormatError, match="index 3 is outside axis 0 of size 3"):
        call("slice_by_index", x=_filled((3,)), begin=(3,), end=(4,), squeeze_mask=(True,))
    with pytest.raises(FormatError, match="stride of axis 0 is 0"):
        call("slice_by_index", x=_filled((3,)), begin=(0,), end=(3,), stride=(0,))


def test_slice_by_size():
    x = _filled((4, 5))
    np.testing.assert_array_equal(call("slice_by_size", x=x, begin=(1, -3), size=(-1, 2)), x[1:, 2:4])


@given(size=st.integers(1, 4), stride=st.integers(1, 3), axis=st.integers(-2, 1))
def test_sliding_windows(size, stride, axis):
    x = _filled((5, 6))
    moved = np.moveaxis(x, axis, 0)
    count = (len(moved) - size) // stride + 1
    windows = np.stack([moved[i * stride : i * stride + size] for i in range(count)])  # (count, size, rest)
    expected = windows if axis % 2 == 0 else windows.transpose(2, 0, 1)
    np.testing.assert_array_equal(call("sliding_windows", x=x, axis=axis, size=size, stride=stride), expected)


@pytest.mark.parametrize("block", [2, 3])
def test_space_depth_and_batch(block):
    n, c, h, w = 2, 3, 2, 4
    x = _filled((n, c, h * block, w * block))
    deep = np.zeros((n, c * block**2, h, w), np.float32)
    shuffled = np.zeros_like(deep)
    batched = np.zeros((n * block**2, c, h, w), np.float32)
    for b, k, i, j in itertools.product(range(n), range(c), range(h * block), range(w * block)):
        place = (i % block) * block + j % block
        deep[b, place * c + k, i // block, j // block] = x[b, k, i, j]
        shuffled[b, k * block**2 + place, i // block, j // block] = x[b, k, i, j]
        batched[place * n + b, k, i // block, j // block] = x[b, k, i, j]
    np.testing.assert_array_equal(call("space_to_depth", x=x, block_size=block), deep)
    np.testing.assert_array_equal(call("depth_to_space", x=deep, block_size=block), x)
    np.testing.assert_array_equal(call("pixel_unshuffle", x=x, downscale_factor=block), shuffled)
    np.testing.assert_array_equal(call("pixel_shuffle", x=shuffled, upscale_factor=block), x)
    sides = {"block_shape": (block, block)}
    np.testing.assert_array_equal(call("space_to_batch", x=x, paddings=((0, 0), (0, 0)), **sides), batched)
    np.testing.assert_array_equal(call("batch_to_space", x=batched, crops=((0, 0), (0, 0)), **sides), x)
    cut = x[:, :, 1:, : -block - 1]
    padded = call("space_to_batch", x=cut, paddings=((1, 0), (0, block + 1)), **sides)
    np.testing.assert_array_equal(call("batch_to_space", x=padded, crops=((1, 0), (0, block + 1)), **sides), cut)


def test_concat_stack_split():
    x, y = _filled((2, 3)), -_filled((2, 3))
    np.testing.assert_array_equal(call("concat", values=(x, y), axis=-1), np.concatenate((x, y), -1))
    for axis in (0, 1):
        woven = np.stack((x, y), axis + 1).reshape((4, 3) if axis == 0 else (2, 6))
        np.testing.assert_array_equal(call("concat", values=(x, y), axis=axis, interleave=True), woven)
    scalars = (np.array(1, np.int32), np.array(2, np.int32))
    np.testing.assert_array_equal(call("concat", values=scalars, axis=0), [1, 2])
    np.testing.assert_array_equal(call("stack", values=(x, y), axis=-1), np.stack((x, y), -1))
    for part, expected in zip(call("split", x=x, num_splits=3, axis=1), np.split(x, 3, 1), strict=True):
        np.testing.assert_array_equal(part, expected)
    parts = call("split", x=x, split_sizes=(1, 2), axis=-1)
    np.testing.assert_array_equal(np.concatenate(parts, -1), x)
    assert [part.shape[1] for part in parts] == [1, 2]
    assert isinstance(call("split", x=x, num_splits=1, axis=0), tuple)
    with pytest.raises(UnsupportedError, match="needs num_splits or split_sizes"):
        call("split", x=x, axis=0)


@pytest.mark.parametrize(("mode", "numpys"), [("constant", "constant"), ("reflect", "reflect"), ("replicate", "edge")])
@given(shape=hnp.array_shapes(min_dims=1, max_dims=5, min_side=3, max_side=4), data=st.data())
def test_pad(mode, numpys, shape, data):
    count = data.draw(st.integers(1, len(shape)))
    pads = data.draw(st.lists(st.integers(0, 2), min_size=2 * count, max_size=2 * count))
    x = _filled(shape)
    options = {"constant_values": 2.5} if mode == "constant" else {}
    pairs = [(0, 0)] * (len(shape) - count) + list(zip(pads[::2], pads[1::2], strict=True))
    result = call("pad", x=x, pad=tuple(pads), mode=mode, constant_val=2.5)
    np.testing.assert_array_equal(result, np.pad(x, pairs, numpys, **options))


def test_an_unknown_pad_mode_is_named():
    with pytest.raises(UnsupportedError, match="pad mode 'circular'"):
        call("pad", x=_filled((3,)), pad=(1, 1), mode="circular")


@pytest.mark.parametrize(("value", "dtype"), [(1.5, np.float32), (3, np.int32), (True, np.bool_)])
def test_made_tensors(value, dtype):
    result = call("fill", shape=(2, 3), value=value)
    np.testing.assert_array_equal(result, np.full((2, 3), value))
    assert result.dtype == dtype
    np.testing.assert_array_equal(call("fill_like", ref_tensor=np.zeros((2, 1)), value=value), np.full((2, 1), value))
    np.testing.assert_array_equal(call("shape", x=_filled((4, 0, 2))), [4, 0, 2])
    np.testing.assert_array_equal(call("range_1d", start=1, end=9, step=3), [1, 4, 7])
    np.testing.assert_allclose(call("range_1d", start=2.0, end=0.0, step=-0.5), [2.0, 1.5, 1.0, 0.5])
    np.testing.assert_array_equal(call("tile", x=_filled((2, 3)), reps=(2, 1)), np.tile(_filled((2, 3)), (2, 1)))
    for axis, shape in [(1, (2, 12)), (-1, (6, 4)), (0, (1, 24))]:
        assert call("flatten2d", x=_filled((2, 3, 4)), axis=axis).shape == shape
    np.testing.assert_array_equal(call("identity", x=_filled((2,))), _filled((2,)))


@given(
    indices=hnp.arrays(np.int32, hnp.array_shapes(min_dims=0, max_dims=3), elements=st.integers(-2, 5)), data=st.data()
)
def test_one_hot(indices, data):
    axis = data.draw(st.integers(-indices.ndim - 1, indices.ndim))
    expected = np.moveaxis(np.where(indices[..., None] == np.arange(4), 2.5, -1.0), -1, axis)
    result = call("one_hot", indices=indices, one_hot_vector_size=4, axis=axis, on_value=2.5, off_value=-1.0)
    np.testing.assert_array_equal(result, expected)
    assert call("one_hot", indices=indices, one_hot_vector_size=4).dtype == np.int32


@given(x=hnp.arrays(np.int32, hnp.array_shapes(max_dims=3), elements=st.integers(0, 2)))
def test_non_zero(x):
    np.testing.assert_array_equal(call("non_zero", x=x), np.transpose(np.nonzero(x)))


@given(lower=st.integers(-1, 4), upper=st.integers(-1, 4), rows=st.integers(1, 4), columns=st.integers(1, 4))
def test_band_part(lower, upper, rows, columns):
    x = 1 + _filled((2, rows, columns))
    m, n = np.indices((rows, columns))
    band = ((lower < 0) | (m - n <= lower)) & ((upper < 0) | (n - m <= upper))
    np.testing.assert_array_equal(call("band_part", x=x, lower=lower, upper=upper), x * band)


@given(
    seed=_SEEDS,
    shape=hnp.array_shapes(max_dims=3, max_side=5),
    exclusive=st.booleans(),
    reverse=st.booleans(),
    data=st.data(),
)
def test_cumsum(seed, shape, exclusive, reverse, data):
    axis = data.draw(st.integers(-1, len(shape) - 1))
    x = rng(seed).integers(-9, 9, shape).astype(data.draw(st.sampled_from([np.float32, np.int32])))
    ordered = np.flip(x, axis) if reverse else x
    sums = np.cumsum(ordered, axis) - (ordered if exclusive else 0)
    result = call("cumsum", x=x, axis=axis, exclusive=exclusive, reverse=reverse)
    np.testing.assert_array_equal(result, np.flip(sums, axis) if reverse else sums)
    assert result.dtype == x.dtype


@given(seed=_SEEDS, shape=hnp.array_shapes(max_dims=3, max_side=6), ascending=st.booleans(), data=st.data())
def test_sorting_keeps_the_order_of_equals(seed, shape, ascending, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = rng(seed).integers(0, 4, shape).astype(np.float32)
    order = np.argsort(x if ascending else -x, axis=axis, kind="stable")
    np.testing.assert_array_equal(call("argsort", x=x, axis=axis, ascending=ascending), order)
    k = data.draw(st.integers(1, shape[axis]) | st.just(-1))
    count = shape[axis] if k == -1 else k
    kept = np.take(order, range(count), axis)
    values, indices = call("topk", x=x, k=k, axis=axis, ascending=ascending)
    np.testing.assert_array_equal(indices, kept)
    np.testing.assert_array_equal(values, np.take_along_axis(x, kept, axis))
    alone = call("topk", x=x, k=k, axis=axis, ascending=ascending, return_indices=False)
    np.testing.assert_array_equal(alone, values)
    old = call("topk", opset="iOS15", x=x, k=count, axis=axis, ascending=ascending)
    np.testing.assert_array_equal(old[1], indices)


def test_select_broadcasts():
    cond, a, b = np.array([[True], [False]]), _filled((3,)), -_filled((2, 1))
    np.testing.assert_array_equal(call("select", cond=cond, a=a, b=b), np.where(cond, a, b))


def test_views_are_declared():
    """Operators that say their results share nothing do so also for strided inputs."""
    x = torch.arange(24.0).reshape(2, 3, 4).transpose(0, 2).numpy()
    kinds: dict[str, dict[str, Any]] = {"reverse": {}, "tile": {"reps": (1, 1, 1)}, "concat": {"axis": 0}, "relu": {}}
    for kind, options in kinds.items():
        inputs = {"values": (x,)} if kind == "concat" else {"x": np.abs(x)}
        np.testing.assert_array_equal(np.sort(call(kind, **inputs, **options).ravel()), np.arange(24))
