"""Convolutions and pools against plain loops over windows in float64."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from parity.errors import UnsupportedError
from tests.mil.operators.calling import call, rng


def same_pads(sizes, kernel, strides, dilations, *, lower=False):
    """TensorFlow's rule: ceil(size / stride) results, the odd element at the end (or at the start)."""
    pads = []
    for size, k, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max((math.ceil(size / stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
        pads.append((math.ceil(total / 2), total // 2) if lower else (total // 2, math.ceil(total / 2)))
    return pads


def windows(x, kernel, strides, dilations, pads, fill):
    """Yield (output position, window) of the padded x (N, C, …), windows (N, C, *kernel)."""
    x = np.pad(x.astype(np.float64), [(0, 0), (0, 0), *pads], constant_values=fill)
    counts = [
        (size - (k - 1) * d - 1) // s + 1 for size, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True)
    ]
    for place in itertools.product(*(range(count) for count in counts)):
        index = tuple(
            slice(p * s, p * s + (k - 1) * d + 1, d)
            for p, s, k, d in zip(place, strides, kernel, dilations, strict=True)
        )
        part = (slice(None), slice(None), *index)
        yield place, x[part]


def convolved(x, weight, bias, strides, dilations, pads, groups):
    kernel = weight.shape[2:]
    parts = []
    for place, window in windows(x, kernel, strides, dilations, pads, 0.0):
        columns = window.reshape(len(x), groups, -1)
        rows = weight.astype(np.float64).reshape(groups, weight.shape[0] // groups, -1)
        parts.append((place, np.einsum("ngk,gok->ngo", columns, rows).reshape(len(x), -1)))
    shape = [max(place[axis] for place, _ in parts) + 1 for axis in range(len(kernel))]
    result = np.zeros((len(x), weight.shape[0], *shape))
    for place, values in parts:
        everywhere = (slice(None), slice(None), *place)
        result[everywhere] = values
    return result if bias is None else result + bias.reshape(1, -1, *((1,) * len(kernel)))


def scattered(x, weight, strides, dilations, groups):
    """Transposed convolution: every input element adds the kernel to the full result."""
    kernel = weight.shape[2:]
    sizes = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(x.shape[2:], strides, kernel, dilations, strict=True)]
    result = np.zeros((len(x), weight.shape[1] * groups, *sizes))
    into, out = x.shape[1] // groups, weight.shape[1]
    for place in itertools.product(*(range(n) for n in x.shape[2:])):
        window = tuple(
            slice(p * s, p * s + (k - 1) * d + 1, d)
            for p, s, k, d in zip(place, strides, kernel, dilations, strict=True)
        )
        for group in range(groups):
            taken = (slice(None), slice(group * into, (group + 1) * into), *place)
            values = x[taken].astype(np.float64)
            taps = weight[group * into : (group + 1) * into].astype(np.float64)
            target = (slice(None), slice(group * out, (group + 1) * out), *window)
            result[target] += np.einsum("ni,io...->no...", values, taps)
    return result


@st.composite
def problems(draw, *, dilate=True, max_spatial=3):
    spatial = draw(st.integers(1, max_spatial))
    several = lambda low, high: tuple(draw(st.lists(st.integers(low, high), min_size=spatial, max_size=spatial)))  # noqa: E731
    dilations = several(1, 2) if dilate else (1,) * spatial
    return {
        "seed": draw(st.integers(0, 2**32 - 1)),
        "sizes": several(1, 6),
        "kernel": several(1, 3),
        "strides": several(1, 3),
        "dilations": dilations,
        "groups": draw(st.integers(1, 2)),
        "pad_type": draw(st.sampled_from(["valid", "custom", "same", "same_lower"])),
        "pad": several(0, 2) + several(0, 2),
        "bias": draw(st.booleans()),
    }


def _pads(p, sizes):
    if p["pad_type"] == "valid":
        return [(0, 0)] * len(sizes)
    if p["pad_type"] == "custom":
        return list(zip(p["pad"][::2], p["pad"][1::2], strict=True))
    return same_pads(sizes, p["kernel"], p["strides"], p["dilations"], lower=p["pad_type"] == "same_lower")


def _fits(p, sizes):
    pads = _pads(p, sizes)
    return all(
        n + a + b >= (k - 1) * d + 1 for n, (a, b), k, d in zip(sizes, pads, p["kernel"], p["dilations"], strict=True)
    )


@given(p=problems())
def test_conv(p):
    assume(_fits(p, p["sizes"]))
    generator = rng(p["seed"])
    x = generator.standard_normal((2, 2 * p["groups"], *p["sizes"])).astype(np.float32)
    weight = generator.standard_normal((3 * p["groups"], 2, *p["kernel"])).astype(np.float32)
    bias = generator.standard_normal(3 * p["groups"]).astype(np.float32)
    options = {name: p[name] for name in ("strides", "dilations", "groups", "pad_type")}
    options |= {"bias": bias} if p["bias"] else {}
    options |= {"pad": p["pad"]} if p["pad_type"] == "custom" else {}
    expected = convolved(
        x, weight, bias if p["bias"] else None, p["strides"], p["dilations"], _pads(p, p["sizes"]), p["groups"]
    )
    np.testing.assert_allclose(call("conv", x=x, weight=weight, **options), expected, rtol=1e-5, atol=2e-5)


def test_conv_defaults():
    x, weight = rng(0).standard_normal((1, 2, 4, 5)), rng(1).standard_normal((3, 2, 2, 3))
    expected = convolved(x, weight, None, (1, 1), (1, 1), [(0, 0)] * 2, 1)
    np.testing.assert_allclose(call("conv", x=x, weight=weight), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(call("conv", x=x, weight=weight, pad_type="custom"), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(UnsupportedError, match="pad_type 'circular'"):
        call("conv", x=x, weight=weight, pad_type="circular")


def test_conv_quantized_is_conv_of_the_dequantized_weight():
    generator = rng(5)
    x = generator.standard_normal((1, 2, 5, 5)).astype(np.float32)
    steps = generator.integers(0, 256, (3, 2, 2, 2)).astype(np.uint8)
    scale, shift = generator.uniform(0.01, 0.1, 3).astype(np.float32), generator.uniform(-9, 9, 3).astype(np.float32)
    weight = steps * scale.reshape(3, 1, 1, 1) + shift.reshape(3, 1, 1, 1)
    options = {"x": x, "pad_type": "same", "strides": (2, 2)}
    result = call(
        "conv_quantized", weight=steps, quantization_type="linear", quant_scale=scale, quant_bias=shift, **options
    )
    np.testing.assert_allclose(result, call("conv", weight=weight, **options), rtol=1e-4, atol=1e-4)
    with pytest.raises(UnsupportedError, match="'lut' with 8 bits"):
        call("conv_quantized", x=x, weight=steps, quantization_type="lut", quant_scale=scale, quant_bias=shift)


@given(p=problems(), lengthen=st.integers(0, 1))
def test_conv_transpose(p, lengthen):
    generator = rng(p["seed"])
    spatial = len(p["sizes"])
    x = generator.standard_normal((2, 2 * p["groups"], *p["sizes"])).astype(np.float32)
    weight = generator.standard_normal((2 * p["groups"], 3, *p["kernel"])).astype(np.float32)
    bias = generator.standard_normal(3 * p["groups"]).astype(np.float32)
    full = scattered(x, weight, p["strides"], p["dilations"], p["groups"])
    sizes = full.shape[2:]
    options = {name: p[name] for name in ("strides", "dilations", "groups", "pad_type")}
    if p["pad_type"] == "custom":
        before, after = p["pad"][::2], p["pad"][1::2]
        assume(all(a + b < n for n, a, b in zip(sizes, before, after, strict=True)))
        wanted = [n - a - b for n, a, b in zip(sizes, before, after, strict=True)]
        options["pad"] = p["pad"]
        if lengthen:  # what PyTorch calls output padding
            wanted = [n + 1 for n in wanted]
            options["output_shape"] = (2, 3 * p["groups"], *wanted)
    elif p["pad_type"] == "valid":
        before, wanted = (0,) * spatial, list(sizes)
    else:
        wanted = [n * s for n, s in zip(p["sizes"], p["strides"], strict=True)]
        rests = [max(0, have - want) for have, want in zip(sizes, wanted, strict=True)]
        before = [math.ceil(rest / 2) if p["pad_type"] == "same_lower" else rest // 2 for rest in rests]
    longer = np.pad(full, [(0, 0), (0, 0), *((0, want) for want in wanted)])
    cut = (slice(None), slice(None), *(slice(a, a + want) for a, want in zip(before, wanted, strict=True)))
    expected = longer[cut]
    if p["bias"]:
        options["bias"] = bias
        expected = expected + bias.reshape(1, -1, *((1,) * spatial))
    result = call("conv_transpose", x=x, weight=weight, **options)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=2e-5)


@given(p=problems(dilate=False), ceil_mode=st.booleans(), exclude=st.booleans())
def test_pools(p, ceil_mode, exclude):
    sizes, kernel, strides = p["sizes"], p["kernel"], p["strides"]
    pad = tuple(min(amount, kernel[axis // 2] // 2) for axis, amount in enumerate(p["pad"]))
    p = p | {"pad": pad}
    assume(_fits(p, sizes))
    ceil_mode = ceil_mode and p["pad_type"] in ("valid", "custom")
    if ceil_mode:
        p["pad"] = pad = tuple(amount for amount in pad[::2] for _ in (0, 1))
        assume(_fits(p, sizes))
    pads = _pads(p, sizes)
    beyond = []
    for n, k, s, (a, b) in zip(sizes, kernel, strides, pads, strict=True):
        count = math.ceil((n + a + b - k) / s) + 1
        count -= (count - 1) * s >= n + a
        beyond.append(max(0, (count - 1) * s + k - n - a - b) if ceil_mode else 0)
    x = rng(p["seed"]).standard_normal((2, 2, *sizes)).astype(np.float32)
    wide = [(a, b + c) for (a, b), c in zip(pads, beyond, strict=True)]
    ones = np.ones_like(x)
    if not exclude:
        ones = np.pad(ones, [(0, 0), (0, 0), *pads], constant_values=1.0)
        counting = [(0, c) for c in beyond]
    else:
        counting = wide
    axes = tuple(range(2, x.ndim))
    sums = {place: w.sum(axes) for place, w in windows(x, kernel, strides, (1,) * len(sizes), wide, 0.0)}
    counts = {place: w.sum(axes) for place, w in windows(ones, kernel, strides, (1,) * len(sizes), counting, 0.0)}
    squares = {place: w.sum(axes) for place, w in windows(x**2, kernel, strides, (1,) * len(sizes), wide, 0.0)}
    largest = {place: w.max(axes) for place, w in windows(x, kernel, strides, (1,) * len(sizes), wide, -np.inf)}
    options = {"x": x, "kernel_sizes": kernel, "strides": strides, "pad_type": p["pad_type"], "ceil_mode": ceil_mode}
    options |= {"pad": pad} if p["pad_type"] == "custom" else {}
    average = call("avg_pool", exclude_padding_from_average=exclude, **options)
    maximum = call("max_pool", declared="fp32", **options)
    norm = call("l2_pool", **options)
    assert average.shape[2:] == tuple(max(place[axis] for place in sums) + 1 for axis in range(len(sizes)))
    for place in sums:
        where = (slice(None), slice(None), *place)
        np.testing.assert_allclose(average[where], sums[place] / counts[place], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(maximum[where], largest[place].astype(np.float32))
        np.testing.assert_allclose(norm[where], np.sqrt(squares[place]), rtol=1e-5, atol=1e-6)
