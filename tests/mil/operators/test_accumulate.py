"""The pessimistic profile: do sums accumulate in float16 exactly as the documentation of `accumulate` says?"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parity.mil import operators
from parity.mil.operators import accumulate
from tests.mil.operators.calling import call, context, halves, rng

_SEEDS = st.integers(0, 2**32 - 1)


def half(x):
    return np.asarray(x).astype(np.float16).astype(np.float32)


def dot(x, y):
    """Blocks of eight products in float32 (here float64: the sum of eight is rounded next), then float16 sums."""
    total = None
    for start in range(0, len(x), accumulate.BLOCK):
        block = half(
            np.dot(x[start : start + accumulate.BLOCK].astype(np.float64), y[start : start + accumulate.BLOCK])
        )
        total = block if total is None else half(total + block)
    return total


def tree(values, *, average):
    values, level, count = [np.float32(v) for v in values], 1, len(values)
    while len(values) > 1:
        values = values + [np.float32(0)] * (len(values) % 2)
        values = [half((a + b) * (0.5 if average else 1)) for a, b in zip(values[::2], values[1::2], strict=True)]
        level *= 2
    return values[0] * np.float32(level / count) if average else values[0]


def pessimistic(kind, **inputs):
    return call(kind, declared="fp16", profile="float16-accumulate", **inputs)


@given(seed=_SEEDS, k=st.integers(1, 40))
def test_products(seed, k):
    generator = rng(seed)
    x, y = halves(generator, (2, 3, k)), halves(generator, (2, k, 4))
    expected = np.array([[[dot(x[b, i], y[b, :, j]) for j in range(4)] for i in range(3)] for b in range(2)])
    np.testing.assert_allclose(pessimistic("matmul", x=x, y=y), expected, rtol=2**-10, atol=2**-13)
    assert np.mean(pessimistic("matmul", x=x, y=y) == expected) > 0.9  # but for ties within a block
    flipped = pessimistic("matmul", x=x, y=np.ascontiguousarray(y.swapaxes(1, 2)), transpose_y=True)
    np.testing.assert_array_equal(flipped, pessimistic("matmul", x=x, y=y))
    bias = halves(generator, (4,))
    linear = pessimistic("linear", x=x[0], weight=np.ascontiguousarray(y[0].T), bias=bias)
    np.testing.assert_array_equal(linear, half(pessimistic("matmul", x=x[0], y=y[0]) + bias))
    woven = pessimistic(
        "einsum",
        values=(x.transpose(1, 0, 2)[None].copy(), y.transpose(1, 0, 2)[None].copy()),
        equation="nchw,nwhu->nchu",
    )
    np.testing.assert_array_equal(woven[0].transpose(1, 0, 2), pessimistic("matmul", x=x, y=y))
    vector = pessimistic("matmul", x=x[0, 0], y=y[0])
    np.testing.assert_array_equal(vector, pessimistic("matmul", x=x[0, :1], y=y[0])[0])


@pytest.mark.parametrize(("groups", "stride", "dilation"), [(1, 1, 1), (2, 2, 1), (1, 1, 2)])
def test_convolution_accumulates_tap_by_tap(groups, stride, dilation):
    generator = rng(groups + stride + dilation)
    x, weight = halves(generator, (1, 12 * groups, 5, 6)), halves(generator, (2 * groups, 12, 2, 3))
    bias = halves(generator, (2 * groups,))
    padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)])
    options = {"strides": (stride, stride), "dilations": (dilation, dilation), "groups": groups}
    result = pessimistic("conv", x=x, weight=weight, bias=bias, pad_type="custom", pad=(1, 1, 1, 1), **options)
    expected = np.zeros(result.shape, np.float32)
    for _, o, i, j in np.ndindex(*result.shape):
        group, total = o // 2, None
        for (m, n), start in itertools.product(itertools.product(range(2), range(3)), range(0, 12, accumulate.BLOCK)):
            channels = slice(group * 12 + start, min(group * 12 + start + accumulate.BLOCK, (group + 1) * 12))
            seen = padded[0, channels, i * stride + m * dilation, j * stride + n * dilation].astype(np.float64)
            block = half(np.dot(seen, weight[o, start : start + accumulate.BLOCK, m, n]))
            total = block if total is None else half(total + block)
        expected[0, o, i, j] = half(total + bias[o])
    assert np.mean(result == expected) > 0.95
    np.testing.assert_allclose(result, expected, rtol=2**-9, atol=2**-9)
    exact = call("conv", x=x, weight=weight, bias=bias, pad_type="custom", pad=(1, 1, 1, 1), **options)
    assert np.abs(result - exact).max() < 0.1


@pytest.mark.parametrize("pad_type", ["valid", "same", "custom"])
@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolution_has_the_same_shape_and_nearly_the_same_values(pad_type, groups):
    x, weight = halves(rng(1), (1, 4 * groups, 4, 3)), halves(rng(2), (4 * groups, 3, 3, 2))
    options = {"x": x, "weight": weight, "pad_type": pad_type, "strides": (2, 1), "dilations": (1, 2), "groups": groups}
    options |= {"pad": (1, 0, 0, 1), "bias": halves(rng(3), (3 * groups,))} if pad_type == "custom" else {}
    exact, result = call("conv_transpose", **options), pessimistic("conv_transpose", **options)
    assert result.shape == exact.shape
    np.testing.assert_allclose(result, exact, atol=0.02)


@given(seed=_SEEDS, count=st.integers(1, 33))
def test_sums_and_means_are_trees(seed, count):
    x = halves(rng(seed), (count,), scale=4.0)
    np.testing.assert_array_equal(pessimistic("reduce_sum", x=x), tree(x, average=False))
    np.testing.assert_array_equal(pessimistic("reduce_mean", x=x), half(tree(x, average=True)))
    rows = np.stack((x, -x, 2 * x))
    kept = pessimistic("reduce_sum", x=rows, axes=(-1,), keep_dims=True)
    np.testing.assert_array_equal(kept[:, 0], [tree(row, average=False) for row in rows])


def test_sums_overflow_where_means_do_not():
    x = np.full(4096, 100.0, np.float32)
    assert pessimistic("reduce_sum", x=x) == np.inf
    assert pessimistic("reduce_mean", x=x) == 100.0
    assert pessimistic("reduce_sum_square", x=np.full(2, 300.0, np.float32)) == np.inf


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("softmax", {}),
        ("layer_norm", {"axes": (-1,), "gamma": np.ones(96, np.float32), "beta": np.zeros(96, np.float32)}),
        ("instance_norm", {}),
        ("l2_norm", {}),
        ("reduce_l1_norm", {"axes": (-1,)}),
        ("reduce_l2_norm", {"axes": (-1,)}),
        ("reduce_log_sum", {"axes": (-1,)}),
        ("reduce_log_sum_exp", {"axes": (-1,), "keep_dims": True}),
        ("reduce_log_sum_exp", {"axes": (-1,)}),
    ],
)
def test_the_other_sums_stay_close(kind, options):
    x = np.abs(halves(rng(6), (2, 3, 4, 96))) + 0.5
    exact, result = call(kind, declared="fp16", x=half(x), **options), pessimistic(kind, x=half(x), **options)
    assert result.shape == exact.shape
    np.testing.assert_allclose(result, exact, rtol=0.03, atol=0.03)


@given(seed=_SEEDS, size=st.integers(1, 7), stride=st.integers(1, 3))
def test_pools_sum_windows_in_trees(seed, size, stride):
    x = halves(rng(seed), (1, 2, 9), scale=4.0)
    options = {"kernel_sizes": (size,), "strides": (stride,), "pad_type": "valid"}
    starts = range(0, 9 - size + 1, stride)
    means = [[half(tree(x[0, c, s : s + size], average=True)) for s in starts] for c in range(2)]
    np.testing.assert_array_equal(pessimistic("avg_pool", x=x, **options)[0], means)
    squares = half(x * x)
    norms = [[half(np.sqrt(tree(squares[0, c, s : s + size], average=False))) for s in starts] for c in range(2)]
    np.testing.assert_array_equal(pessimistic("l2_pool", x=x, **options)[0], norms)


@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_padded_pools_stay_close(exclude, ceil_mode):
    x = np.abs(halves(rng(5), (2, 3, 7, 8))) + 0.5
    options = {"kernel_sizes": (3, 2), "strides": (2, 3), "pad_type": "custom", "pad": (1, 1, 0, 1)}
    options |= {"exclude_padding_from_average": exclude, "ceil_mode": ceil_mode}
    exact, result = call("avg_pool", x=half(x), **options), pessimistic("avg_pool", x=half(x), **options)
    assert result.shape == exact.shape
    np.testing.assert_allclose(result, exact, rtol=5e-3)


@given(seed=_SEEDS, reverse=st.booleans(), exclusive=st.booleans())
def test_running_sums_round_after_each_addition(seed, reverse, exclusive):
    x = halves(rng(seed), (3, 40), scale=4.0)
    values = x[:, ::-1] if reverse else x
    expected, total = np.zeros_like(x), np.zeros(3, np.float32)
    for column in range(40):
        before, total = total, half(total + values[:, column])
        expected[:, column] = before if exclusive else total
    result = pessimistic("cumsum", x=x, axis=1, reverse=reverse, exclusive=exclusive)
    np.testing.assert_array_equal(result, expected[:, ::-1] if reverse else expected)


def _recurrent(gates, size=5, width=12):
    return {
        "x": halves(rng(1), (20, 2, width)),
        "initial_h": halves(rng(2), (2, size)),
        "weight_ih": halves(rng(3), (gates * size, width), scale=0.3),
        "weight_hh": halves(rng(4), (gates * size, size), scale=0.3),
        "bias": halves(rng(5), (gates * size,)),
    }


def test_a_recurrent_layer_rounds_at_each_step():
    options = _recurrent(1)
    hidden = options["initial_h"]
    projected = half(pessimistic("linear", x=options["x"], weight=options["weight_ih"], bias=options["bias"]))
    states = []
    for step in range(20):
        hidden = half(np.tanh(half(projected[step] + pessimistic("linear", x=hidden, weight=options["weight_hh"]))))
        states.append(hidden)
    result, last = pessimistic("rnn", output_sequence=True, **options)
    np.testing.assert_allclose(result, states, atol=2**-10)  # tanh of torch and NumPy differ in float32's last place
    assert np.mean(result == states) > 0.9
    np.testing.assert_array_equal(last, result[-1])


@pytest.mark.parametrize(("kind", "gates"), [("rnn", 1), ("gru", 3), ("lstm", 4)])
@pytest.mark.parametrize("variant", [0, 1])
def test_recurrent_layers_stay_close(kind, gates, variant):
    options = _recurrent(gates) | {"direction": ("forward", "reverse")[variant]}
    if kind == "gru":
        options["reset_after"] = bool(variant)
    if kind == "lstm":
        options |= {"initial_c": halves(rng(6), (2, 5)), "clip": 1.0}
        options["peephole"] = halves(rng(7), (15,))
    exact, result = call(kind, declared="fp16", **options), pessimistic(kind, **options)
    assert any((a != b).any() for a, b in zip(exact, result, strict=True))
    for ours, float32 in zip(result, exact, strict=True):
        assert ours.shape == float32.shape
        np.testing.assert_allclose(ours, float32, atol=0.02)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_local_response_norm_stays_close(size):
    x = half(np.abs(halves(rng(9), (2, 6, 4), scale=4.0)) + 1)
    options = {"size": size, "alpha": 0.5}
    exact = call("local_response_norm", declared="fp16", x=x, **options)
    result = pessimistic("local_response_norm", x=x, **options)
    assert result.shape == exact.shape
    np.testing.assert_allclose(result, exact, rtol=5e-3)


@pytest.mark.parametrize("mask", [None, "bool", "float"])
def test_attention(mask):
    query, key, value = (halves(rng(seed), (1, 2, size, 16)) for seed, size in ((1, 5), (2, 9), (3, 9)))
    options = {"query": query, "key": key, "value": value}
    if mask == "bool":
        options["attn_mask"] = np.tri(5, 9, 2, dtype=bool)
    elif mask == "float":
        options["attn_mask"] = halves(rng(4), (5, 9))
    exact, result = (
        call("scaled_dot_product_attention", **options),
        pessimistic("scaled_dot_product_attention", **options),
    )
    assert (result != half(exact)).any()
    np.testing.assert_allclose(result, exact, atol=0.01)


def test_only_declared_float16_is_affected():
    for dtype, profile, expected in [
        ("fp16", "float16-accumulate", True),
        ("fp32", "float16-accumulate", False),
        ("fp16", "declared", False),
    ]:
        made = context(outputs=(operators.Declared(dtype),), profile=profile)
        assert made.half_accumulate is expected
    assert context(profile="float16-accumulate").half_accumulate is False


def test_every_operator_marked_as_accumulating_asks_for_the_profile():
    marked = {kind for kind, versions in operators.versions().items() if versions[-1].accumulates}
    assert {"conv", "linear", "matmul", "softmax", "layer_norm", "reduce_mean", "reduce_sum"} <= marked
    x = torch.from_numpy(np.abs(halves(rng(8), (2, 3, 4, 96))) + 0.5)
    for kind in marked:
        operator = operators.get(kind, "iOS18")
        if operator.required == {"x"}:
            results = [
                operator.function(operators.Context(outputs=(operators.Declared("fp16"),), profile=profile), x=x)
                for profile in ("declared", "float16-accumulate")
            ]
            assert not torch.equal(*results), kind
