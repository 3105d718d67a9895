"""Unmodified coremltools code over the stand-in: loading, predicting, states, functions, images, compiled models."""

from __future__ import annotations

import asyncio
import gc
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

X = np.array([[-1.0, 0.5, 2.0], [3.0, -4.0, 0.25]], np.float32)
Y = 2 * np.maximum(X, 0) + np.arange(6, dtype=np.float32).reshape(2, 3)


def convert(ct, program, **options):
    return ct.convert(program, **{"minimum_deployment_target": ct.target.iOS16, **options})


class TestPrediction:
    def test_of_a_package(self, ct, package):
        (y,) = ct.models.MLModel(str(package)).predict({"x": X}).values()
        np.testing.assert_array_equal(y, Y)
        assert y.dtype == np.float32

    def test_of_a_batch(self, ct, package):
        results = ct.models.MLModel(str(package)).predict([{"x": X}, {"x": X + 1}])
        np.testing.assert_array_equal(results[0]["y"], Y)
        assert results[1]["y"][0, 0] == 0  # relu(-1 + 1)

    @pytest.mark.parametrize("unit", ["CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE", "ALL"])
    def test_on_every_unit(self, ct, package, unit):
        model = ct.models.MLModel(str(package), compute_units=ct.ComputeUnit[unit])
        np.testing.assert_array_equal(model.predict({"x": X})["y"], Y)

    @pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32, np.int64, np.bool_])
    def test_converts_the_input(self, ct, package, dtype):
        x = np.array([[0, 1, 1], [1, 0, 1]], dtype)
        y = ct.models.MLModel(str(package)).predict({"x": x})["y"]
        np.testing.assert_array_equal(y, 2 * x.astype(np.float32) + np.arange(6).reshape(2, 3))

    def test_accepts_lists_and_tensors(self, ct, package):
        import torch

        model = ct.models.MLModel(str(package))
        np.testing.assert_array_equal(model.predict({"x": X.tolist()})["y"], Y)
        np.testing.assert_array_equal(model.predict({"x": torch.from_numpy(X)})["y"], Y)

    @settings(max_examples=20, deadline=None)
    @given(hnp.arrays(np.float32, (2, 3), elements=st.floats(-1000, 1000, width=16)))
    def test_equals_numpy_in_float16(self, ct, package, x):
        y = ct.models.MLModel(str(package)).predict({"x": x})["y"]
        doubled = (np.maximum(x, 0) * 2).astype(np.float16).astype(np.float32)
        expected = (doubled + np.arange(6, dtype=np.float32).reshape(2, 3)).astype(np.float16)
        np.testing.assert_array_equal(y, expected.astype(np.float32))

    def test_float16_outputs_arrive_as_float32_and_scalars_with_one_element(self, ct, mb):
        @mb.program(input_specs=[mb.TensorSpec((3,))], opset_version=ct.target.iOS16)
        def program(x):
            return mb.reduce_sum(x=x, axes=[0], keep_dims=False, name="total")

        model = convert(ct, program, outputs=[ct.TensorType(dtype=np.float16)])
        total = model.predict({"x": np.array([1.0, 2.0, 4.0])})["total"]
        assert (total.dtype, total.shape, total[0]) == (np.float32, (1,), 7.0)

    def test_durations_are_measured(self, ct, package):
        model = ct.models.MLModel(str(package))
        assert model.load_duration_in_nano_seconds > 0
        assert model.last_predict_duration_in_nano_seconds is None
        model.predict({"x": X})
        assert (model.last_predict_duration_in_nano_seconds or 0) > 0


