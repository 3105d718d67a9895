"""Gathers and scatters against plain loops, with indices in and out of range."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from parity.errors import UnsupportedError, UsageError
from tests.mil.operators.calling import call, rng

_SEEDS = st.integers(0, 2**32 - 1)
_INDEX_DTYPES = st.sampled_from([np.int32, np.int16, np.uint16, np.int8, np.uint8])
MODES: dict[str, Any] = {
    "update": lambda old, new: new,
    "add": lambda old, new: old + new,
    "sub": lambda old, new: old - new,
    "mul": lambda old, new: old * new,
    "div": lambda old, new: old / new,
    "max": max,
    "min": min,
}


@given(
    seed=_SEEDS,
    shape=hnp.array_shapes(max_dims=4, max_side=4),
    wanted=hnp.array_shapes(min_dims=0, max_dims=3, max_side=3),
    dtype=_INDEX_DTYPES,
    data=st.data(),
)
def test_gather(seed, shape, wanted, dtype, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    generator = rng(seed)
    x, indices = (
        generator.random(shape).astype(np.float32),
        np.asarray(generator.integers(0, shape[axis], wanted), dtype),
    )
    np.testing.assert_array_equal(call("gather", x=x, indices=indices, axis=axis), np.take(x, indices, axis))
    validated = call("gather", x=x, indices=indices, axis=axis, validate_indices=True)
    np.testing.assert_array_equal(validated, np.take(x, indices, axis))


@given(
    seed=_SEEDS,
    batch=hnp.array_shapes(max_dims=2, max_side=3),
    lead=hnp.array_shapes(min_dims=0, max_dims=1, max_side=3),
    tail=hnp.array_shapes(min_dims=0, max_dims=2, max_side=3),
    wanted=hnp.array_shapes(min_dims=0, max_dims=2, max_side=3),
)
def test_gather_in_batches(seed, batch, lead, tail, wanted):
    generator = rng(seed)
    x = generator.random((*batch, *lead, 5, *tail)).astype(np.float32)
    indices = generator.integers(0, 5, (*batch, *wanted)).astype(np.int32)
    axis = len(batch) + len(lead)
    expected = np.zeros((*batch, *lead, *wanted, *tail), np.float32)
    for place in np.ndindex(*batch):
        expected[place] = np.take(x[place], indices[place], len(lead))
    result = call("gather", x=x, indices=indices, axis=axis, batch_dims=len(batch))
    np.testing.assert_array_equal(result, expected)


def test_indices_out_of_range_when_reading():
    x = np.arange(4, dtype=np.float32)
    indices = np.array([-1, -4, 4, 99, -99], np.int32)
    for opset, expected in [("iOS16", [3, 0, 3, 3, 0]), ("iOS17", [0, 0, 3, 3, 0])]:  # negative ones counted once
        np.testing.assert_array_equal(call("gather", opset=opset, x=x, indices=indices), expected)
        np.testing.assert_array_equal(call("gather_along_axis", opset=opset, x=x, indices=indices), expected)
        np.testing.assert_array_equal(call("gather_nd", opset=opset, x=x, indices=indices[:, None]), expected)
    for kind, shaped in [("gather", indices[1:]), ("gather_along_axis", indices[2:]), ("gather_nd", indices[:, None])]:
        with pytest.raises(UsageError, match=f"'{kind}'.*out of range for an axis of size 4"):
            call(kind, x=x, indices=shaped, validate_indices=True)
    assert call("gather", x=np.zeros((3, 0)), indices=np.zeros((2, 0), np.int32), axis=0).shape == (2, 0, 0)


@given(seed=_SEEDS, shape=hnp.array_shapes(max_dims=4, max_side=4), count=st.integers(1, 5), data=st.data())
def test_gather_along_axis(seed, shape, count, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    generator = rng(seed)
    x = generator.random(shape).astype(np.float32)
    wanted = list(shape)
    wanted[axis] = count
    indices = generator.integers(0, shape[axis], wanted).astype(np.int32)
    np.testing.assert_array_equal(
        call("gather_along_axis", x=x, indices=indices, axis=axis), np.take_along_axis(x, indices, axis)
    )


@given(
    seed=_SEEDS,
    batch=hnp.array_shapes(min_dims=0, max_dims=2, max_side=3),
    depth=st.integers(1, 2),
    tail=hnp.array_shapes(min_dims=0, max_dims=2, max_side=3),
    wanted=hnp.array_shapes(min_dims=0, max_dims=2, max_side=3),
)
def test_gather_nd(seed, batch, depth, tail, wanted):
    generator = rng(seed)
    x = generator.random((*batch, *(3, 4)[:depth], *tail)).astype(np.float32)
    indices = generator.integers(0, 3, (*batch, *wanted, depth)).astype(np.int32)
    expected = np.zeros((*batch, *wanted, *tail), np.float32)
    for place in np.ndindex(*batch, *wanted):
        source = (*place[: len(batch)], *indices[place])
        expected[place] = x[source]
    result = call("gather_nd", x=x, indices=indices, batch_dims=len(batch))
    np.testing.assert_array_equal(result, expected)


def _combined(data, writes, mode):
    """Apply writes (position, value) one after the other."""
    result = data.astype(np.float64)
    for place, value in writes:
        result[place] = MODES[mode](result[place], value)
    return result


def _check(result, data, writes, mode):
    np.testing.assert_allclose(result, _combined(data, writes, mode), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
@given(seed=_SEEDS, shape=hnp.array_shapes(max_dims=3, max_side=4), count=st.integers(1, 6), data=st.data())
def test_scatter(mode, seed, shape, count, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    generator = rng(seed)
    array = generator.uniform(0.5, 2, shape).astype(np.float32)
    indices = generator.integers(0, shape[axis], count).astype(np.int32)
    wanted = list(shape)
    wanted[axis] = count
    updates = generator.uniform(0.5, 2, wanted).astype(np.float32)
    writes = []
    for place in np.ndindex(*wanted):
        target = list(place)
        target[axis] = indices[place[axis]]
        writes.append((tuple(target), updates[place]))
    result = call("scatter", data=array, indices=indices, updates=updates, axis=axis, mode=mode)
    _check(result, array, writes, mode)


@pytest.mark.parametrize("mode", MODES)
@given(seed=_SEEDS, shape=hnp.array_shapes(max_dims=3, max_side=4), count=st.integers(1, 6), data=st.data())
def test_scatter_along_axis(mode, seed, shape, count, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    generator = rng(seed)
    array = generator.uniform(0.5, 2, shape).astype(np.float32)
    wanted = list(shape)
    wanted[axis] = count
    indices = generator.integers(0, shape[axis], wanted).astype(np.int32)
    updates = generator.uniform(0.5, 2, wanted).astype(np.float32)
    writes = []
    for place in np.ndindex(*wanted):
        target = list(place)
        target[axis] = indices[place]
        writes.append((tuple(target), updates[place]))
    result = call("scatter_along_axis", data=array, indices=indices, updates=updates, axis=axis, mode=mode)
    _check(result, array, writes, mode)


@pytest.mark.parametrize("mode", MODES)
@given(
    seed=_SEEDS,
    shape=hnp.array_shapes(min_dims=2, max_dims=3, max_side=4),
    depth=st.integers(1, 2),
    wanted=hnp.array_shapes(max_dims=2, max_side=3),
)
def test_scatter_nd(mode, seed, shape, depth, wanted):
    generator = rng(seed)
    array = generator.uniform(0.5, 2, shape).astype(np.float32)
    indices = np.stack([generator.integers(0, size, wanted) for size in shape[:depth]], -1).astype(np.int32)
    updates = generator.uniform(0.5, 2, (*wanted, *shape[depth:])).astype(np.float32)
    writes = [
        ((*indices[place], *rest), updates[place][rest])
        for place, rest in itertools.product(np.ndindex(*wanted), np.ndindex(*shape[depth:]))
    ]
    _check(call("scatter_nd", data=array, indices=indices, updates=updates, mode=mode), array, writes, mode)


def test_integer_scatter():
    data, indices = np.array([10, 20, 30], np.int32), np.array([0, 0, 2], np.int32)
    updates = np.array([3, 2, -7], np.int32)
    for mode, expected in [("add", [15, 20, 23]), ("mul", [60, 20, -210]), ("div", [1, 20, -4]), ("max", [10, 20, 30])]:
        result = call("scatter", data=data, indices=indices, updates=updates, mode=mode)
        np.testing.assert_array_equal(result, expected, err_msg=mode)
        assert result.dtype == np.int32


@pytest.mark.parametrize("opset", ["iOS16", "iOS17"])
def test_indices_out_of_range_when_writing(opset):
    data, updates = np.zeros((2, 3), np.float32), np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.float32)
    last = np.float32(opset == "iOS16")  # negative indices count from the end, or no longer do
    indices = np.array([-1, 5, -9], np.int32)
    result = call("scatter", opset=opset, data=data, indices=indices, updates=updates)
    np.testing.assert_array_equal(result, [[0, 0, 0], updates[0] * last])
    along = np.array([[-1, 5, -9], [1, 0, 7]], np.int32)
    result = call("scatter_along_axis", opset=opset, data=data, indices=along, updates=updates[:2], axis=0)
    np.testing.assert_array_equal(result, [[0, 5, 0], [4 + last, 0, 0]])
    positions = np.array([[-1, -1], [0, 3], [2, 0], [0, 1]], np.int32)
    values = np.array([1, 2, 3, 4], np.float32)
    result = call("scatter_nd", opset=opset, data=data, indices=positions, updates=values)
    np.testing.assert_array_equal(result, [[0, 4, 0], [0, 0, last]])


def test_validated_writes_refuse_indices_out_of_range():
    data, updates = np.zeros((2, 3), np.float32), np.ones((3, 3), np.float32)
    indices, along = np.array([-1, 5, -9], np.int32), np.array([[-1, 5, -9], [1, 0, 7]], np.int32)
    positions = np.array([[-1, -1], [0, 3], [2, 0]], np.int32)
    for kind, shaped, values in [
        ("scatter", indices, updates),
        ("scatter_along_axis", along, updates[:2]),
        ("scatter_nd", positions, updates[0]),
    ]:
        with pytest.raises(UsageError, match=f"'{kind}'.*out of range"):
            call(kind, data=data, indices=shaped, updates=values, validate_indices=True)


def test_an_unknown_mode_is_named():
    with pytest.raises(UnsupportedError, match="scatter mode 'xor'"):
        call("scatter", data=np.zeros(3), indices=np.zeros(1, np.int32), updates=np.zeros(1), mode="xor")
