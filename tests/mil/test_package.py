"""Packages made by coremltools read right, survive saving, and bad ones are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parity import mil
from parity.errors import FormatError, MissingError, ParityError, UsageError
from parity.mil import proto


def test_features_of_a_converted_model(small: Path) -> None:
    model = mil.load(small)
    assert [str(f) for f in model.inputs] == ["x0: array fp32 1×4×6×6"]
    assert model.inputs[0].accepts((1, 4, 6, 6))
    assert not model.inputs[0].accepts((1, 4, 6, 7))
    assert [f.shape for f in model.outputs] == [(1, 8, 5)] or model.outputs[0].shape == ()
    assert list(model.functions) == ["main"]
    assert model.metadata.user_defined["com.github.apple.coremltools.version"].startswith(("8.", "9."))
    assert model.program.functions["main"].opset == "CoreML6"


def test_flexible_optional_image_and_state_features(ct: Any) -> None:
    model = proto.model.Model()
    flexible = model.description.input.add(name="a")
    flexible.type.isOptional = True
    array = flexible.type.multiArrayType
    array.dataType = array.FLOAT16
    array.shape.extend([1, 4])
    array.floatDefaultValue = 2.5
    for lower, upper in ((1, 2), (4, -1)):
        array.shapeRange.sizeRanges.add(lowerBound=lower, upperBound=upper)
    listed = model.description.input.add(name="b").type.multiArrayType
    listed.dataType = listed.INT32
    listed.shape.append(3)
    for size in (2, 3):
        listed.enumeratedShapes.shapes.add().shape.append(size)
    image = model.description.input.add(name="c").type.imageType
    image.width, image.height, image.colorSpace = 8, 6, image.BGR
    state = model.description.state.add(name="d").type.stateType.arrayType
    state.dataType = state.FLOAT16
    state.shape.append(7)
    a, b, c = mil.Model(Path("x"), model, mil.Weights(Path("x"))).inputs
    assert str(a) == "a: array fp16 1..2×4.. optional"
    assert (a.default, a.flexible) == (2.5, True)
    assert [a.accepts(s) for s in ((2, 999), (3, 4), (1, 3), (1,))] == [True, False, False, False]
    assert (b.shapes, [b.accepts((n,)) for n in (1, 2, 3)]) == (((3,), (2,)), [False, True, True])
    assert (c.shape, c.color, c.channels) == ((6, 8), "bgr", 3)
    d = mil.Model(Path("x"), model, mil.Weights(Path("x"))).states[0]
    assert (d.kind, d.dtype, d.shape) == ("state", "fp16", (7,))


def test_saving_keeps_everything_and_is_reproducible(small: Path, tmp_path: Path, ct: Any) -> None:
    model = mil.load(small)
    first = mil.save(model.specification, model.weights, tmp_path / "a.mlpackage")
    second = mil.save(model.specification, model.weights, tmp_path / "b.mlpackage")
    contents = [
        {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        for root in (first, second)
    ]
    assert contents[0] == contents[1]
    again = mil.load(first)
    assert again.specification == model.specification
    assert again.digest() == model.digest()
    assert ct.models.utils.load_spec(str(first)) == model.specification  # coremltools reads what is written here


def test_digest_tells_weights_apart(small: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.mlpackage"
    shutil.copytree(small, copy)
    assert mil.load(copy).digest() == mil.load(small).digest()
    weight = copy / "Data/com.apple.CoreML/weights/weight.bin"
    content = bytearray(weight.read_bytes())
    content[-1] ^= 1
    weight.write_bytes(content)
    assert mil.load(copy).digest() != mil.load(small).digest()
    assert mil.load(copy).program_digest() != mil.load(small).program_digest()


def test_texts_do_not_count_for_what_is_computed(small: Path, tmp_path: Path) -> None:
    model = mil.load(small)
    specification = proto.model.Model()
    specification.CopyFrom(model.specification)
    specification.description.metadata.author = "somebody else"
    other = mil.load(mil.save(specification, model.weights, tmp_path / "other.mlpackage"))
    assert other.program_digest() == model.program_digest()
    assert other.digest() != model.digest()


def test_saving_replaces_and_refuses(small: Path, tmp_path: Path) -> None:
    model = mil.load(small)
    target = tmp_path / "m.mlpackage"
    mil.save(model.specification, model.weights, target)
    mil.save(
        model.specification, {"@model_path/weights/weight.bin": model.weights.path(model.weights.names()[0])}, target
    )
    assert mil.load(target).digest() == model.digest()
    with pytest.raises(UsageError, match="mlpackage"):
        mil.save(model.specification, None, tmp_path / "m.mlmodel")
    with pytest.raises(FormatError, match="must lie under"):
        mil.save(model.specification, {"@model_path/weights/../../x": target}, target)
    assert mil.load(target).digest() == model.digest()  # the failed attempt left the old one alone
    assert [p.name for p in tmp_path.iterdir()] == ["m.mlpackage"]


def _manifest(package: Path, change: dict[str, Any]) -> None:
    path = package / "Manifest.json"
    content = json.loads(path.read_text())
    entry = content["itemInfoEntries"][content["rootModelIdentifier"]]
    entry.update(change)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "nothing.mlmodel", "", 7, "a\0b"])
def test_manifest_paths_stay_inside(small: Path, tmp_path: Path, path: object) -> None:
    copy = tmp_path / "copy.mlpackage"
    shutil.copytree(small, copy)
    _manifest(copy, {"path": path})
    with pytest.raises(FormatError, match=r"Manifest\.json"):
        mil.load(copy)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"rootModelIdentifier": []}', "[" * 100000, "\xff"])
def test_broken_manifests(small: Path, tmp_path: Path, text: str) -> None:
    copy = tmp_path / "copy.mlpackage"
    shutil.copytree(small, copy)
    (copy / "Manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(FormatError, match=r"Manifest\.json"):
        mil.load(copy)


def test_data_folder_cannot_be_a_link_out(small: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.mlpackage"
    copy.mkdir()
    shutil.copy(small / "Manifest.json", copy)
    (copy / "Data").symlink_to(small / "Data")
    with pytest.raises(FormatError, match="outside the package"):
        mil.load(copy)


def test_missing_and_foreign_paths(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no such model"):
        mil.load(tmp_path / "nothing.mlpackage")
    (tmp_path / "empty.mlpackage").mkdir()
    with pytest.raises(FormatError, match=r"Manifest\.json"):
        mil.load(tmp_path / "empty.mlpackage")
    (tmp_path / "x.mlmodel").write_bytes(b"\xff" * 100)
    with pytest.raises(FormatError, match="not a Core ML model"):
        mil.load(tmp_path / "x.mlmodel")


def test_other_kinds_of_model_are_named(tmp_path: Path) -> None:
    model = proto.model.Model(specificationVersion=4)
    model.neuralNetwork.SetInParent()
    (tmp_path / "n.mlmodel").write_bytes(model.SerializeToString())
    with pytest.raises(FormatError, match="neuralNetwork"):
        _ = mil.load(tmp_path / "n.mlmodel").program


def test_several_functions_are_listed() -> None:
    model = proto.model.Model()
    for name in ("encode", "decode"):
        function = model.description.functions.add(name=name)
        array = function.input.add(name=f"{name}_in").type.multiArrayType
        array.dataType = array.FLOAT32
        array.shape.append(2)
    model.description.defaultFunctionName = "decode"
    loaded = mil.Model(Path("x"), model, mil.Weights(Path("x")))
    assert list(loaded.functions) == ["encode", "decode"]
    assert loaded.inputs[0].name == "decode_in"
    with pytest.raises(UsageError, match="encode, decode"):
        loaded.function("main")


def test_weights_are_read_by_offset(small: Path) -> None:
    model = mil.load(small)
    sizes = [record.count for record in model.weights.file().records()]
    assert 8 * 4 * 9 in sizes
    with pytest.raises(ParityError):
        model.weights.read(65)
    first = model.weights.read(64)
    assert np.isfinite(first).all()