class TestRefusals:
    """Error types and wording as on macOS: coremltools' own checks, then RuntimeError from the framework."""

    def test_missing_input(self, ct, package):
        with pytest.raises(RuntimeError, match="Feature x is required but not specified"):
            ct.models.MLModel(str(package)).predict({})

    def test_unknown_input(self, ct, package):
        with pytest.raises(KeyError, match="does not match any of the model input name"):
            ct.models.MLModel(str(package)).predict({"x": X, "z": X})

    def test_wrong_shape(self, ct, package):
        with pytest.raises(RuntimeError, match=r"Shape \(3 x 2\) does not match the shape \(2 x 3\)"):
            ct.models.MLModel(str(package)).predict({"x": X.T})

    def test_wrong_type(self, ct, package):
        with pytest.raises(RuntimeError, match="Unsupported array type"):
            ct.models.MLModel(str(package)).predict({"x": np.full((2, 3), "a")})

    def test_no_dictionary(self, ct, package):
        with pytest.raises(TypeError, match="must be either a dict or list of dict"):
            ct.models.MLModel(str(package)).predict(X)

    @pytest.mark.long
    def test_ranges_and_enumerations(self, ct, mb):
        from coremltools.converters.mil.mil import get_new_symbol

        def program():
            @mb.program(input_specs=[mb.TensorSpec((1, get_new_symbol()))], opset_version=ct.target.iOS16)
            def body(x):
                return mb.add(x=x, y=1.0, name="y")

            return body

        ranged = convert(ct, program(), inputs=[ct.TensorType("x", (1, ct.RangeDim(3, 5)))])
        assert ranged.predict({"x": np.zeros((1, 4))})["y"].shape == (1, 4)
        with pytest.raises(RuntimeError, match=r"Size \(6\) of dimension \(1\) is not in allowed range \(3\.\.5\)"):
            ranged.predict({"x": np.zeros((1, 6))})
        listed = convert(ct, program(), inputs=[ct.TensorType("x", ct.EnumeratedShapes([[1, 3], [1, 7]]))])
        assert listed.predict({"x": np.zeros((1, 7))})["y"].shape == (1, 7)
        with pytest.raises(RuntimeError, match=r"Shape \(1 x 4\) was not in enumerated set of allowed shapes"):
            listed.predict({"x": np.zeros((1, 4))})

    def test_unknown_function(self, ct, package):
        with pytest.raises(RuntimeError, match="no function 'other'"):
            ct.models.CompiledMLModel(ct.models.utils.compile_model(str(package)), function_name="other")

    def test_other_model_kinds(self, ct):
        spec = ct.proto.Model_pb2.Model(specificationVersion=1)
        spec.glmRegressor.offset.append(0.5)
        with pytest.raises(RuntimeError, match="kind glmRegressor"):
            ct.models.utils.compile_model(spec)


class TestFiles:
    def test_a_deleted_package_still_predicts(self, ct, package, tmp_path):
        copy = shutil.copytree(package, tmp_path / "copy.mlpackage")
        model = ct.models.MLModel(str(copy))
        shutil.rmtree(copy)
        np.testing.assert_array_equal(model.predict({"x": X})["y"], Y)

    def test_compiled_models(self, ct, package, tmp_path):
        folder = ct.models.utils.compile_model(str(package), str(tmp_path / "small.mlmodelc"))
        model = ct.models.CompiledMLModel(folder)
        np.testing.assert_array_equal(model.predict({"x": X})["y"], Y)
        np.testing.assert_array_equal(model.predict([{"x": X}])[0]["y"], Y)

    def test_the_compiled_folder_lives_as_long_as_its_model(self, ct, package):
        model = ct.models.MLModel(str(package))
        folder = Path(model.get_compiled_model_path())
        assert folder.is_dir()
        del model
        gc.collect()
        assert not folder.exists()

    def test_assets(self, ct, package):
        spec = ct.models.MLModel(str(package), skip_model_load=True).get_spec()
        weights = package / "Data/com.apple.CoreML/weights/weight.bin"
        blobs = {"weights/weight.bin": weights.read_bytes()} if weights.exists() else {}
        asset = ct.models.model.MLModelAsset.from_memory(spec.SerializeToString(), blobs)
        model = ct.models.CompiledMLModel.from_asset(asset)
        np.testing.assert_array_equal(model.predict({"x": X})["y"], Y)
        folder = ct.models.utils.compile_model(str(package))
        model = ct.models.CompiledMLModel.from_asset(ct.models.model.MLModelAsset.from_path(folder))
        np.testing.assert_array_equal(model.predict({"x": X})["y"], Y)
        shutil.rmtree(folder)
        with pytest.raises(RuntimeError, match="no Core ML model"):
            ct.models.model.MLModelAsset.from_memory(b"\xff\xff\xff", {})

    def test_a_damaged_package_warns_and_cannot_predict(self, ct, package, tmp_path):
        copy = shutil.copytree(package, tmp_path / "damaged.mlpackage")
        specification = copy / "Data/com.apple.CoreML/model.mlmodel"
        spec = ct.utils.load_spec(str(copy))
        (block,) = spec.mlProgram.functions["main"].block_specializations.values()
        next(op for op in block.operations if op.type == "relu").type = "no_such_operator"
        specification.write_bytes(spec.SerializeToString())
        with pytest.warns(RuntimeWarning, match="no_such_operator"):
            model = ct.models.MLModel(str(copy))
        with pytest.raises(RuntimeError, match="no_such_operator"):
            model.predict({"x": X})


