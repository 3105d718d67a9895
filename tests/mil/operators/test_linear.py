"""Matrix products, norms and reductions against NumPy in float64, attention against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.mil.operators.calling import call, rng

_SEEDS = st.integers(0, 2**32 - 1)


def _normal(generator, shape):
    return generator.standard_normal(shape).astype(np.float32)


@given(seed=_SEEDS, lead=hnp.array_shapes(min_dims=0, max_dims=3, max_side=4), k=st.integers(1, 9), bias=st.booleans())
def test_linear(seed, lead, k, bias):
    generator = rng(seed)
    x, weight, shift = _normal(generator, (*lead, k)), _normal(generator, (3, k)), _normal(generator, 3)
    expected = x.astype(np.float64) @ weight.T.astype(np.float64) + (shift if bias else 0)
    options = {"bias": shift} if bias else {}
    np.testing.assert_allclose(call("linear", x=x, weight=weight, **options), expected, rtol=1e-5, atol=1e-5)


@given(
    seed=_SEEDS,
    shapes=hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=2, max_side=3),
    flips=st.tuples(st.booleans(), st.booleans()),
)
def test_matmul(seed, shapes, flips):
    generator = rng(seed)
    one, other = shapes.input_shapes
    x, y = _normal(generator, (*one, 3, 4)), _normal(generator, (*other, 4, 2))
    expected = x.astype(np.float64) @ y.astype(np.float64)
    x = np.ascontiguousarray(x.swapaxes(-1, -2)) if flips[0] else x
    y = np.ascontiguousarray(y.swapaxes(-1, -2)) if flips[1] else y
    result = call("matmul", x=x, y=y, transpose_x=flips[0], transpose_y=flips[1])
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("one", "other"), [((4,), (4,)), ((4,), (2, 4, 3)), ((2, 3, 4), (4,))])
def test_matmul_of_vectors(one, other):
    x, y = _normal(rng(3), one), _normal(rng(4), other)
    np.testing.assert_allclose(call("matmul", x=x, y=y), x @ y, rtol=1e-5, atol=1e-6)


def test_integer_products():
    x, y = rng(1).integers(-9, 9, (2, 3)).astype(np.int32), rng(2).integers(-9, 9, (3, 4)).astype(np.int32)
    np.testing.assert_array_equal(call("matmul", x=x, y=y), x @ y)
    np.testing.assert_array_equal(call("linear", x=x, weight=y.T.copy()), x @ y)


def test_integers_and_floating_point_numbers_multiply():
    x, y = rng(1).integers(-9, 9, (2, 3)).astype(np.int32), _normal(rng(2), (3, 4))
    np.testing.assert_allclose(call("matmul", x=x, y=y), x @ y, rtol=1e-6)
    np.testing.assert_allclose(call("matmul", x=y.T.copy(), y=x, transpose_y=True), y.T @ x.T, rtol=1e-6)
    bias = np.arange(2, dtype=np.int32)
    np.testing.assert_allclose(call("linear", x=y.T.copy(), weight=x, bias=bias), y.T @ x.T + bias, rtol=1e-6)


@pytest.mark.parametrize(
    ("equation", "one", "other"),
    [
        ("nchw,nwhu->nchu", (2, 3, 4, 5), (2, 5, 4, 6)),
        ("abcd,adce->abce", (2, 3, 1, 5), (1, 5, 4, 6)),
        ("chw,whr->chr", (3, 4, 5), (5, 4, 2)),
    ],
)
def test_einsum(equation, one, other):
    x, y = _normal(rng(5), one), _normal(rng(6), other)
    row, batch = max(one[-2], other[-2]), [max(one[0], other[0])] if len(one) == 4 else []
    x_all = np.broadcast_to(x, (*batch, one[-3], row, one[-1])).astype(np.float64)
    y_all = np.broadcast_to(y, (*batch, other[-3], row, other[-1])).astype(np.float64)
    result = call("einsum", values=(x, y), equation=equation)
    np.testing.assert_allclose(result, np.einsum(equation, x_all, y_all), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mask", [None, "bool", "float"])
@pytest.mark.parametrize("lead", [(2,), (2, 3), (1, 2, 2)])
def test_attention(mask, lead):
    generator = rng(len(lead))
    query, key, value = (_normal(generator, (*lead, size, width)) for size, width in ((5, 8), (7, 8), (7, 6)))
    allowed = generator.random((5, 7)) < 0.7
    allowed[:, 0] = True
    scores = query.astype(np.float64) @ key.astype(np.float64).swapaxes(-1, -2) / np.sqrt(8)
    options = {}
    if mask == "bool":
        options["attn_mask"], scores = allowed, np.where(allowed, scores, -np.inf)
    elif mask == "float":
        options["attn_mask"] = _normal(generator, (5, 7))
        scores = scores + options["attn_mask"]
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    expected = powers / powers.sum(-1, keepdims=True) @ value
    result = call("scaled_dot_product_attention", query=query, key=key, value=value, **options)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


def _standardized(x, axes, epsilon):
    x = x.astype(np.float64)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)


@given(seed=_SEEDS, shape=hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=5), data=st.data())
def test_layer_norm(seed, shape, data):
    rank = len(shape)
    axes = data.draw(st.lists(st.integers(-rank, rank - 1), min_size=1, unique_by=lambda axis: axis % rank))
    sizes = [shape[axis] for axis in sorted(axis % rank for axis in axes)]
    generator = rng(seed)
    x, gamma, beta = _normal(generator, shape), _normal(generator, sizes), _normal(generator, sizes)
    spread = [size if axis in {a % rank for a in axes} else 1 for axis, size in enumerate(shape)]
    expected = _standardized(x, tuple(axes), 1e-3) * gamma.reshape(spread) + beta.reshape(spread)
    result = call("layer_norm", x=x, axes=tuple(axes), gamma=gamma, beta=beta, epsilon=1e-3)
    np.testing.assert_allclose(result, expected, rtol=2e-4, atol=2e-4)


def test_norms_over_all_axes_and_without_parameters():
    x = _normal(rng(8), (2, 3, 4))
    np.testing.assert_allclose(call("layer_norm", x=x), _standardized(x, (0, 1, 2), 1e-5), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(call("instance_norm", x=x), _standardized(x, (2,), 1e-5), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 1), (2, 3, 5), (2, 3, 4, 5), (1, 2, 3, 2, 2)])
def test_norms_by_channel(shape):
    generator = rng(len(shape))
    x = _normal(generator, shape)
    gamma, beta, mean = (_normal(generator, shape[1]) for _ in range(3))
    variance = generator.uniform(0.5, 2, shape[1]).astype(np.float32)
    spread = (1, -1) + (1,) * (len(shape) - 2)
    scaled = lambda y: y * gamma.reshape(spread) + beta.reshape(spread)  # noqa: E731
    result = call("batch_norm", x=x, mean=mean, variance=variance, gamma=gamma, beta=beta, epsilon=0.01)
    deviation = (x - mean.reshape(spread)) / np.sqrt(variance.reshape(spread).astype(np.float64) + 0.01)
    np.testing.assert_allclose(result, scaled(deviation), rtol=1e-5, atol=1e-5)
    plain = call("batch_norm", x=x, mean=mean, variance=variance, epsilon=0.01)
    np.testing.assert_allclose(plain, deviation, rtol=1e-5, atol=1e-5)
    result = call("instance_norm", x=x, gamma=gamma, beta=beta, epsilon=0.01)
    expected = scaled(_standardized(x, tuple(range(2, len(shape))), 0.01))
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 4), (5, 2, 3, 4), (2, 2, 2, 3, 4)])
def test_l2_norm_over_the_last_three_axes(shape):
    x = _normal(rng(1), shape)
    expected = x / np.sqrt((x.astype(np.float64) ** 2).sum((-3, -2, -1), keepdims=True) + 0.5)
    np.testing.assert_allclose(call("l2_norm", x=x, epsilon=0.5), expected, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_local_response_norm_is_pytorchs(size):
    x = _normal(rng(size), (2, 6, 3, 3)) * 9
    reference = torch.nn.LocalResponseNorm(size, alpha=0.01, beta=0.75, k=2.0)(torch.from_numpy(x)).numpy()
    result = call("local_response_norm", x=x, size=size, alpha=0.01, beta=0.75, k=2.0)
    np.testing.assert_allclose(result, reference, rtol=1e-6)


REDUCTIONS = {
    "reduce_sum": lambda x, **k: x.sum(**k),
    "reduce_mean": lambda x, **k: x.mean(**k),
    "reduce_max": lambda x, **k: x.max(**k),
    "reduce_min": lambda x, **k: x.min(**k),
    "reduce_prod": lambda x, **k: x.prod(**k),
    "reduce_sum_square": lambda x, **k: (x**2).sum(**k),
    "reduce_l1_norm": lambda x, **k: np.abs(x).sum(**k),
    "reduce_l2_norm": lambda x, **k: np.sqrt((x**2).sum(**k)),
    "reduce_log_sum": lambda x, **k: np.log(x.sum(**k)),
    "reduce_log_sum_exp": lambda x, **k: np.log(np.exp(x).sum(**k)),
}


@pytest.mark.parametrize("kind", sorted(REDUCTIONS))
@given(
    seed=_SEEDS,
    shape=hnp.array_shapes(min_dims=1, max_dims=4, max_side=4),
    keep=st.booleans(),
    integers=st.booleans(),
    data=st.data(),
)
def test_reductions(kind, seed, shape, keep, integers, data):
    rank = len(shape)
    some = st.lists(st.integers(-rank, rank - 1), min_size=1, unique_by=lambda axis: axis % rank)
    axes = data.draw(st.none() | some)
    x = rng(seed).uniform(0.5, 2, shape).astype(np.float32)
    if integers:
        x = rng(seed).integers(1, 4, shape).astype(np.int32)
        x.reshape(-1)[10:] = 1  # so that products fit 32 bits
    expected = REDUCTIONS[kind](x.astype(np.float64), axis=None if axes is None else tuple(axes), keepdims=keep)
    options = {} if axes is None else {"axes": tuple(axes)}
    result = call(kind, x=x, keep_dims=keep, **options)
    assert result.shape == np.shape(expected)
    if integers:
        assert result.dtype == np.int32
        np.testing.assert_array_equal(result, np.trunc(np.round(expected, 9)))
    else:
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "function"), [("reduce_argmax", np.argmax), ("reduce_argmin", np.argmin)])
@given(seed=_SEEDS, shape=hnp.array_shapes(min_dims=1, max_dims=4, max_side=5), keep=st.booleans(), data=st.data())
def test_arg_reductions_take_the_first(kind, function, seed, shape, keep, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = rng(seed).integers(0, 3, shape).astype(np.float32)
    result = call(kind, x=x, axis=axis, keep_dims=keep)
    np.testing.assert_array_equal(result, function(x, axis=axis, keepdims=keep))
    assert result.dtype == np.int32
