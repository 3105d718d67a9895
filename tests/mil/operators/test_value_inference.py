"""coremltools computes many operators itself when all inputs are constant: do we agree with its `value_inference`?

Each case builds the operation with coremltools' MIL Builder and compares the value that coremltools infers with ours.
"""

from __future__ import annotations

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil.mil import Builder, Function, types

from tests.mil.operators.calling import call, rng


def f(seed, *shape, low=-3.0, high=3.0):
    return np.asarray(rng(seed).uniform(low, high, shape), np.float32)


def i(seed, *shape, low=0, high=9):
    return np.asarray(rng(seed).integers(low, high, shape), np.int32)


P = {"low": 0.2, "high": 2.5}
CASES = [
    *(
        (kind, {"x": f(1, 2, 3)})
        for kind in (
            "abs",
            "atan",
            "ceil",
            "cos",
            "cosh",
            "erf",
            "exp",
            "exp2",
            "floor",
            "round",
            "sign",
            "sin",
            "sinh",
        )
    ),
    *(
        (kind, {"x": f(2, 2, 3)})
        for kind in ("square", "tan", "tanh", "relu", "relu6", "sigmoid", "softplus", "softsign", "gelu")
    ),
    *((kind, {"x": f(3, 2, 3, low=-0.9, high=0.9)}) for kind in ("acos", "asin", "atanh")),
    *((kind, {"x": f(4, 2, 3, **P)}) for kind in ("sqrt", "log", "rsqrt", "inverse")),
    *((kind, {"x": i(5, 2, 3, low=-4)}) for kind in ("abs", "sign", "square")),
    ("inverse", {"x": f(6, 4, **P), "epsilon": np.float32(0.3)}),
    ("rsqrt", {"x": f(6, 4, **P), "epsilon": np.float32(0.3)}),
    ("log", {"x": f(6, 4, **P), "epsilon": np.float32(0.3)}),
    ("clip", {"x": f(7, 5), "alpha": np.float32(-0.5), "beta": np.float32(1.0)}),
    ("threshold", {"x": f(7, 5), "alpha": np.float32(-0.5)}),
    ("logical_not", {"x": np.array([True, False])}),
    *(("cast", {"x": f(8, 5) * 9, "dtype": dtype}) for dtype in ("int32", "fp16", "fp32", "bool")),
    ("cast", {"x": i(8, 5), "dtype": "fp32"}),
    *(
        (kind, {"x": f(9, 2, 3), "y": f(10, 3)})
        for kind in ("add", "sub", "mul", "maximum", "minimum", "less", "greater")
    ),
    *((kind, {"x": f(9, 2, 3), "y": f(10, 3, **P)}) for kind in ("real_div", "floor_div", "mod")),
    *(
        (kind, {"x": i(9, 6, low=-5), "y": i(10, 6, low=1)})
        for kind in ("add", "sub", "mul", "floor_div", "mod", "equal", "not_equal", "less_equal", "greater_equal")
    ),
    ("pow", {"x": f(11, 3, **P), "y": f(12, 3)}),
    *(
        (kind, {"x": np.array([True, False, True]), "y": np.array([True, True, False])})
        for kind in ("logical_and", "logical_or", "logical_xor")
    ),
    *((kind, {"x": f(13, 2, 3), "alpha": np.float32(0.4)}) for kind in ("elu", "leaky_relu", "thresholded_relu")),
    *(
        (kind, {"x": f(13, 2, 3), "alpha": np.float32(0.4), "beta": np.float32(0.7)})
        for kind in ("clamped_relu", "linear_activation", "scaled_tanh", "sigmoid_hard")
    ),
    *(("gelu", {"x": f(14, 7), "mode": mode}) for mode in ("EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION")),
    ("prelu", {"x": f(15, 2, 3, 4, 2), "alpha": f(16, 3)}),
    ("softplus_parametric", {"x": f(15, 2, 3, 4, 2), "alpha": f(16, 3), "beta": f(17, 3)}),
    *(("softmax", {"x": f(18, 2, 3, 4), "axis": axis}) for axis in (-1, 0, 1)),
    ("linear", {"x": f(19, 2, 3), "weight": f(20, 4, 3), "bias": f(21, 4)}),
    ("matmul", {"x": f(19, 2, 3, 4), "y": f(20, 2, 5, 4), "transpose_y": True}),
    ("matmul", {"x": f(19, 4, 3), "y": f(20, 2, 4, 5), "transpose_x": True}),
    ("einsum", {"values": (f(21, 2, 3, 4, 5), f(22, 2, 5, 4, 6)), "equation": "nchw,nwhu->nchu"}),
    ("einsum", {"values": (f(21, 3, 1, 5), f(22, 5, 4, 6)), "equation": "abc,cbd->abd"}),
    *(("l2_norm", {"x": f(23, *shape), "epsilon": np.float32(0.1)}) for shape in ((2, 3, 4), (2, 2, 3, 4))),
    *(
        ("layer_norm", {"x": f(24, 2, 3, 4), "axes": axes, "gamma": f(25, *size), "beta": f(26, *size)})
        for axes, size in (((-1,), (4,)), ((1, 2), (3, 4)))
    ),
    *(
        (f"reduce_{kind}", {"x": f(27, 2, 3, 4, **P), "axes": axes, "keep_dims": keep})
        for kind in ("sum", "mean", "max", "min", "prod", "sum_square", "l1_norm", "l2_norm", "log_sum", "log_sum_exp")
        for axes, keep in (((1,), False), ((0, -1), True))
    ),
    *(
        (f"reduce_{kind}", {"x": i(28, 2, 3, low=1, high=5), "axes": (1,)})
        for kind in ("sum", "mean", "max", "min", "prod", "sum_square")
    ),
    *(
        (kind, {"x": f(29, 3, 4), "axis": axis, "keep_dims": keep})
        for kind in ("reduce_argmax", "reduce_argmin")
        for axis in (0, -1)
        for keep in (True, False)
    ),
    *(("reshape", {"x": f(30, 2, 6), "shape": shape}) for shape in ((3, 4), (-1,), (2, 0), (4, -1))),
    ("expand_dims", {"x": f(31, 2, 3), "axes": (0, -1)}),
    ("squeeze", {"x": f(32, 1, 3, 1), "axes": (0,)}),
    ("squeeze", {"x": f(32, 1, 3, 1)}),
    ("transpose", {"x": f(33, 2, 3, 4), "perm": (2, 0, 1)}),
    ("reverse", {"x": f(34, 2, 3), "axes": (-1,)}),
    *(
        (
            "slice_by_index",
            {
                "x": f(35, 4, 5),
                "begin": begin,
                "end": end,
                "stride": stride,
                "begin_mask": mask,
                "end_mask": mask[::-1],
                "squeeze_mask": squeeze,
            },
        )
        for begin, end, stride, mask, squeeze in (
            ((1, 0), (3, 4), (1, 2), (False, False), (False, False)),
            ((-1, 4), (0, 0), (-1, -2), (False, True), (False, False)),
            ((2, 1), (3, 5), (1, 1), (False, True), (True, False)),
        )
    ),
    ("slice_by_size", {"x": f(36, 4, 5), "begin": (1, 2), "size": (2, -1)}),
    ("slice_update", {"x": f(37, 4, 5), "update": f(38, 2, 2), "begin": (0, 1), "end": (4, 3), "stride": (2, 1)}),
    *(("band_part", {"x": f(39, 4, 5), "lower": lower, "upper": upper}) for lower, upper in ((0, -1), (-1, 1), (1, 2))),
    *(("cumsum", {"x": f(40, 3, 4), "axis": axis, "reverse": reverse}) for axis in (0, 1) for reverse in (True, False)),
    ("fill", {"shape": (2, 3), "value": np.float32(1.5)}),
    ("fill_like", {"ref_tensor": f(41, 2, 3), "value": np.int32(4)}),
    ("non_zero", {"x": i(42, 3, 4, high=2)}),
    *(
        ("pad", {"x": f(43, 3, 4), "pad": pads, "mode": mode})
        for pads in ((1, 2), (1, 0, 2, 1))
        for mode in ("constant", "reflect", "replicate")
    ),
    ("range_1d", {"start": np.int32(1), "end": np.int32(10), "step": np.int32(4)}),
    ("tile", {"x": f(44, 2, 3), "reps": (2, 3)}),
    *(
        (kind, {"x": f(45, 3, 5), "axis": axis, "ascending": up})
        for kind in ("argsort", "topk")
        for axis in (0, 1)
        for up in (True, False)
    ),
    ("flatten2d", {"x": f(46, 2, 3, 4), "axis": -1}),
    ("shape", {"x": f(46, 2, 3, 4)}),
    ("concat", {"values": (f(47, 2, 3), f(48, 2, 3)), "axis": 1}),
    ("split", {"x": f(49, 4, 6), "num_splits": 3, "axis": 1}),
    ("split", {"x": f(49, 4, 6), "split_sizes": (1, 3), "axis": 0}),
    ("stack", {"values": (f(47, 2, 3), f(48, 2, 3)), "axis": -1}),
    ("identity", {"x": f(47, 2, 3)}),
    ("select", {"cond": np.array([True, False]), "a": f(50, 3, 2), "b": f(51, 2)}),
    *(("gather", {"x": f(52, 4, 5), "indices": i(53, 2, 3, high=4), "axis": axis}) for axis in (0, -1)),
    ("gather", {"x": f(52, 2, 4, 5), "indices": i(53, 2, 3, high=4), "axis": 1, "batch_dims": 1}),
    ("gather_along_axis", {"x": f(54, 4, 5), "indices": i(55, 2, 5, high=4), "axis": 0}),
    (
        "scatter_along_axis",
        {
            "data": f(54, 4, 5),
            "indices": np.array([[0, 1, 2, 3, 0], [3, 2, 1, 0, 2]], np.int32),
            "updates": f(56, 2, 5),
            "axis": 0,
            "mode": "update",
        },
    ),
    (
        "quantize",
        {
            "input": f(57, 3, 4),
            "scale": f(58, 4, **P),
            "zero_point": np.array([0, 1, 2, 3], np.int8),
            "axis": 1,
            "output_dtype": "int8",
        },
    ),
    ("scaled_dot_product_attention", {"query": f(59, 1, 4, 8), "key": f(60, 1, 5, 8), "value": f(61, 1, 5, 6)}),
]


