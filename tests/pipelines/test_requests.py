"""Requests, models and pictures that cannot be used are refused with one clear message."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from parity import assets, recipes
from parity.errors import FormatError, MissingError, ParityError, UsageError
from parity.models.model import Model
from parity.pipelines import request as tasks
from parity.pipelines.request import Request
from parity.pipelines.schedules import diffusers as schedulers


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"task": "inpaint"}, "txt2img, img2img"),
        ({"scheduler": "plms"}, "ddim, dpm"),
        ({"steps": 0}, "at least 1"),
        ({"images": 0}, "at least 1"),
        ({"task": "img2img"}, "picture to start from"),
        ({"task": "img2img", "image": Path("x.png"), "strength": 0.0}, r"\(0, 1\]"),
        ({"task": "img2img", "image": Path("x.png"), "strength": 0.04, "steps": 10}, "leaves no step"),
    ],
)
def test_bad_requests(fields: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Request(**{"task": "txt2img", "prompt": "x", **fields})  # type: ignore[arg-type]


def test_an_unknown_scheduler_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="pndm"):
        schedulers.make("ancestral", {})


def test_a_folder_without_model_index_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"model_index\.json"):
        Model(str(tmp_path))


@pytest.mark.parametrize(
    ("part", "file"), [("unet", "config.json"), ("scheduler", "scheduler_config.json"), ("vae", "config.json")]
)
def test_a_missing_part_is_named(tmp_path: Path, part: str, file: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(recipes.build("tiny-sd"), folder)
    shutil.rmtree(folder / part)
    with pytest.raises(MissingError, match=f"{part}/{file}"):
        Model(str(folder)).config(part)


def test_an_inpainting_unet_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(recipes.build("tiny-sd"), folder)
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "in_channels": 9}))
    with pytest.raises(FormatError, match="in_channels is 9"):
        _ = Model(str(folder)).latent_shape


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_an_unreadable_picture_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"broken\.png: not a readable picture"):
        tasks.read_picture(path, Model("tiny-sd"))


def test_a_truncated_picture_is_refused(tmp_path: Path) -> None:
    whole = (assets.fixtures() / "pictures" / "start.png").read_bytes()
    path = tmp_path / "cut.png"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ParityError, match=r"cut\.png"):
        tasks.read_picture(path, Model("tiny-sd"))


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"none\.png"):
        tasks.read_picture(tmp_path / "none.png", Model("tiny-sd"))


def test_pictures_of_other_sizes_are_brought_to_the_models() -> None:
    from PIL import Image

    model = Model("tiny-sd")
    assert tasks.read_picture(assets.fixtures() / "pictures" / "start.png", model).shape == (1, 3, 128, 128)
    assert Image.open(assets.fixtures() / "pictures" / "start.png").size == (128, 128)
