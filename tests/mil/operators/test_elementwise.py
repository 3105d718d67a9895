"""Elementwise operators and activations against NumPy in float64, and their rounding against IEEE float16."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.nn import functional

from parity.errors import UnsupportedError
from tests.mil.operators.calling import call, rng

_erf = np.vectorize(math.erf)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


# operator: (reference in float64, lower bound, upper bound of the inputs)
UNARY: dict[str, tuple[Any, float, float]] = {
    "abs": (np.abs, -9, 9),
    "acos": (np.arccos, -1, 1),
    "asin": (np.arcsin, -1, 1),
    "atan": (np.arctan, -9, 9),
    "atanh": (np.arctanh, -0.99, 0.99),
    "ceil": (np.ceil, -9, 9),
    "cos": (np.cos, -9, 9),
    "cosh": (np.cosh, -9, 9),
    "erf": (_erf, -4, 4),
    "exp": (np.exp, -9, 9),
    "exp2": (np.exp2, -9, 9),
    "floor": (np.floor, -9, 9),
    "inverse": (lambda x: 1 / (x + 1e-4), 0.1, 9),
    "log": (lambda x: np.log(x + 1e-45), 0.1, 9),
    "round": (np.round, -9, 9),
    "rsqrt": (lambda x: 1 / np.sqrt(x + 1e-12), 0.1, 9),
    "sign": (np.sign, -9, 9),
    "sin": (np.sin, -9, 9),
    "sinh": (np.sinh, -9, 9),
    "sqrt": (np.sqrt, 0, 9),
    "square": (np.square, -9, 9),
    "tan": (np.tan, -1.5, 1.5),
    "tanh": (np.tanh, -9, 9),
    "relu": (lambda x: np.maximum(x, 0), -9, 9),
    "relu6": (lambda x: np.clip(x, 0, 6), -9, 9),
    "sigmoid": (_sigmoid, -9, 9),
    "silu": (lambda x: x * _sigmoid(x), -9, 9),
    "softplus": (lambda x: np.log1p(np.exp(x)), -30, 30),
    "softsign": (lambda x: x / (1 + np.abs(x)), -9, 9),
    "gelu": (lambda x: 0.5 * x * (1 + _erf(x / np.sqrt(2))), -3, 9),
}
PARAMETRIC: dict[str, tuple[Any, dict[str, float]]] = {
    "clip": (lambda x, a, b: np.clip(x, a, b), {"alpha": -0.5, "beta": 1.25}),
    "threshold": (lambda x, a: np.maximum(x, a), {"alpha": 0.25}),
    "elu": (lambda x, a: np.where(x > 0, x, a * (np.exp(x) - 1)), {"alpha": 0.75}),
    "leaky_relu": (lambda x, a: np.where(x > 0, x, a * x), {"alpha": 0.125}),
    "thresholded_relu": (lambda x, a: np.where(x >= a, x, 0), {"alpha": 0.5}),
    "clamped_relu": (lambda x, a, b: np.minimum(b, np.where(x >= 0, x, a * x)), {"alpha": -2.0, "beta": 1.5}),
    "linear_activation": (lambda x, a, b: a * x + b, {"alpha": 1.5, "beta": -0.25}),
    "scaled_tanh": (lambda x, a, b: a * np.tanh(b * x), {"alpha": 1.5, "beta": 0.5}),
    "sigmoid_hard": (lambda x, a, b: np.clip(a * x + b, 0, 1), {"alpha": 0.2, "beta": 0.5}),
    "inverse": (lambda x, e: 1 / (x + e), {"epsilon": 0.5}),
}


@pytest.mark.parametrize("kind", sorted(UNARY))
@given(seed=st.integers(0, 2**32 - 1), shape=hnp.array_shapes(min_dims=0, max_dims=4, max_side=5))
def test_one_input(kind, seed, shape):
    reference, low, high = UNARY[kind]
    x = np.asarray(rng(seed).uniform(low, high, shape)).astype(np.float32)
    expected = reference(x.astype(np.float64))
    np.testing.assert_allclose(call(kind, x=x), expected, rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize("kind", sorted(UNARY))
def test_float16_results_are_rounded_once(kind):
    """Results are the float16 nearest to the float64 result, but for ties that float32 arithmetic may miss."""
    reference, low, high = UNARY[kind]
    x = np.linspace(low, high, 4001).astype(np.float16).astype(np.float32)
    expected = reference(x.astype(np.float64)).astype(np.float16).astype(np.float32)
    result = call(kind, declared="fp16", x=x)
    assert np.mean(result != expected) < 2e-3
    np.testing.assert_allclose(result, expected, rtol=2**-10, atol=2**-24)


@pytest.mark.parametrize("kind", sorted(PARAMETRIC))
@given(seed=st.integers(0, 2**32 - 1), shape=hnp.array_shapes(min_dims=0, max_dims=4, max_side=5))
def test_with_parameters(kind, seed, shape):
    reference, parameters = PARAMETRIC[kind]
    x = np.asarray(rng(seed).uniform(0.1 if kind == "inverse" else -3, 3, shape)).astype(np.float32)
    expected = reference(x.astype(np.float64), *parameters.values())
    np.testing.assert_allclose(call(kind, x=x, **parameters), expected, rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("mode", "reference"),
    [
        ("EXACT", lambda x: 0.5 * x * (1 + _erf(x / np.sqrt(2)))),
        ("TANH_APPROXIMATION", lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))),
        ("SIGMOID_APPROXIMATION", lambda x: x * _sigmoid(1.702 * x)),
    ],
)
def test_gelu_modes(mode, reference):
    x = np.linspace(-6, 6, 1001)
    np.testing.assert_allclose(call("gelu", x=x, mode=mode), reference(x), rtol=3e-6, atol=2e-6)


def test_gelu_of_infinity_is_infinity(monkeypatch):
    """torch's AVX-512 kernel says NaN; where the processor has no such kernel, one is put in its place."""
    kernel = functional.gelu
    monkeypatch.setattr(
        functional, "gelu", lambda x, approximate: kernel(x, approximate=approximate).masked_fill(x.isinf(), torch.nan)
    )
    x = np.array([np.inf, 1, np.nan] * 11, np.float32)
    for mode in ("EXACT", "TANH_APPROXIMATION"):
        np.testing.assert_array_equal(call("gelu", x=x, mode=mode)[::3], np.inf)
        assert np.isnan(call("gelu", x=x, mode=mode)[2::3]).all()