def inferred(kind, inputs):
    """What coremltools infers, as a tuple of arrays."""
    with Function({"unused": Builder.placeholder(shape=(1,), dtype=types.fp32)}, opset_version=ct.target.iOS18):
        arguments = {name: list(value) if name == "values" else value for name, value in inputs.items()}
        result = getattr(Builder, kind)(**arguments)
        variables = result if isinstance(result, (tuple, list)) else [result]
        return tuple(variable.val for variable in variables)


@pytest.mark.parametrize(("kind", "inputs"), CASES, ids=[f"{kind}-{place}" for place, (kind, _) in enumerate(CASES)])
def test_we_agree_with_coremltools(kind, inputs):
    expected = inferred(kind, inputs)
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in inputs.items()}
    result = call(kind, declared="fp16" if inputs.get("dtype") == "fp16" else "fp32", **plain)
    results = result if isinstance(result, tuple) else (result,)
    assert len(results) == len(expected)
    for ours, theirs in zip(results, expected, strict=True):
        assert theirs is not None, "coremltools infers no value; the case proves nothing"
        assert ours.shape == np.shape(theirs)
        np.testing.assert_allclose(ours, theirs, rtol=3e-6, atol=3e-6)


def test_most_operators_that_coremltools_can_infer_are_covered():
    assert len({kind for kind, _ in CASES}) >= 90
