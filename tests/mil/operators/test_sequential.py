"""The profile ``float16-sequential``: is each product and each running sum rounded, in order?"""

from __future__ import annotations

import numpy as np
import pytest

from parity.mil import operators
from tests.mil.operators.calling import call, context, halves, rng


def sequential(kind, **inputs):
    return call(kind, declared="fp16", profile="float16-sequential", **inputs)


def dot(x, y):
    """NumPy's float16 scalars round after each operation."""
    total = x[0] * y[0]
    for a, b in zip(x[1:], y[1:], strict=True):
        total = total + a * b
    return total


@pytest.mark.parametrize("k", [1, 2, 7, 70])
def test_products(k):
    x, y = halves(rng(k), (2, 3, k), 3), halves(rng(k + 1), (2, k, 4), 3)
    narrow_x, narrow_y = x.astype(np.float16), y.astype(np.float16)
    expected = np.array(
        [[[dot(narrow_x[b, i], narrow_y[b, :, j]) for j in range(4)] for i in range(3)] for b in range(2)]
    )
    np.testing.assert_array_equal(sequential("matmul", x=x, y=y), expected)
    np.testing.assert_array_equal(sequential("matmul", x=x[0, 0], y=y[0]), expected[0, 0])
    bias = halves(rng(5), (4,))
    result = sequential("linear", x=x[0], weight=np.ascontiguousarray(y[0].T), bias=bias)
    np.testing.assert_array_equal(result, expected[0] + bias.astype(np.float16))
    woven = (x.transpose(1, 0, 2)[None].copy(), y.transpose(1, 0, 2)[None].copy())
    result = sequential("einsum", values=woven, equation="nchw,nwhu->nchu")
    np.testing.assert_array_equal(result[0].transpose(1, 0, 2), expected)


def test_an_overflow_on_the_way_stays():
    x, y = np.full((1, 4), 200, np.float32), np.array([[200], [200], [-200], [-200]], np.float32)
    assert sequential("matmul", x=x, y=y).item() == np.inf
    assert call("matmul", declared="fp16", x=x, y=y).item() == 0


def test_convolution_rounds_before_the_bias():
    x, weight = halves(rng(1), (1, 16, 6, 6)), halves(rng(2), (3, 16, 3, 3))
    bias = halves(rng(3), (3,))
    sums = call("conv", declared="fp16", x=x, weight=weight)
    expected = sums.astype(np.float16) + bias.astype(np.float16).reshape(3, 1, 1)
    np.testing.assert_array_equal(sequential("conv", x=x, weight=weight, bias=bias), expected)
    np.testing.assert_array_equal(sequential("conv", x=x, weight=weight), sums)


def test_pool_rounds_before_the_division():
    x = np.full((1, 1, 2, 2), 30000, np.float32)
    options = {"kernel_sizes": (2, 2), "strides": (2, 2), "pad_type": "valid"}
    assert sequential("avg_pool", x=x, **options).item() == np.inf
    assert call("avg_pool", declared="fp16", x=x, **options).item() == 30000
    y = halves(rng(4), (1, 2, 9, 9))
    options |= {"kernel_sizes": (3, 3), "strides": (3, 3)}
    sums = y.reshape(1, 2, 3, 3, 3, 3).sum((3, 5)).astype(np.float16)
    np.testing.assert_allclose(sequential("avg_pool", x=y, **options), sums / np.float16(9), rtol=2**-10)


def test_running_sums():
    x = halves(rng(6), (50,))
    expected = np.cumsum(x.astype(np.float16))
    np.testing.assert_array_equal(sequential("cumsum", x=x, axis=0), expected)


def test_only_declared_float16_is_affected():
    for dtype, expected in [("fp16", True), ("fp32", False)]:
        made = context(outputs=(operators.Declared(dtype),), profile="float16-sequential")
        assert made.sequential is expected
        assert made.half_accumulate is False
