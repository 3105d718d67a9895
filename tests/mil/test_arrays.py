"""What enters and leaves a program: images, optional and flexible inputs, several functions, dtypes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from parity import mil
from parity.errors import UsageError
from parity.mil import arrays, proto
from parity.mil.rounding import rounder


class Sum(torch.nn.Module):
    """Weights the channels so that their order shows."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map (1, 3, 4, 5) to (1, 4, 5)."""
        return image[:, 0] + 2 * image[:, 1] + 3 * image[:, 2]


@pytest.mark.parametrize("color", ["RGB", "BGR"])
def test_images_in_declared_colour_order(ct: Any, convert: Any, color: str) -> None:
    path = convert(
        Sum(),
        (torch.zeros(1, 3, 4, 5),),
        inputs=[ct.ImageType(name="image", shape=(1, 3, 4, 5), color_layout=color, scale=0.5, bias=[1, 0, 0])],
        compute_precision=ct.precision.FLOAT32,
    )
    session = mil.Session(mil.load(path))
    assert str(session.function.inputs[0]) == f"image: image {color.lower()} 4×5"
    pixels = np.random.default_rng(1).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    order = pixels if color == "RGB" else pixels[..., ::-1]
    expected = (order.astype(np.float32) * 0.5 + [1, 0, 0]) @ [1, 2, 3]
    for given_image in (Image.fromarray(pixels), pixels):
        (output,) = session.predict({"image": given_image}).values()
        np.testing.assert_allclose(output[0], expected, rtol=1e-6)
    with pytest.raises(UsageError, match=r"shape \[5, 5\] is not allowed"):
        session.predict({"image": np.zeros((5, 5, 3), np.uint8)})
    with pytest.raises(UsageError, match="height × width × 3"):
        session.predict({"image": np.zeros((4, 5), np.uint8)})


def test_grayscale_images(ct: Any, convert: Any) -> None:
    path = convert(
        torch.nn.ReLU(),
        (torch.zeros(1, 1, 2, 3),),
        inputs=[ct.ImageType(name="image", shape=(1, 1, 2, 3), color_layout=ct.colorlayout.GRAYSCALE)],
        compute_precision=ct.precision.FLOAT32,
    )
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    (output,) = mil.Session(mil.load(path)).predict({"image": Image.fromarray(pixels)}).values()
    np.testing.assert_array_equal(output[0, 0], pixels)


def test_flexible_shapes_run_and_are_bounded(ct: Any, convert: Any) -> None:
    module = torch.nn.Sequential(torch.nn.Conv1d(2, 3, 3, padding=1), torch.nn.Softmax(-1)).eval()
    torch.manual_seed(2)
    path = convert(
        module,
        (torch.zeros(1, 2, 8),),
        inputs=[ct.TensorType(name="x", shape=(1, 2, ct.RangeDim(4, 9, default=8)), dtype=np.float32)],
    )
    session = mil.Session(mil.load(path), "float32")
    assert session.function.inputs[0].flexible
    for length in (4, 8, 9, 4):
        x = np.random.default_rng(length).standard_normal((1, 2, length)).astype(np.float32)
        (output,) = session.predict({"x": x}).values()
        with torch.no_grad():
            np.testing.assert_allclose(output, module(torch.from_numpy(x)).numpy(), rtol=2e-3, atol=1e-5)
    with pytest.raises(UsageError, match=r"shape \[1, 2, 10\] is not allowed"):
        session.predict({"x": np.zeros((1, 2, 10))})


def test_optional_inputs_take_their_default(convert: Any) -> None:
    class Two(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return a * b

    model = mil.load(convert(Two(), (torch.zeros(3), torch.zeros(3))))
    specification = proto.model.Model()
    specification.CopyFrom(model.specification)
    feature = specification.description.input[1]
    feature.type.isOptional = True
    feature.type.multiArrayType.floatDefaultValue = 2.5
    session = mil.Session(mil.Model(model.path, specification, model.weights))
    (output,) = session.predict({"x0": [1, 2, 3]}).values()
    np.testing.assert_array_equal(output, [2.5, 5, 7.5])
    (output,) = session.predict({"x0": [1, 2, 3], "x1": [1, 1, 1]}).values()
    np.testing.assert_array_equal(output, [1, 2, 3])


@pytest.mark.long
def test_functions_are_chosen_by_name(ct: Any, convert: Any, tmp_path: Path) -> None:
    torch.manual_seed(6)
    modules = {name: torch.nn.Linear(64, 64).eval() for name in ("encode", "decode")}
    descriptor = ct.utils.MultiFunctionDescriptor()
    for name, module in modules.items():
        path = convert(module, (torch.zeros(1, 64),), minimum_deployment_target=ct.target.iOS18)
        descriptor.add_function(str(path), src_function_name="main", target_function_name=name)
    descriptor.default_function_name = "decode"
    ct.utils.save_multifunction(descriptor, str(tmp_path / "both.mlpackage"))
    model = mil.load(tmp_path / "both.mlpackage")
    assert set(model.functions) == set(modules)
    x = np.random.default_rng(0).standard_normal((1, 64)).astype(np.float32)
    outputs = {}
    for name, module in modules.items():
        (outputs[name],) = mil.Session(model, "float32", function=name).predict({"x0": x}).values()
        with torch.no_grad():
            np.testing.assert_allclose(outputs[name], module(torch.from_numpy(x)).numpy(), atol=5e-3)
    (default,) = mil.Session(model, "float32").predict({"x0": x}).values()
    np.testing.assert_array_equal(default, outputs["decode"])


def test_integers_convert_only_without_loss() -> None:
    accepted = arrays.to_torch(np.array([1.0, -2.0]), "int32", "x", rounded=True)
    assert accepted.dtype == torch.int32
    for values, message in (([0.5], "not whole"), ([np.nan], "not whole"), ([2**31], "do not fit int32")):
        with pytest.raises(UsageError, match=message):
            arrays.to_torch(np.array(values), "int32", "x", rounded=True)
    with pytest.raises(UsageError, match="do not fit uint8"):
        arrays.to_torch(np.array([-1]), "uint8", "x", rounded=True)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    shape=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    order=st.randoms(use_true_random=False),
    scale=st.sampled_from([1e-7, 1e-3, 1.0, 1e4, 1e6]),
)
def test_rounding_in_place_is_ieee_float16(seed: int, shape: list[int], order: Any, scale: float) -> None:
    x = torch.from_numpy((np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32))
    axes = list(range(len(shape)))
    order.shuffle(axes)
    x = x.permute(axes)
    with np.errstate(over="ignore"):
        expected = x.numpy().astype(np.float16).astype(np.float32)
    for in_place in (False, True):
        apply = rounder("fp16", in_place=in_place)
        assert apply is not None
        np.testing.assert_array_equal(apply(x.clone()).numpy(), expected)


@pytest.mark.parametrize("view", [lambda x: x, lambda x: x.mT, lambda x: x[:, ::2], lambda x: x[:, :1].expand(-1, 400)])
def test_rounding_large_views(view: Any) -> None:
    x = view(torch.from_numpy(np.random.default_rng(5).standard_normal((1500, 400)).astype(np.float32)))
    apply = rounder("fp16", in_place=True)
    assert apply is not None
    expected = x.half().float()
    torch.testing.assert_close(apply(x), expected, rtol=0, atol=0)
