"""`parity.coreml.load` and `resolve`: what is loaded, what is refused, and that both ways to the runtime agree."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any

import numpy as np
import pytest

from parity import coreml
from parity.coreml import shim
from parity.errors import MissingError, UnsupportedError, UsageError

X = np.array([[-1.0, 0.5, 2.0], [3.0, -4.0, 0.25]], np.float32)
Y = 2 * np.maximum(X, 0) + np.arange(6, dtype=np.float32).reshape(2, 3)


class TestResolve:
    def test_units_share_the_reference_runtime(self):
        found = {coreml.resolve("reference", unit) for unit in coreml.COMPUTE_UNITS}
        assert found == {"reference runtime (declared)"}
        assert coreml.resolve("reference", "ALL", profile="float32") == "reference runtime (float32)"

    def test_auto_is_native_on_macos_only(self, monkeypatch):
        monkeypatch.setattr(sys, "platform", "darwin")
        assert [coreml.resolve("auto", unit) for unit in coreml.COMPUTE_UNITS] == [
            "Core ML CPU_ONLY",
            "Core ML CPU_AND_GPU",
            "Core ML CPU_AND_NE",
            "Core ML ALL",
        ]
        assert coreml.resolve("reference", "ALL") == "reference runtime (declared)"
        monkeypatch.setattr(sys, "platform", "linux")
        assert coreml.resolve("auto", "ALL") == "reference runtime (declared)"
        with pytest.raises(UnsupportedError, match="macOS only, this is linux; use the runtime 'reference'"):
            coreml.resolve("native", "ALL")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"runtime": "fast"}, "unknown Core ML runtime 'fast'; known are auto, native, reference"),
            ({"compute_unit": "GPU"}, "unknown compute unit 'GPU'; known are CPU_ONLY, CPU_AND_GPU, CPU_AND_NE, ALL"),
            ({"profile": "half"}, "unknown numeric profile 'half'; known are declared, float32"),
        ],
    )
    def test_unknown(self, arguments, message):
        with pytest.raises(UsageError, match=message):
            coreml.resolve(**arguments)


class TestLoad:
    def test_predicts_and_describes(self, package):
        model = coreml.load(package, "CPU_AND_NE", runtime="reference")
        assert (model.numerics, model.compute_unit, model.runtime) == (
            "reference runtime (declared)",
            "CPU_AND_NE",
            "reference",
        )
        assert model.inputs == (coreml.Port("x", (2, 3), np.dtype(np.float32)),)
        assert [(f.name, f.dtype) for f in model.outputs] == [("y", np.dtype(np.float32))]
        given = {"x": X.astype(np.float16)}
        np.testing.assert_array_equal(model.predict(given)["y"], Y)
        assert given["x"].dtype == np.float16  # coremltools converts in place; callers do not see it

    def test_both_ways_to_the_reference_runtime_agree(self, package, monkeypatch):
        through_shim = coreml.load(package, runtime="reference").predict({"x": X})
        monkeypatch.setattr(sys, "platform", "darwin")
        direct = coreml.load(package, runtime="reference").predict({"x": X})
        assert through_shim.keys() == direct.keys()
        np.testing.assert_array_equal(through_shim["y"], direct["y"])

    def test_profiles_of_two_models_do_not_mix(self, package):
        models = {p: coreml.load(package, runtime="reference", profile=p) for p in ("float32", "declared")}
        x = np.full((2, 3), 1 / 3, np.float32)
        results = {p: model.predict({"x": x})["y"][0, 0] for p, model in models.items()}
        assert results["declared"] == np.float32(np.float16(np.float16(1 / 3) * 2))
        assert results["float32"] != results["declared"]

    def test_compiled_models(self, ct, package, tmp_path):
        folder = ct.models.utils.compile_model(str(package), str(tmp_path / "small.mlmodelc"))
        model = coreml.load(folder, runtime="reference")
        assert model.inputs == coreml.load(package, runtime="reference").inputs
        np.testing.assert_array_equal(model.predict({"x": X})["y"], Y)

    @pytest.mark.long
    def test_pipelines(self, ct, mb, tmp_path):
        weights = np.full((2, 1, 64), 2, np.float32)  # large enough for a weight file each

        @mb.program(input_specs=[mb.TensorSpec((64,))], opset_version=ct.target.iOS16)
        def first(a):
            return mb.mul(x=a, y=weights, name="b")

        @mb.program(input_specs=[mb.TensorSpec((2, 1, 64)), mb.TensorSpec((1,))], opset_version=ct.target.iOS16)
        def second(b, c):
            return mb.add(x=mb.mul(x=b, y=weights + 1), y=c, name="d")

        parts = [ct.convert(each, minimum_deployment_target=ct.target.iOS16) for each in (first, second)]
        path = tmp_path / "row.mlpackage"
        ct.utils.make_pipeline(*parts).save(str(path))
        model = coreml.load(path, runtime="reference")
        assert [f.name for f in model.inputs] == ["a", "c"]
        assert [f.name for f in model.outputs] == ["d"]
        a = np.arange(64)
        np.testing.assert_array_equal(model.predict({"a": a, "c": [5]})["d"], np.tile(6 * a + 5, (2, 1, 1)))

    def test_states(self, ct, mb, tmp_path):
        @mb.program(
            input_specs=[mb.TensorSpec((2,)), mb.StateTensorSpec((2,), dtype=ct.converters.mil.mil.types.fp16)],
            opset_version=ct.target.iOS18,
        )
        def program(x, memory):
            total = mb.add(x=mb.read_state(input=memory), y=mb.cast(x=x, dtype="fp16"))
            return mb.coreml_update_state(state=memory, value=total, name="y")

        path = tmp_path / "stateful.mlpackage"
        ct.convert(program, minimum_deployment_target=ct.target.iOS18, skip_model_load=True).save(str(path))
        model = coreml.load(path, runtime="reference")
        assert [f.name for f in model.states] == ["memory"]
        state = model.make_state()
        for step in (1, 2, 3):
            (y,) = model.predict({"x": [1, 10]}, state=state).values()
            np.testing.assert_array_equal(y, [step, 10 * step])
        with pytest.raises(UsageError, match="model has states"):
            model.predict({"x": [1, 10]})


class TestRefusals:
    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            ({}, "Feature x is required"),
            ({"x": X, "z": X}, "no input 'z'; the inputs are x"),
            ({"x": X[:1]}, r"\(1 x 3\) does not match the shape \(2 x 3\)"),
            ({"x": "text"}, "Unsupported array type"),
            ({"x": X + 1j}, "Unsupported array type"),
        ],
    )
    def test_inputs(self, package, inputs, message):
        with pytest.raises(UsageError, match=message) as caught:
            coreml.load(package, runtime="reference").predict(inputs)
        assert str(package) in str(caught.value)

    def test_no_states(self, package):
        with pytest.raises(UsageError, match="no states"):
            coreml.load(package, runtime="reference").make_state()

    def test_no_such_file(self, tmp_path):
        with pytest.raises(MissingError, match=r"none\.mlpackage: no such model"):
            coreml.load(tmp_path / "none.mlpackage")

    def test_no_such_function(self, package):
        with pytest.raises(UsageError, match="no function 'other'; it has main"):
            coreml.load(package, runtime="reference", function="other")

    def test_native_away_from_macos(self, package, monkeypatch):
        monkeypatch.setattr(sys, "platform", "linux")
        with pytest.raises(UnsupportedError, match="macOS only"):
            coreml.load(package, runtime="native")

    def test_neural_networks(self, ct, mb, tmp_path):
        @mb.program(input_specs=[mb.TensorSpec((2,))])
        def program(x):
            return mb.relu(x=x, name="y")

        path = tmp_path / "old.mlmodel"
        ct.convert(program, convert_to="neuralnetwork", skip_model_load=True).save(str(path))
        with pytest.raises(UnsupportedError, match="kind neuralNetwork"):
            coreml.load(path, runtime="reference")

    def test_unknown_operator(self, ct, package, tmp_path):
        copy = shutil.copytree(package, tmp_path / "future.mlpackage")
        spec = ct.utils.load_spec(str(copy))
        (block,) = spec.mlProgram.functions["main"].block_specializations.values()
        next(op for op in block.operations if op.type == "relu").type = "warp"
        (copy / "Data/com.apple.CoreML/model.mlmodel").write_bytes(spec.SerializeToString())
        with pytest.raises(UnsupportedError, match="warp"):
            coreml.load(copy, runtime="reference")


def test_the_native_path_asks_coremltools_for_the_unit(ct, package, monkeypatch):
    """On a Mac: a package is compiled once, then CompiledMLModel(path, unit, None). Here over the stand-in's class."""
    asked = []
    original: Any = ct.models._compiled_model._MLModelProxy

    class Spy(original):
        def __init__(self, path, unit, *rest):
            asked.append(unit)
            super().__init__(path, unit, *rest)

    monkeypatch.setattr(ct.models._compiled_model, "_MLModelProxy", Spy)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert shim.installed()
    model = coreml.load(package, "CPU_AND_NE", runtime="native")
    assert (asked, model.numerics) == (["CPU_AND_NE"], "Core ML CPU_AND_NE")
    np.testing.assert_array_equal(model.predict({"x": X})["y"], Y)