def test_an_unknown_gelu_mode_is_named():
    with pytest.raises(UnsupportedError, match=r"'gelu'.*'SOFT'.*EXACT"):
        call("gelu", x=np.zeros(2), mode="SOFT")


@pytest.mark.parametrize("rank", [3, 4, 5])
def test_parameters_per_channel(rank):
    x = rng(rank).standard_normal((2, 3, 4, 5, 2)[:rank]).astype(np.float32)
    alpha, beta = np.array([0.5, -1.0, 2.0]), np.array([1.0, 0.25, -0.5])
    spread = (1, 3) + (1,) * (rank - 2)
    a, b = alpha.reshape(spread), beta.reshape(spread)
    np.testing.assert_allclose(call("prelu", x=x, alpha=alpha), np.maximum(x, 0) + a * np.minimum(x, 0), rtol=1e-6)
    expected = a * np.log1p(np.exp(b * x.astype(np.float64)))
    np.testing.assert_allclose(call("softplus_parametric", x=x, alpha=alpha, beta=beta), expected, rtol=3e-6)


@given(seed=st.integers(0, 2**32 - 1), shape=hnp.array_shapes(min_dims=1, max_dims=4, max_side=5), data=st.data())
def test_softmax(seed, shape, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = rng(seed).standard_normal(shape).astype(np.float32) * 8
    powers = np.exp(x.astype(np.float64) - x.max(axis, keepdims=True))
    np.testing.assert_allclose(call("softmax", x=x, axis=axis), powers / powers.sum(axis, keepdims=True), rtol=1e-5)


BINARY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "real_div": np.true_divide,
    "floor_div": np.floor_divide,
    "mod": np.mod,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "less": np.less,
    "less_equal": np.less_equal,
}
_SHAPES = hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=4)


@pytest.mark.parametrize("kind", sorted(BINARY))
@given(seed=st.integers(0, 2**32 - 1), shapes=_SHAPES)
def test_two_inputs_broadcast(kind, seed, shapes):
    generator = rng(seed)
    x, y = (np.asarray(generator.integers(-6, 7, shape) / 2, np.float32) for shape in shapes.input_shapes)
    y = np.where(y == 0, np.float32(0.5), y) if kind in ("real_div", "floor_div", "mod") else y
    result = call(kind, x=x, y=np.asarray(y))
    assert result.shape == shapes.result_shape
    np.testing.assert_allclose(result, BINARY[kind](x, y), rtol=1e-6)


