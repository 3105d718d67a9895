"""What descriptions leave out or garble is taken from the program, and contradictions are named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from parity import coreml, mil
from parity.errors import UsageError
from parity.mil import proto
from tests.samples import sample


@pytest.fixture
def edit(small: Path, tmp_path: Path):
    """Return a function that writes the small model with a changed description and loads it."""

    def change(function) -> mil.Model:
        model = mil.load(small)
        specification = proto.model.Model()
        specification.CopyFrom(model.specification)
        function(specification.description)
        return mil.load(mil.save(specification, model.weights, tmp_path / "changed.mlpackage"))

    return change


def test_outputs_without_a_shape_take_the_programs(small: Path, edit) -> None:
    whole = mil.load(small)
    changed = edit(lambda description: [item.type.multiArrayType.ClearField("shape") for item in description.output])
    assert not changed.specification.description.output[0].type.multiArrayType.shape
    assert changed.outputs == whole.outputs
    assert changed.contradictions == ()


def test_inputs_without_a_shape_take_the_programs(small: Path, edit) -> None:
    changed = edit(lambda description: [item.type.multiArrayType.ClearField("shape") for item in description.input])
    assert changed.inputs == mil.load(small).inputs


def test_the_program_counts_where_shapes_contradict(small: Path, edit) -> None:
    def garble(description) -> None:
        description.output[0].type.multiArrayType.shape[0] += 1

    changed = edit(garble)
    assert changed.outputs == mil.load(small).outputs
    (text,) = changed.contradictions
    name, shape = changed.outputs[0].name, changed.outputs[0].shape
    assert text.startswith(f"output {name!r} is {shape[0] + 1}×")
    assert text.endswith(f"{'×'.join(map(str, shape))} in the program")


def test_the_program_counts_where_dtypes_contradict(small: Path, edit) -> None:
    def garble(description) -> None:
        array = description.input[0].type.multiArrayType
        array.dataType = array.FLOAT16

    changed = edit(garble)
    assert changed.inputs == mil.load(small).inputs
    assert changed.contradictions == (
        f"input {changed.inputs[0].name!r} is fp16 in the description and fp32 in the program",
    )


def test_names_that_only_one_side_has_are_told(small: Path, edit) -> None:
    def rename(description) -> None:
        description.output[0].name = "elsewhere"

    changed = edit(rename)
    assert [f.name for f in changed.outputs] == [f.name for f in mil.load(small).outputs]
    assert changed.contradictions == (
        "the description has output 'elsewhere', the program has none of that name",
        f"the program has output {changed.outputs[0].name!r}, the description has none of that name",
    )


def test_described_ranges_stay(small: Path, edit) -> None:
    """A description that allows more than its default shape is not one that contradicts an open program."""

    def widen(description) -> None:
        array = description.input[0].type.multiArrayType
        for size in array.shape:
            array.shapeRange.sizeRanges.add(lowerBound=size, upperBound=size)

    changed = edit(widen)
    assert changed.contradictions == ()
    assert [(r.lower, r.upper) for r in changed.inputs[0].ranges] == [(s, s) for s in changed.inputs[0].shape]


TEXT = """program(1.0)
[buildInfo = dict<tensor<string, []>, tensor<string, []>>({{{{"coremlc-version", "1"}}}})]
{{
    func main<ios17>(tensor<fp32, [1, ?]> x, tensor<fp32, [1, 1]> w) [FlexibleShapeInformation = {attribute}] {{
            tensor<fp32, [1, ?]> y = mul(x = x, y = w)[name = tensor<string, []>("op")];
        }} -> (y);
}}
"""
_SHAPE = "dict<tensor<string, []>, tensor<int32, [?]>>"
RANGES = (
    f"tuple<tuple<tensor<string, []>, {_SHAPE}>, "
    "tuple<tensor<string, []>, dict<tensor<string, []>, list<tensor<int32, [2]>, ?>>>>"
    '((("DefaultShapes", {{"x", [1, 12]}}), ("RangeDims", {{"x", [[1, 1], [2, 40]]}})))'
)
ENUMERATED = (
    f"tuple<tuple<tensor<string, []>, {_SHAPE}>, tuple<tensor<string, []>, dict<tensor<string, []>, {_SHAPE}>>>"
    '((("DefaultShapes", {{"x", [1, 12]}}), '
    '("EnumeratedShapes", {{"a", {{"x", [1, 12]}}}, {"b", {{"x", [1, 24]}}}})))'
)


@pytest.mark.parametrize(
    ("attribute", "good", "bad"), [(RANGES, (2, 12, 40), (1, 41)), (ENUMERATED, (12, 24), (11, 40))]
)
def test_flexible_shapes_of_a_compiled_model_without_metadata(
    attribute: str, good: tuple[int, ...], bad: tuple[int, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "m.mlmodelc"
    folder.mkdir()
    (folder / "model.mil").write_text(TEXT.format(attribute=attribute))
    model = mil.load(folder)
    assert model.inputs[0].shape == (1, 12)
    assert model.inputs[0].flexible
    assert model.outputs[0].flexible
    session = mil.Session(model)
    for size in good:
        given = {"x": np.ones((1, size)), "w": np.full((1, 1), 2.0)}
        np.testing.assert_array_equal(session.predict(given)["y"], np.full((1, size), 2.0))
    for size in bad:
        with pytest.raises(UsageError, match="not allowed"):
            session.predict({"x": np.ones((1, size)), "w": np.ones((1, 1))})


def test_garbled_flexible_shapes_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "m.mlmodelc"
    folder.mkdir()
    (folder / "model.mil").write_text(TEXT.format(attribute=RANGES.replace('"x"', '"z"')))
    with pytest.raises(ValueError, match="FlexibleShapeInformation"):
        mil.load(folder)


@pytest.mark.parametrize("metadata", [True, False])
def test_a_real_compiled_model_with_ranges(metadata: bool, tmp_path: Path) -> None:
    folder = tmp_path / "flex.mlmodelc"
    shutil.copytree(sample("odd/flex17.mlmodelc"), folder, copy_function=shutil.copyfile)
    if not metadata:
        (folder / "metadata.json").unlink()
    model = mil.load(folder)
    assert str(model.inputs[0]) == "F0_curve: array fp32 1×2..4000"
    assert model.inputs[0].shape == (1, 266)
    assert str(model.outputs[0]) == "y: array fp32 1×1.."


def test_the_profile_float32_rounds_neither_inputs_nor_outputs(tmp_path: Path) -> None:
    folder = tmp_path / "m.mlmodelc"
    folder.mkdir()
    (folder / "model.mil").write_text(
        "program(1.0)\n{\n    func main<ios16>(tensor<fp16, [2]> x) {\n"
        '            tensor<fp16, []> h = const()[name = tensor<string, []>("h"), val = tensor<fp16, []>(0x1p-1)];\n'
        '            tensor<fp16, [2]> y = mul(x = x, y = h)[name = tensor<string, []>("y")];\n        } -> (y);\n}\n'
    )
    x = np.array([0.1000123, 1e5], np.float32)  # the first is no float16, the second is beyond its range
    results = {profile: coreml.load(folder, profile=profile).predict({"x": x})["y"] for profile in mil.PROFILES[:2]}
    np.testing.assert_array_equal(results["float32"], x / 2)
    assert results["declared"][0] == np.float32(np.float16(np.float32(np.float16(x[0])) / 2))
    assert np.isinf(results["declared"][1])