@pytest.fixture(scope="module")
def accumulator(ct):
    import torch

    class Accumulator(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", torch.zeros(3))

        def forward(self, x):
            self.total += x
            return self.total * 1

    traced = torch.jit.trace(Accumulator().eval(), torch.ones(3))
    return ct.convert(
        traced,
        inputs=[ct.TensorType("x", (3,))],
        outputs=[ct.TensorType("y")],
        states=[ct.StateType(ct.TensorType(shape=(3,), dtype=np.float16), name="total")],
        minimum_deployment_target=ct.target.iOS18,
    )


class TestStates:
    def test_accumulate_and_stay_apart(self, accumulator):
        first, second = accumulator.make_state(), accumulator.make_state()
        x = np.array([1.0, 2.0, 3.0])
        accumulator.predict({"x": x}, first)
        np.testing.assert_array_equal(accumulator.predict({"x": x}, first)["y"], 2 * x)
        np.testing.assert_array_equal(accumulator.predict({"x": x}, second)["y"], x)

    def test_are_read_and_written(self, accumulator):
        state = self.readable(accumulator.make_state())
        state.write_state("total", np.array([1, 2, 3], np.float32))
        accumulator.predict({"x": np.ones(3)}, state)
        total = state.read_state("total")
        assert total.dtype == np.float32
        np.testing.assert_array_equal(total, [2, 3, 4])

    @staticmethod
    def readable(state):
        if not hasattr(state, "read_state"):
            pytest.skip("coremltools 9 reads and writes an MLState; this one is older")
        return state

    def test_a_model_with_states_needs_one(self, accumulator):
        with pytest.raises(RuntimeError, match="must be an MLState"):
            accumulator.predict({"x": np.ones(3)})

    def test_refusals(self, accumulator):
        state = self.readable(accumulator.make_state())
        with pytest.raises(RuntimeError, match="Invalid state name 'nothing'"):
            state.read_state("nothing")
        with pytest.raises(RuntimeError, match="does not match the shape"):
            state.write_state("total", np.ones(4))


class TestImages:
    @staticmethod
    def negative(ct, layout, *, size=(4, 6), outputs=None):
        """Return a model: 255 minus the image."""
        import torch

        class Negative(torch.nn.Module):
            def forward(self, image):
                return 255.0 - image

        color = getattr(ct.colorlayout, layout)
        shape = (1, 3 if layout in ("RGB", "BGR") else 1, *size)
        return ct.convert(
            torch.jit.trace(Negative().eval(), torch.zeros(shape)),
            inputs=[ct.ImageType("image", shape, color_layout=color)],
            outputs=outputs or [ct.ImageType("negative", color_layout=color)],
            minimum_deployment_target=ct.target.iOS16,
        )

    @pytest.mark.parametrize(
        ("layout", "mode"), [("RGB", "RGBA"), ("BGR", "RGBA"), ("GRAYSCALE", "L"), ("GRAYSCALE_FLOAT16", "F")]
    )
    def test_pass_through_a_program(self, ct, layout, mode):
        generator = np.random.default_rng(7)
        pixels = generator.integers(0, 256, (4, 6, 3) if mode == "RGBA" else (4, 6), np.uint8)
        image = Image.fromarray(pixels.astype(np.float32) if mode == "F" else pixels)
        negative = self.negative(ct, layout).predict({"image": image})["negative"]
        assert negative.mode == mode
        got = np.asarray(negative)
        if mode == "RGBA":
            assert (got[..., 3] == 255).all()
            got = got[..., :3]
        np.testing.assert_array_equal(got, 255 - np.asarray(image))

    @pytest.mark.parametrize(("layout", "order"), [("RGB", [55, 255, 245]), ("BGR", [245, 255, 55])])
    def test_channel_order(self, ct, layout, order):
        model = self.negative(ct, layout, outputs=[ct.TensorType("pixels")])
        tensor = model.predict({"image": Image.new("RGB", (6, 4), (200, 0, 10))})["pixels"]
        np.testing.assert_array_equal(tensor[0, :, 0, 0], order)

    def test_refusals(self, ct):
        model = self.negative(ct, "RGB")
        with pytest.raises(RuntimeError, match=r"Image size \(4 x 5\)"):
            model.predict({"image": Image.new("RGB", (5, 4))})
        with pytest.raises(TypeError, match="mode=='RGB'"):
            model.predict({"image": Image.new("L", (6, 4))})


@pytest.mark.parametrize("labels", [["cat", "dog", "fox"], [7, 8, 9]])
def test_classifiers_give_a_label_and_a_probability_for_each(ct, labels):
    import torch

    traced = torch.jit.trace(torch.nn.Softmax(dim=-1).eval(), torch.zeros(1, 3))
    model = ct.convert(
        traced,
        inputs=[ct.TensorType("x", (1, 3))],
        classifier_config=ct.ClassifierConfig(labels),
        minimum_deployment_target=ct.target.iOS16,
        compute_precision=ct.precision.FLOAT32,
    )
    label, probabilities = model.predict({"x": np.array([[0.0, 2.0, 1.0]])}).values()
    assert label == labels[1]
    assert type(label) is type(labels[0])
    assert list(probabilities) == labels
    assert sum(probabilities.values()) == pytest.approx(1)


def test_functions(ct, mb, tmp_path):
    from coremltools.converters.mil import mil

    program = mil.Program()
    for name, factor in (("twice", 2.0), ("thrice", 3.0)):

        @mb.function(input_specs=[mb.TensorSpec((2,))], opset_version=ct.target.iOS18)
        def function(x):
            return mb.mul(x=x, y=factor, name="y")  # noqa: B023  (called at once)

        program.add_function(name, function)
    program.default_function_name = "thrice"
    program.export_as_multifunction = True
    path = str(tmp_path / "functions.mlpackage")
    ct.convert(program, minimum_deployment_target=ct.target.iOS18, skip_model_load=True).save(path)
    x = np.array([1.0, 2.0])
    for chosen, factor in ((None, 3), ("twice", 2), ("thrice", 3)):
        (y,) = ct.models.MLModel(path, function_name=chosen).predict({"x": x}).values()
        np.testing.assert_array_equal(y, factor * x)


class TestPlans:
    def test_structure_and_plan(self, ct, package):
        from coremltools.models.compute_device import MLCPUComputeDevice
        from coremltools.models.compute_plan import MLComputePlan

        model = ct.models.MLModel(str(package))
        plan = MLComputePlan.load_from_path(model.get_compiled_model_path())
        block = plan.model_structure.program.functions["main"].block
        operation = next(each for each in block.operations if each.operator_name == "relu")
        assert block.output_names == ["y"]
        (binding,) = operation.inputs["x"].bindings
        assert binding.name in {value.name for each in block.operations for value in each.outputs}
        usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
        assert isinstance(usage.preferred_compute_device, MLCPUComputeDevice)
        assert usage.supported_compute_devices == [usage.preferred_compute_device]
        costs = [plan.get_estimated_cost_for_mlprogram_operation(each).weight for each in block.operations]
        assert sum(costs) == pytest.approx(1)
        assert all(
            cost > 0 or each.operator_name == "const" for cost, each in zip(costs, block.operations, strict=True)
        )

    def test_devices(self, ct):
        (device,) = ct.models.MLModel.get_available_compute_devices()
        assert type(device).__name__ == "MLCPUComputeDevice"

    def test_no_such_model(self, ct, tmp_path):
        from coremltools.models.compute_plan import MLModelStructure

        with pytest.raises(RuntimeError, match="no such model"):
            MLModelStructure.load_from_path(str(tmp_path / "none.mlmodelc"))


class TestExperimental:
    def test_inspector_reads_intermediate_values(self, ct, package):
        from coremltools.models.ml_program.experimental.debugging_utils import MLModelInspector

        async def inspect():
            inspector = MLModelInspector(ct.models.MLModel(str(package)))
            names = [name for name in inspector.output_names if "rectified" in name]
            return {name: value async for name, value in inspector.inspect({"x": X}, names)}

        values = asyncio.run(inspect())
        np.testing.assert_array_equal(next(iter(values.values())), np.maximum(X, 0))

    @pytest.mark.long
    def test_comparator_finds_a_planted_defect(self, ct, package, tmp_path):
        from coremltools.models.ml_program.experimental.debugging_utils import MLModelComparator

        copy = shutil.copytree(package, tmp_path / "planted.mlpackage")
        spec = ct.utils.load_spec(str(copy))
        (block,) = spec.mlProgram.functions["main"].block_specializations.values()
        operation = next(op for op in block.operations if op.type == "relu")
        operation.type = "abs"
        (copy / "Data/com.apple.CoreML/model.mlmodel").write_bytes(spec.SerializeToString())

        async def compare():
            comparator = MLModelComparator(ct.models.MLModel(str(package)), ct.models.MLModel(str(copy)))
            return await comparator.find_failing_ops({"x": X}, lambda _, *values: np.array_equal(*values))

        found = asyncio.run(compare())
        assert [op.type for op in found] == ["relu"]

    def test_benchmarker_measures(self, ct, package):
        from coremltools.models.ml_program.experimental.perf_utils import MLModelBenchmarker

        benchmarker = MLModelBenchmarker(ct.models.MLModel(str(package)))
        measurement = asyncio.run(benchmarker.benchmark_predict({"x": X}, iterations=3))
        assert len(measurement.samples) == 3
        assert measurement.statistics.minimum > 0
