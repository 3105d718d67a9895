"""Opening models: hub ids, snapshots, damaged weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from parity import recipes
from parity.errors import FormatError, MissingError, UnsupportedError
from parity.models import source

Model = Callable[[str], Path]


@pytest.mark.parametrize(
    ("name", "family"),
    [("sd1", "sd1"), ("sd2", "sd2"), ("inpaint", "sd1"), ("sdxl", "sdxl"), ("sdxl-refiner", "sdxl-refiner")],
)
def test_families(model: Model, name: str, family: str) -> None:
    assert source.open_model(model(name)).family == family


def test_stable_diffusion_3_is_known_by_its_transformer(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(recipes.build("tiny-sd3"), tmp_path / "model"))
    opened = source.open_model(folder)
    assert opened.family == "sd3"
    assert opened.denoiser["_class_name"] == "SD3Transformer2DModel"
    shutil.rmtree(folder / "transformer")
    with pytest.raises(MissingError, match=r"transformer/config\.json is missing"):
        source.open_model(folder)


def test_a_hub_id_is_downloaded_once_opened_and_named(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[tuple[str, object]] = []

    def snapshot(name: str, *, allow_patterns: object, ignore_patterns: list[str]) -> str:
        assert ignore_patterns == ["text_encoder_3/*"]
        asked.append((name, allow_patterns))
        return str(model("sd1"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    opened = source.open_model("owner/tiny")
    assert opened.identifier == "owner/tiny"
    assert opened.folder == model("sd1")
    ((name, patterns),) = asked
    assert name == "owner/tiny"
    assert not any("bin" in pattern or "py" in pattern for pattern in patterns)  # type: ignore[attr-defined]


def test_a_network_of_the_hub_has_its_weights_at_the_top(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    import fnmatch

    import huggingface_hub

    asked: list[list[str]] = []
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda _, *, allow_patterns, ignore_patterns: asked.append(allow_patterns) or str(model("controlnet")),
    )
    name, folder, config = source.open_network("owner/net", "ControlNetModel")
    assert (name, folder, config["_class_name"]) == ("owner/net", model("controlnet"), "ControlNetModel")
    wanted = [path.name for path in folder.iterdir()]
    assert all(any(fnmatch.fnmatch(file, pattern) for pattern in asked[0]) for file in wanted)


def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def offline(*_: object, **__: object) -> str:
        raise OSError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(MissingError, match=r"owner/tiny: no such folder, and the hub gave nothing: offline"):
        source.open_model("owner/tiny")


def test_snapshots_of_the_hubs_cache_keep_their_id(model: Model, tmp_path: Path) -> None:
    folder = tmp_path / "models--owner--tiny" / "snapshots" / "0123"
    shutil.copytree(model("sd1"), folder)
    assert source.open_model(folder).identifier == "owner/tiny"
    assert source.open_model(folder, identifier="other/name").identifier == "other/name"


def test_weights_must_be_whole_safetensors(model: Model, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model("sd1"), folder)
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(FormatError, match="cannot be loaded as AutoencoderKL"):
        source.open_model(folder).module("vae")
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(MissingError, match=r"no \*\.safetensors weights"):
        source.open_model(folder).module("vae")


def test_classes_without_contract(model: Model, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model("sd1"), folder)
    index = json.loads((folder / "model_index.json").read_text())
    index["unet"] = ["diffusers", "UNet3DConditionModel"]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UnsupportedError, match="unet is a UNet3DConditionModel; the converter writes UNet2DCondition"):
        source.open_model(folder).module("unet")
    with pytest.raises(UnsupportedError, match="is a UNet2DConditionModel; ControlNetModel is needed here"):
        source.open_network(model("sd1") / "unet", "ControlNetModel")


def test_half_precision_variants_are_loaded_in_single_precision(model: Model, tmp_path: Path) -> None:
    import diffusers
    import torch

    folder = tmp_path / "model"
    shutil.copytree(model("sd1"), folder)
    vae = diffusers.AutoencoderKL.from_pretrained(folder / "vae").half()
    shutil.rmtree(folder / "vae")
    vae.save_pretrained(folder / "vae", variant="fp16")
    assert source.open_model(folder).module("vae").dtype == torch.float32