def test_on_a_mac_a_package_is_compiled_once_and_kept(ct, package, monkeypatch, tmp_path):
    """The framework's compiler is the stand-in's here; what is kept is loaded the second time, and gives the same."""
    made = []
    proxy: Any = ct.models.model._MLModelProxy
    compile_it = ct.models.utils.compile_model

    def counted(model, *rest):
        made.append(model)
        return compile_it(model, *rest)

    monkeypatch.setenv("PARITY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ct.models.utils, "compile_model", counted)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert proxy is not None
    copy = tmp_path / "model.mlpackage"
    shutil.copytree(package, copy)
    for _ in range(2):
        np.testing.assert_array_equal(coreml.load(copy, "CPU_AND_NE", runtime="native").predict({"x": X})["y"], Y)
    assert len(made) == 1
    assert [path.name for path in (tmp_path / "cache" / "compiled").glob("model-*/*")] == ["model.mlmodelc"]
    weights = next(copy.rglob("*.mlmodel"))
    os.utime(weights, (1, 1))  # another file under the same name
    coreml.load(copy, "CPU_AND_NE", runtime="native")
    assert len(made) == 2


def test_a_package_that_cannot_be_compiled_is_loaded_as_it_is(ct, package, monkeypatch, tmp_path):
    def refuse(model, *rest):
        raise RuntimeError("no")

    monkeypatch.setenv("PARITY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ct.models.utils, "compile_model", refuse)
    monkeypatch.setattr(sys, "platform", "darwin")
    np.testing.assert_array_equal(coreml.load(package, runtime="native").predict({"x": X})["y"], Y)
    assert not list((tmp_path / "cache" / "compiled").glob("*/*"))
