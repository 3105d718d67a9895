"""No reference is random: a checkpoint that lacks a tensor, or has one too many, is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from parity import recipes
from parity.backends.pytorch import TorchBackend
from parity.errors import FormatError, MissingError, UnsupportedError
from parity.models import checkpoint, source
from parity.models.scratch import Scratch
from parity.recipes import portable
from parity.suite.questions import releases

PARTS = ("text_encoder", "unet", "vae")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint that a test may damage, with a safety checker."""
    target = tmp_path / "tiny-sd"
    shutil.copytree(recipes.build("tiny-sd"), target)
    return target


def weights(folder: Path, part: str) -> Path:
    return next((folder / part).glob("*.safetensors"))


def edit(path: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def spoil(name: str, value: float, tensors: dict[str, torch.Tensor]) -> None:
    tensors[name].view(-1)[-1] = value


def drop_first(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[min(tensors)]


def convert_part(folder: Path, part: str) -> Any:
    return source.open_model(folder).module(part)


def convert_mapped(folder: Path, part: str) -> Any:
    return source.open_model(folder).module(part, scratch=Scratch(folder, 1 << 30))


def run_part(folder: Path, part: str) -> Any:
    name = "vae_decoder" if part == "vae" else part
    return TorchBackend(str(folder)).component(name)


@pytest.mark.parametrize("opened", [convert_part, convert_mapped, run_part])
@pytest.mark.parametrize("part", PARTS)
def test_a_missing_tensor_is_refused_by_name(folder: Path, part: str, opened: Callable[[Path, str], Any]) -> None:
    opened(folder, part)
    path = weights(folder, part)
    first = min(load_file(path))
    edit(path, drop_first)
    with pytest.raises(FormatError, match="1 tensor is missing") as caught:
        opened(folder, part)
    assert str(folder / part) in str(caught.value)
    assert first.removeprefix("text_model.") in str(caught.value)


@pytest.mark.parametrize("opened", [convert_part, convert_mapped, run_part])
@pytest.mark.parametrize("part", PARTS)
def test_values_that_are_no_numbers_are_refused_by_name(
    folder: Path, part: str, opened: Callable[[Path, str], Any]
) -> None:
    name = next(name for name in load_file(weights(folder, part)) if name.endswith("weight"))
    for value in (float("nan"), float("-inf")):
        edit(weights(folder, part), partial(spoil, name, value))
        with pytest.raises(FormatError, match="1 tensor holds values that are NaN or infinite") as refused:
            opened(folder, part)
        assert str(folder / part) in str(refused.value)
        assert name.removeprefix("text_model.") in str(refused.value)


@pytest.mark.parametrize("opened", [convert_part, convert_mapped, run_part])
@pytest.mark.parametrize("part", PARTS)
def test_tensors_of_another_network_are_counted(folder: Path, part: str, opened: Callable[[Path, str], Any]) -> None:
    extra = {f"adapter.{number}.weight": torch.zeros(1) for number in range(5)}
    edit(weights(folder, part), lambda tensors: tensors.update(extra))
    says = r"5 tensors are not part of the network \(adapter.0.weight, adapter.1.weight, adapter.2.weight, …\)"
    with pytest.raises(FormatError, match=says):
        opened(folder, part)


@pytest.mark.parametrize("opened", [convert_part, convert_mapped, run_part])
def test_a_tensor_of_another_shape_is_named(folder: Path, opened: Callable[[Path, str], Any]) -> None:
    edit(weights(folder, "unet"), lambda tensors: tensors.update({"conv_in.bias": torch.zeros(3)}))
    with pytest.raises(FormatError, match=r"unet: cannot be loaded as UNet2DConditionModel: .*conv_in\.bias"):
        opened(folder, "unet")


@pytest.mark.parametrize("part", PARTS)
def test_damage_is_one_message(folder: Path, part: str) -> None:
    path = weights(folder, part)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(FormatError, match=f"{part}: cannot be loaded as"):
        run_part(folder, part)
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n")
    with pytest.raises(FormatError, match=r"git-lfs pointer, not the file of 12,345 bytes"):
        run_part(folder, part)
    path.unlink()
    with pytest.raises(MissingError, match=rf"{part}: no \*\.safetensors weights"):
        run_part(folder, part)


def test_position_ids_of_old_checkpoints_are_no_weights(folder: Path) -> None:
    before = run_part(folder, "text_encoder")({"input_ids": np.arange(77)[None]})["hidden"]
    path = weights(folder, "text_encoder")
    edit(path, lambda tensors: tensors.update({"text_model.embeddings.position_ids": torch.arange(77)[None]}))
    assert np.array_equal(run_part(folder, "text_encoder")({"input_ids": np.arange(77)[None]})["hidden"], before)
    with pytest.raises(FormatError, match="other_ids"):
        checkpoint.complete(folder, "X", missing=[], unexpected=["a.position_ids", "a.other_ids"])


@pytest.mark.long
def test_a_safety_checker_and_a_controlnet_are_read_the_same_way() -> None:
    location = recipes.build("tiny-sd")
    checker = source.open_model(releases.safety(location)).folder
    assert checker is not None
    stored = weights(checker, "safety_checker")
    assert any(name.startswith("vision_model.vision_model.") for name in load_file(stored))  # as transformers 4 needs
    source.load_module(checker / "safety_checker", "StableDiffusionSafetyChecker")
    with pytest.raises(FormatError, match="1 tensor is missing"):
        _without_one(checker / "safety_checker", "StableDiffusionSafetyChecker")
    with pytest.raises(FormatError, match="1 tensor is missing"):
        _without_one(releases.controlnets(location)[0], "ControlNetModel")


def _without_one(folder: Path, kind: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "network"
        shutil.copytree(folder, target)
        edit(next(target.glob("*.safetensors")), drop_first)
        source.load_module(target, kind)


def test_another_kind_of_network_is_named(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"vae": ["diffusers", "AutoencoderTiny"]}))
    with pytest.raises(UnsupportedError, match="vae is a AutoencoderTiny; a AutoencoderKL is run here"):
        run_part(folder, "vae")


@pytest.mark.parametrize("name", ["shapes-sd", "shapes-sd-v", "tiny-sd", "tiny-sdxl"])
def test_shipped_text_encoders_have_the_names_that_every_release_of_transformers_reads(name: str) -> None:
    location = recipes.find(name)
    assert location is not None
    assert all(tensor.startswith("text_model.") for tensor in load_file(weights(location, "text_encoder")))


def test_names_go_both_ways() -> None:
    for kind, own in (("CLIPTextModel", "encoder.a"), ("StableDiffusionSafetyChecker", "vision_model.encoder.a")):
        stored = portable.name(kind, own)
        assert stored != own
        assert portable.name(kind, stored) == stored
        assert portable.bare(kind, stored) == own == portable.bare(kind, own)
    assert portable.name("StableDiffusionSafetyChecker", "concept_embeds") == "concept_embeds"