@pytest.mark.parametrize("kind", sorted(BINARY))
@given(seed=st.integers(0, 2**32 - 1), shapes=_SHAPES)
def test_two_integer_inputs(kind, seed, shapes):
    generator = rng(seed)
    x, y = (np.asarray(generator.integers(-9, 10, shape), np.int32) for shape in shapes.input_shapes)
    result = call(kind, x=x, y=y)
    wide, other = np.broadcast_arrays(x.astype(np.int64), y.astype(np.int64))
    if kind in ("real_div", "floor_div", "mod"):
        one = np.where(other == 0, 1, other)
        expected = np.trunc(wide / one).astype(np.int64) if kind == "real_div" else BINARY[kind](wide, one)
        expected = np.where(other == 0, 0, expected)
    else:
        expected = BINARY[kind](wide, other)
    np.testing.assert_array_equal(result, expected)
    assert result.dtype == (np.bool_ if expected.dtype == np.bool_ else np.int32)


@pytest.mark.parametrize(
    ("kind", "function"), [("add", np.add), ("sub", np.subtract), ("mul", np.multiply), ("real_div", np.divide)]
)
def test_float16_arithmetic_is_ieee(kind, function):
    """float32 arithmetic on float16 values, rounded once, equals float16 arithmetic with overflow and subnormals."""
    bits = rng(7).integers(0, 2**16, (2, 200_000)).astype(np.uint16)
    x, y = bits.view(np.float16)
    with np.errstate(all="ignore"):
        expected = function(x, y)
    result = call(kind, declared="fp16", x=x.astype(np.float32), y=y.astype(np.float32)).astype(np.float16)
    np.testing.assert_array_equal(result, expected)
    assert np.isinf(expected).any()
    assert (np.abs(expected[np.nonzero(expected)]) < 2**-14).any()


@given(
    base=hnp.arrays(np.float32, 5, elements=st.floats(0.125, 8, width=32)),
    power=st.sampled_from([-2.0, 0.5, 1.0, 2.0, 3.0]),
)
def test_pow(base, power):
    result = call("pow", x=base, y=np.float32(power).reshape(()))
    np.testing.assert_allclose(result, base.astype(np.float64) ** power, rtol=2e-6)
    result = call("pow", x=np.array([2, -3, 0], np.int32), y=np.array([5, 3, 0], np.int32))
    np.testing.assert_array_equal(result, [32, -27, 1])


@pytest.mark.parametrize(
    ("kind", "function"),
    [("logical_and", np.logical_and), ("logical_or", np.logical_or), ("logical_xor", np.logical_xor)],
)
def test_logic(kind, function):
    x, y = np.array([[True], [False]]), np.array([True, False])
    np.testing.assert_array_equal(call(kind, x=x, y=y), function(x, y))
    np.testing.assert_array_equal(call("logical_not", x=y), ~y)


@pytest.mark.parametrize(
    ("kind", "expected"), [("abs", [3, 0, 2]), ("sign", [-1, 0, 1]), ("square", [9, 0, 4]), ("exp2", [0, 1, 4])]
)
def test_integers_stay_integers(kind, expected):
    result = call(kind, x=np.array([-3, 0, 2], np.int32))
    np.testing.assert_array_equal(result, expected)
    assert result.dtype == np.int32


CASTS = ["int8", "uint8", "int16", "uint16", "int32"]


@pytest.mark.parametrize("dtype", CASTS)
@given(x=hnp.arrays(np.float32, 8, elements=st.floats(width=32)))
def test_casts_to_integers_truncate_saturate_and_turn_nan_to_zero(dtype, x):
    limits = np.iinfo(dtype)
    expected = np.clip(np.trunc(np.nan_to_num(x.astype(np.float64), nan=0.0)), limits.min, limits.max)
    np.testing.assert_array_equal(call("cast", x=x, dtype=dtype), expected.astype(np.int64))


@pytest.mark.parametrize("dtype", CASTS)
@given(x=hnp.arrays(np.int32, 8))
def test_casts_between_integers_keep_the_low_bits(dtype, x):
    np.testing.assert_array_equal(call("cast", x=x, dtype=dtype), x.astype(dtype).astype(np.int64))


def test_other_casts():
    np.testing.assert_array_equal(call("cast", x=np.array([0.0, -0.5, np.nan]), dtype="bool"), [False, True, True])
    np.testing.assert_array_equal(call("cast", x=np.array([True, False]), dtype="fp32"), [1.0, 0.0])
    np.testing.assert_array_equal(call("cast", x=np.array([True, False]), dtype="int32"), [1, 0])
    x = rng(1).standard_normal(5).astype(np.float32)
    np.testing.assert_array_equal(call("cast", declared="fp16", x=x, dtype="fp16"), x.astype(np.float16))
    with pytest.raises(UnsupportedError, match="cast to 'complex64'"):
        call("cast", x=x, dtype="complex64")
