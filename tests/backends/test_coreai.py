"""Core AI as backend: networks of a shipped model against PyTorch, every family's cells, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parity import assets
from parity.backends import coreai, registry
from parity.backends.registry import Subject
from parity.errors import FormatError, MissingError, UnsupportedError
from parity.suite.options import Options
from parity.suite.plan import cells
from parity.suite.run import Run

PICTURES = assets.fixtures() / "pictures"
START, MASK, EDGES = (f'"{PICTURES / name}.png"' for name in ("start", "mask", "edges"))
PROMPT = 'prompt = "a photo of a red circle"\nscheduler = "ddim"'
SD3 = f'{PROMPT}\ntask = "txt2img"'.replace("ddim", "flow-euler")


@pytest.fixture
def subject():
    from parity.models.model import Model

    return Subject(Model("tiny-sd").location, None, dict)


def _ids():
    from parity.models.model import Model

    model = Model("tiny-sd")
    return np.concatenate([model.tokens("a circle"), model.tokens("")])


@pytest.mark.long
@pytest.mark.coreai
def test_a_converted_network_computes_what_pytorch_does(subject, tmp_path, monkeypatch):
    from parity.backends.pytorch import TorchBackend
    from parity.metrics import registry as metrics

    monkeypatch.setenv("PARITY_CACHE", str(tmp_path))
    backend = registry.open_backend("coreai", subject)
    assert (backend.numerics, backend.precision) == ("Core AI interpreter (float32)", "float32")
    component = backend.component("text_encoder")
    reference = TorchBackend(subject.location).component("text_encoder")
    ids = {"input_ids": _ids()}
    assert metrics.measure("tensor_psnr", reference(ids)["hidden"], component(ids)["hidden"]) > 120
    assert component(ids)["hidden"].dtype == np.float32
    (kept,) = tmp_path.glob("coreai/*/text_encoder.aimodel")
    assert (kept.parent / "findings.json").read_text() == "[]"

    given = tmp_path / "models"
    given.mkdir()
    kept.rename(given / "My_text_encoder.aimodel")
    own = registry.open_backend("coreai", Subject(subject.location, given, dict))
    np.testing.assert_array_equal(own.component("text_encoder")(ids)["hidden"], component(ids)["hidden"])
    twice = {"input_ids": np.concatenate([ids["input_ids"]] * 2)}
    np.testing.assert_array_equal(own.component("text_encoder")(twice)["hidden"][:2], component(ids)["hidden"])
    thrice = {"input_ids": twice["input_ids"][:3]}
    np.testing.assert_array_equal(own.component("text_encoder")(thrice)["hidden"], component(twice)["hidden"][:3])
    with pytest.raises(FormatError, match=r"\[2, 77\] in the file, but the model's pipeline gives \[2, 76\]"):
        own.component("text_encoder")({"input_ids": ids["input_ids"][:, 1:]})
    with pytest.raises(MissingError, match=r"no \.aimodel for unet"):
        own.component("unet")


def test_a_finding_is_the_reason(tmp_path):
    (tmp_path / "findings.json").write_text('["index in module x: a mask is read as indices"]')
    with pytest.raises(UnsupportedError, match=r"unet: coreai-torch would compute something else: index in module x"):
        coreai._refuse_wrong("unet", tmp_path / "unet.aimodel")


def ask(folder: Path, text: str, **given: Any) -> dict[str, Any]:
    path = folder / "cases.toml"
    path.write_text(f'[[case]]\nname = "one"\nsteps = 2\n{text}\n', encoding="utf-8")
    asked = Options(cases=path, compatibility="none", backend=("coreai",), **given)
    return Run(asked).ask(cells(asked)[0])


def networks(record: dict[str, Any]) -> set[str]:
    points = (check["point"] for check in record["checks"])
    return {point for point in points if not point.startswith(("latents", "image"))}


@pytest.mark.long
@pytest.mark.coreai
@pytest.mark.parametrize(
    ("text", "given", "wanted"),
    [
        pytest.param(
            f'{PROMPT}\ntask = "controlnet"\ncontrol = {EDGES}',
            {"model_version": "tiny-sd", "controlnet": ("tiny-controlnet",)},
            {"text_encoder", "controlnet-1", "control-unet", "vae_decoder"},
            id="controlnet",
        ),
        pytest.param(
            f'{PROMPT}\ntask = "txt2img"\nrefiner_start = 0.5',
            {"model_version": "tiny-sdxl", "refiner": "tiny-sdxl-refiner"},
            {"text_encoder", "text_encoder_2", "unet", "refiner", "vae_decoder"},
            id="sdxl and refiner",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            'task = "unconditional"\nscheduler = "ddim"',
            {"model_version": "shapes-ddpm"},
            {"unconditional-unet"},
            id="unconditional",
        ),
        pytest.param(
            f'{PROMPT}\ntask = "img2img"\nimage = {START}',
            {"model_version": "tiny-sdxl-refiner"},
            {"vae_encoder", "text_encoder_2", "unet", "vae_decoder"},
            id="image to image",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            f'{PROMPT}\ntask = "inpaint"\nimage = {START}\nmask = {MASK}',
            {"model_version": "tiny-inpaint"},
            {"vae_encoder", "text_encoder", "unet", "vae_decoder"},
            id="nine channels",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            f'{PROMPT}\ntask = "txt2img"\nsafety_checker = true\nimages = 2\nclip_skip = 1',
            {"model_version": "tiny-sd-checked"},
            {"text_encoder", "unet", "vae_decoder", "safety_checker"},
            id="safety checker and an earlier layer",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            SD3,
            {"model_version": "tiny-sd3-t5"},
            {"text_encoder", "text_encoder_2", "text_encoder_3", "mmdit", "vae_decoder"},
            id="stable diffusion 3",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            f'{PROMPT}\ntask = "img2img"\nimage = {START}'.replace("ddim", "pndm"),
            {"model_version": "tiny-sd", "producers": ("swift==0.3.0",)},
            {"noising_encoder", "text_encoder", "unet", "vae_decoder"},
            id="noising encoder",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_every_family_is_drawn(tmp_path: Path, text: str, given: dict[str, Any], wanted: set[str]) -> None:
    record = ask(tmp_path, text, **given)
    assert record["verdict"] == "pass", record["explanation"]
    assert networks(record) == wanted
    assert {"reference", "candidate"} <= set(record["pictures"])


@pytest.mark.coreai
@pytest.mark.slow
def test_a_controlnet_of_sdxl_is_drawn(tmp_path: Path) -> None:
    from parity.models.model import Model
    from parity.suite.questions import releases

    net = releases.controlnets(Path(Model("tiny-sdxl").location))[0]
    text = f'{PROMPT}\ntask = "controlnet"\ncontrol = {EDGES}'
    record = ask(tmp_path, text, model_version="tiny-sdxl", controlnet=(str(net),))
    assert record["verdict"] == "pass", record["explanation"]
    assert networks(record) == {"text_encoder", "text_encoder_2", "controlnet-1", "control-unet", "vae_decoder"}


@pytest.mark.long
@pytest.mark.coreai
def test_what_the_model_lacks_is_said(subject: Subject) -> None:
    backend = registry.open_backend("coreai", subject)
    for name, says in {
        "text_encoder_2": "no text_encoder_2",
        "refiner": "no refiner",
        "controlnet-1": "0 ControlN",
    }.items():
        with pytest.raises(MissingError, match=says):
            backend.component(name)
    with pytest.raises(UnsupportedError, match="adapter"):
        backend.component("multilingual_projection")
