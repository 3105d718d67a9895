"""Differences planted into models come back as exactly those differences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from parity import cli, mil
from parity.contracts.diff import diff, diff_models
from parity.errors import UsageError
from parity.repair.program import Editor
from tests.commands.printed import checked
from tests.contracts import packages

Converted = Callable[..., Path]


def changed_weight(source: Path, target: Path, *, add: float) -> tuple[Path, str]:
    """Copy a model, one element of its largest float16 weight changed; return the copy and the weight's name."""
    model = mil.load(source)
    function = model.program.functions["main"]
    constants = [
        op
        for op in function.block_specializations[function.opset].operations
        if op.type == "const" and op.attributes["val"].WhichOneof("value") == "blobFileValue"
    ]
    file = model.weights.file()
    chosen = max(constants, key=lambda op: file.record(op.attributes["val"].blobFileValue.offset).size)
    record = file.record(chosen.attributes["val"].blobFileValue.offset)
    content = bytearray(file.path.read_bytes())
    values = np.frombuffer(content, np.float16, 1, record.data_offset).copy() + np.float16(add)
    content[record.data_offset : record.data_offset + 2] = values.astype(np.float16).tobytes()
    target.mkdir(parents=True, exist_ok=True)
    weights = target / "weights.bin"
    weights.write_bytes(content)
    copy = mil.save(model.specification, {"@model_path/weights/weight.bin": weights}, target / source.name)
    return copy, chosen.outputs[0].name


def test_a_model_equals_itself(converted: Converted, tmp_path: Path) -> None:
    source = converted("0.4.0", "vae_encoder")
    found = diff_models(
        source, mil.save(mil.load(source).specification, mil.load(source).weights, tmp_path / "c.mlpackage")
    )
    assert found.same
    assert not found.metadata
    assert found.equal_weights > 50
    assert cli.main(["diff", str(source), str(source)]) == 0


def test_a_changed_weight_is_found_with_its_difference(converted: Converted, tmp_path: Path) -> None:
    source = converted("0.4.0", "vae_encoder")
    copy, name = changed_weight(source, tmp_path, add=0.5)
    found = diff_models(source, copy)
    assert [weight.name for weight in found.weights] == [name]
    assert found.weights[0].largest == pytest.approx(0.5, abs=1e-3)
    assert (found.features, found.operators, found.parts_at) == ((), (), "")
    assert cli.main(["diff", str(source), str(copy)]) == 1


def test_contracts_of_two_releases(converted: Converted) -> None:
    found = diff_models(converted("0.3.0", "vae_encoder"), converted("0.4.0", "vae_encoder"))
    changes = {change.field: (change.before, change.after) for change in found.features}
    assert changes["input z"] == ("", "fp16 [1, 3, 128, 128]")
    assert changes["input noise"] == ("fp16 [1, 4, 16, 16]", "")
    operators = {change.field: (int(change.before), int(change.after)) for change in found.operators}
    assert operators["split"] == (1, 0)
    assert operators["exp"] == (1, 0)
    assert not found.weights
    assert (found.only_before, found.only_after) == ((), ())


def test_an_operator_that_was_added_is_placed(converted: Converted, tmp_path: Path) -> None:
    model = mil.load(converted("0.4.0", "vae_encoder"))
    editor = Editor(model)
    editor.append("identity", "extra", {"x": "latent"}, dtype="fp32", shape=(1, 8, 16, 16))
    copy = mil.save(editor.specification, model.weights, tmp_path / "c.mlpackage")
    found = diff_models(model.path, copy)
    assert [(c.field, c.before, c.after) for c in found.operators] == [("identity", "0", "1")]
    assert found.parts_at.endswith("identity, after only")


def test_folders_are_paired_by_component(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = packages.folder_of(tmp_path / "a", "unet", "vae_decoder", window="1.0.0")
    second = packages.folder_of(tmp_path / "b", "unet", "vae_encoder", window="1.1.0", model_id="owner/other")
    found = diff(first, second)
    assert [Path(model.before).name for model in found.models] == [
        "Stable_Diffusion_version_owner_model_unet.mlpackage"
    ]
    assert "vae_decoder" in found.only_before[0]
    assert "vae_encoder" in found.only_after[0]
    metadata = {change.field for change in found.models[0].metadata}
    assert {"version", "com.github.apple.ml-stable-diffusion.version"} <= metadata
    assert cli.main(["diff", str(first), str(second), "--json"]) == 1
    assert checked(capsys.readouterr().out, "diff")["only_after"] == list(found.only_after)


def test_a_model_is_not_compared_with_a_folder(tmp_path: Path) -> None:
    path = packages.component(tmp_path / "a", "unet")
    with pytest.raises(UsageError, match="two models or two folders"):
        diff(path, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no \.mlpackage or \.mlmodelc here"):
        diff(tmp_path / "empty", tmp_path)
    with pytest.raises(UsageError, match="no such folder"):
        diff(tmp_path / "none", tmp_path)
