"""Whole programs: built with coremltools' Builder, written as ML Programs, read and run by a session.

What is proved here is that operators and interpreter agree about the calling convention: optional inputs left out,
constants by value and by file, several results, blocks, lists, states, weights of all compressions.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import pytest
import torch
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  (the name that its users know)
from coremltools.converters.mil.mil import types

from parity.mil import Session, load
from tests.mil.operators.calling import rng

warnings.filterwarnings("ignore", module="coremltools")


def converted(build: Callable[..., Any], opset: str = "iOS15", *, half: bool = False, **inputs: Any) -> Any:
    """Convert the program that `build` makes; inputs are shapes (float32) or specifications."""
    target = getattr(ct.target, opset)
    specs = [mb.TensorSpec(shape=item) if isinstance(item, tuple) else item for item in inputs.values()]
    program = mb.program(input_specs=specs, opset_version=target)(build)
    return ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=target,
        compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32,
        skip_model_load=True,
    )


def session(model: Any, folder: Path, **options: Any) -> Session:
    path = folder / "model.mlpackage"
    model.save(str(path))
    return Session(load(path), **options)


def run(model: Any, folder: Path, **inputs: Any) -> list[Any]:
    """Predict once; results in declared order."""
    return list(session(model, folder).predict(inputs).values())


@pytest.mark.long
def test_a_convolutional_chain(tmp_path):
    weight, bias = rng(1).standard_normal((4, 3, 3, 3)).astype(np.float32), rng(2).standard_normal(4).astype(np.float32)

    def build(x):
        y = mb.conv(x=x, weight=weight, bias=bias, pad_type="same", strides=[2, 2])
        y = mb.max_pool(x=mb.relu(x=y), kernel_sizes=[2, 2], strides=[2, 2], pad_type="valid")
        y = mb.upsample_nearest_neighbor(x=y, scale_factor_height=2, scale_factor_width=2)
        y = mb.layer_norm(x=mb.transpose(x=y, perm=[0, 2, 3, 1]), axes=[-1], epsilon=1e-5)
        return mb.reduce_mean(x=y, axes=[1, 2], keep_dims=False)

    x = rng(3).standard_normal((2, 3, 8, 8)).astype(np.float32)
    with torch.no_grad():
        y = torch.nn.functional.pad(torch.from_numpy(x), (0, 1, 0, 1))  # `same` for stride 2: all at the end
        y = torch.conv2d(y, torch.from_numpy(weight), torch.from_numpy(bias), stride=2).relu()
        y = torch.nn.functional.interpolate(torch.max_pool2d(y, 2), scale_factor=2).permute(0, 2, 3, 1)
        expected = torch.layer_norm(y, (4,)).mean((1, 2)).numpy()
    (result,) = run(converted(build, x=x.shape), tmp_path, x=x)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
    half = converted(build, half=True, x=x.shape)
    found = []
    for profile in ("float32", "declared", "float16-accumulate"):
        (result,) = session(half, tmp_path, profile=profile).predict({"x": x}).values()
        np.testing.assert_allclose(result, expected, atol=0.02)
        found.append(result)
    assert (found[0] != found[1]).any()
    assert (found[1] != found[2]).any()


def test_a_loop_over_a_list(tmp_path):
    """Running sums of the rows of x, collected in a list."""

    def build(x):
        def more(i, total, found):
            return mb.less(x=i, y=4)

        def body(i, total, found):
            row = mb.squeeze(x=mb.slice_by_size(x=x, begin=mb.concat(values=(i, 0), axis=0), size=[1, 3]), axes=[0])
            total = mb.add(x=total, y=row)
            return mb.add(x=i, y=1), total, mb.list_write(ls=found, index=i, value=total)

        found = mb.make_list(init_length=4, dynamic_length=False, elem_shape=(3,))
        _, _, found = mb.while_loop(_cond=more, _body=body, loop_vars=(0, np.zeros(3, np.float32), found))
        return mb.list_gather(ls=found, indices=[0, 1, 2, 3])

    x = rng(4).standard_normal((4, 3)).astype(np.float32)
    (result,) = run(converted(build, x=(4, 3)), tmp_path, x=x)
    np.testing.assert_allclose(result, np.cumsum(x, 0), rtol=1e-6)


@pytest.mark.parametrize("value", [2.0, -2.0])
def test_a_branch_that_sees_outer_values(value, tmp_path):
    def build(x):
        positive = mb.greater(x=mb.reduce_sum(x=x), y=0.0)
        doubled = mb.mul(x=x, y=2.0)
        return mb.cond(pred=positive, _true_fn=lambda: mb.add(x=doubled, y=1.0), _false_fn=lambda: mb.identity(x=x))

    x = np.full(3, value, np.float32)
    (result,) = run(converted(build, x=(3,)), tmp_path, x=x)
    np.testing.assert_allclose(result, 2 * x + 1 if value > 0 else x)


def test_a_state_counts_predictions(tmp_path):
    def build(x, memory):
        total = mb.add(x=mb.read_state(input=memory), y=x)
        return mb.mul(x=mb.coreml_update_state(state=memory, value=total), y=np.float16(2))

    model = converted(
        build, "iOS18", half=True, x=mb.TensorSpec((3,), dtype=types.fp16), memory=mb.StateTensorSpec((3,), types.fp16)
    )
    runner = session(model, tmp_path)
    state = runner.new_state()
    x = np.array([1, 2, 3], np.float16)
    for count in (1, 2, 3):
        (result,) = runner.predict({"x": x}, state=state).values()
        np.testing.assert_array_equal(result, 2 * count * x)
    np.testing.assert_array_equal(state["memory"], 3 * x)


def test_several_results_and_small_integers(tmp_path):
    def build(x):
        values, indices = mb.topk(x=x, k=2, axis=-1, ascending=True, output_indices_dtype="uint16")
        left, right = mb.split(x=x, split_sizes=[1, 4], axis=1)
        rows = mb.gather(x=x, indices=mb.cast(x=mb.reduce_argmax(x=x, axis=0), dtype="int16"), axis=0)
        return values, mb.cast(x=indices, dtype="int32"), left, mb.reverse(x=right, axes=[1]), rows

    x = rng(5).standard_normal((3, 5)).astype(np.float32)
    values, indices, left, right, rows = run(converted(build, "iOS17", x=(3, 5)), tmp_path, x=x)
    order = np.argsort(x, -1)[:, :2]
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_array_equal(values, np.take_along_axis(x, order, -1))
    np.testing.assert_array_equal(left, x[:, :1])
    np.testing.assert_array_equal(right, x[:, :0:-1])
    np.testing.assert_array_equal(rows, x[x.argmax(0)])


def test_shapes_that_only_the_run_knows(tmp_path):
    def build(x):
        size = mb.gather(x=mb.shape(x=x), indices=1, axis=0)
        flat = mb.reshape(x=x, shape=mb.concat(values=(1, mb.mul(x=size, y=2)), axis=0))
        return mb.concat(values=(flat, mb.cast(x=mb.fill(shape=[1, 2], value=7), dtype="fp32")), axis=1)

    model = ct.convert(
        mb.program(input_specs=[mb.TensorSpec(shape=(2, mb_symbol()))])(build),
        convert_to="mlprogram",
        inputs=[ct.TensorType("x", shape=(2, ct.RangeDim(1, 9, default=3)))],
        compute_precision=ct.precision.FLOAT32,
        skip_model_load=True,
    )
    runner = session(model, tmp_path)
    for width in (1, 3, 9):
        x = rng(width).standard_normal((2, width)).astype(np.float32)
        (result,) = runner.predict({"x": x}).values()
        np.testing.assert_array_equal(result, np.append(x.ravel(), [7, 7])[None])


def mb_symbol() -> Any:
    from coremltools.converters.mil.mil import get_new_symbol

    return get_new_symbol()


def test_float16_overflows_to_infinity_and_underflows_gradually(tmp_path):
    def build(x):
        return mb.mul(x=x, y=x), mb.mul(x=x, y=0.0009765625)

    x = np.array([300.0, 255.0, 6.1e-4], np.float32)
    model = converted(build, half=True, x=(3,))
    half = x.astype(np.float16)
    with np.errstate(all="ignore"):
        expected = [half * half, half * np.float16(0.0009765625)]
    for result, value in zip(run(model, tmp_path, x=x), expected, strict=True):
        np.testing.assert_array_equal(result, value.astype(np.float32))
    single = list(session(model, tmp_path, profile="float32").predict({"x": x}).values())
    assert np.isfinite(single[0]).all()


def test_random_operators_repeat_with_the_sessions_seed(tmp_path):
    def build(x):
        noise = mb.random_normal(shape=[2000], mean=1.0, stddev=0.5)
        return mb.add(x=noise, y=x), mb.random_uniform(shape=[3], low=0.0, high=1.0, seed=11)

    model, x = converted(build, x=(1,)), np.zeros(1, np.float32)
    runner = session(model, tmp_path, seed=4)
    noise, uniform = runner.predict({"x": x}).values()
    np.testing.assert_allclose([noise.mean(), noise.std()], [1.0, 0.5], atol=0.05)
    np.testing.assert_array_equal(next(iter(runner.predict({"x": x}).values())), noise)
    other, again = session(model, tmp_path, seed=5).predict({"x": x}).values()
    assert (other != noise).any()
    np.testing.assert_array_equal(again, uniform)


def _weighted(seed: int) -> Callable[[Any], Any]:
    weight = rng(seed).standard_normal((32, 64)).astype(np.float32)
    kernel = rng(seed + 1).standard_normal((16, 32, 1, 1)).astype(np.float32)

    def build(x):
        y = mb.linear(x=x, weight=weight, bias=np.zeros(32, np.float32))
        return mb.conv(x=mb.expand_dims(x=mb.transpose(x=y, perm=[0, 2, 1]), axes=[3]), weight=kernel)

    return build


def _quantized(**options: Any) -> Callable[[Any], Any]:
    config = cto.OpLinearQuantizerConfig(weight_threshold=0, **options)
    return lambda model: cto.linear_quantize_weights(model, cto.OptimizationConfig(global_config=config))


def _palettized(**options: Any) -> Callable[[Any], Any]:
    config = cto.OpPalettizerConfig(weight_threshold=0, **options)
    return lambda model: cto.palettize_weights(model, cto.OptimizationConfig(global_config=config))


def _pruned(**options: Any) -> Callable[[Any], Any]:
    config = cto.OpMagnitudePrunerConfig(weight_threshold=0, **options)
    return lambda model: cto.prune_weights(model, cto.OptimizationConfig(global_config=config))


def _joint(first: Callable[[Any], Any], **options: Any) -> Callable[[Any], Any]:
    config = cto.OpPalettizerConfig(weight_threshold=0, **options)

    def change(model: Any) -> Any:
        return cto.palettize_weights(first(model), cto.OptimizationConfig(global_config=config), joint_compression=True)

    return change


COMPRESSIONS = {
    "int8": ("iOS16", _quantized(mode="linear_symmetric")),
    "uint8 per tensor": ("iOS16", _quantized(mode="linear", dtype="uint8", granularity="per_tensor")),
    "palette 6 bits": ("iOS16", _palettized(nbits=6, mode="uniform")),
    "palette 1 bit": ("iOS16", _palettized(nbits=1, mode="uniform")),
    "sparse": ("iOS16", _pruned(target_sparsity=0.6)),
    "int4 blocks": ("iOS18", _quantized(dtype="int4", granularity="per_block", block_size=16)),
    "palette 3 bits by group": (
        "iOS18",
        _palettized(nbits=3, mode="uniform", granularity="per_grouped_channel", group_size=8),
    ),
    "palette with scales": ("iOS18", _palettized(nbits=4, mode="uniform", enable_per_channel_scale=True)),
    "sparse palette": ("iOS18", _joint(_pruned(target_sparsity=0.5), nbits=4, mode="uniform")),
}


@pytest.mark.parametrize("name", COMPRESSIONS)
@pytest.mark.parametrize("half", [True, False])
def test_compressed_weights_are_what_coremltools_decompresses(name, half, tmp_path):
    opset, compress = COMPRESSIONS[name]
    x = rng(9).standard_normal((2, 5, 64)).astype(np.float32)
    compressed = compress(converted(_weighted(7), opset, half=half, x=x.shape))
    kinds = {operation.op_type for operation in compressed._mil_program.functions["main"].operations}
    assert any(kind.startswith("constexpr_") for kind in kinds)
    (result,) = run(compressed, tmp_path, x=x)
    (plain,) = run(cto.decompress_weights(compressed), tmp_path / "plain", x=x)
    np.testing.assert_array_equal(result, plain)


def test_a_classifier_gives_label_and_probabilities(tmp_path):
    class Net(torch.nn.Module):
        def forward(self, x):
            return torch.softmax(x, -1)

    model = ct.convert(
        torch.jit.trace(Net(), torch.zeros(1, 3)),
        inputs=[ct.TensorType("x", (1, 3))],
        classifier_config=ct.ClassifierConfig(["cat", "dog", "eel"]),
        compute_precision=ct.precision.FLOAT32,
        skip_model_load=True,
    )
    label, probabilities = run(model, tmp_path, x=np.array([[0.0, 2.0, 1.0]], np.float32))
    assert label == "dog"
    powers = np.exp([0.0, 2.0, 1.0])
    np.testing.assert_allclose([probabilities[key] for key in ("cat", "dog", "eel")], powers / powers.sum(), rtol=1e-6)
