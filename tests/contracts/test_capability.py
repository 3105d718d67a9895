"""Every row of the public capability matrix that packages can express, release by release."""

from __future__ import annotations

from pathlib import Path

import pytest

from parity.contracts.capability import capabilities, require
from parity.contracts.consumers import consumers
from parity.contracts.inspect import inspect
from parity.errors import UsageError
from tests.contracts import packages

SD = ("text_encoder", "unet", "vae_decoder")
XL = ("text_encoder", "text_encoder_2", "unet", "vae_decoder")
SWIFT = ("S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8")
PYTHON = ("P1", "P2", "P3", "P4", "P5", "P6")
LETTERS = {"y": "yes", "n": "no", "d": "degraded", "?": "unknown"}

# name -> (components by options, task, verdicts for S1…S8, verdicts for P1…P6)
ROWS: dict[str, tuple[list[tuple[tuple[str, ...], dict]], str, str, str]] = {
    "txt2img SD 1": ([(SD, {"window": "C1"})], "txt2img", "yyyyyyyy", "yyyyyy"),
    "txt2img v-prediction": (
        [(SD, {"family": "sd2", "model_id": "stabilityai/stable-diffusion-2-1"})], "txt2img", "nnnnnnnn", "yyyyyy",
    ),
    "txt2img SD 2 epsilon": (
        [(SD, {"family": "sd2", "model_id": "stabilityai/stable-diffusion-2-1-base"})], "txt2img", "yyyyyyyy", "yyyyyy",
    ),
    "txt2img SD 2 of unknown prediction": ([(SD, {"family": "sd2"})], "txt2img", "????????", "yyyyyy"),
    "negative prompt": ([(SD, {"window": "C1"})], "negative-prompt", "nyyyyyyy", "yyyyyy"),
    "img2img, five inputs": ([((*SD, "vae_encoder"), {"window": "0.3.0"})], "img2img", "nnynnnnn", "nnnnnn"),
    "img2img, z": ([((*SD, "vae_encoder"), {"window": "0.4.0"})], "img2img", "nnnyyyyy", "nnnnnn"),
    "img2img, x": ([((*SD, "vae_encoder"), {"window": "1.1.0"})], "img2img", "nnnnnnyy", "nnnnnn"),
    "img2img without encoder": ([(SD, {})], "img2img", "nnnnnnnn", "nnnnnn"),
    "img2img, five inputs, not square": (
        [((*SD, "vae_encoder"), {"window": "0.3.0", "w": 96})], "img2img", "nnnnnnnn", "nnnnnn",
    ),
    "inpainting UNet": ([(SD, {"Cin": 9})], "txt2img", "nnnnnnnn", "nnnnnn"),
    "ControlNet": (
        [((*SD, "control-unet", "controlnet", "vae_encoder"), {"window": "0.4.0"})], "controlnet", "nnnyyyyy", "nnyyyy",
    ),
    "ControlNet, hole support": (
        [((*SD, "control-unet", "controlnet"), {"window": "0.4.0"})], "inpaint", "nnnnnyyy", "nnnnnn",
    ),
    "ControlNet without controlled UNet": ([((*SD, "controlnet"), {})], "controlnet", "nnnnnnnn", "nnnnnn"),
    "ControlNet of float16 outputs": (
        [((*SD, "control-unet"), {"window": "0.4.0"}), (("controlnet",), {"window": "0.4.0", "outputs": "FLOAT16"})],
        "controlnet", "nnnnnnnn", "nnyyyy",
    ),
    "several ControlNets": (
        [
            ((*SD, "control-unet", "controlnet"), {"window": "0.4.0"}),
            (("controlnet",), {"window": "0.4.0", "file": "owner/second"}),
        ],
        "multi-controlnet", "nnnyyddd", "nnyyyy",
    ),
    "ControlNet, not square, in Python": (
        [((*SD, "control-unet", "controlnet"), {"window": "0.4.0", "w": 96})], "controlnet", "nnnyyyyy", "nnnnnn",
    ),
    "safety check 512": ([((*SD, "safety_checker"), {"window": "C4c"})], "safety-check", "yyyyyyyy", "yyyyyy"),
    "safety check of another size that fits": (
        [((*SD, "safety_checker"), {"window": "C4c", "h": 96, "w": 96, "Hs": 768, "Ws": 768})],
        "safety-check", "nnnnnnnn", "yyyyyy",
    ),
    "safety check of 0.3.0, latents for pixels": (
        [((*SD, "safety_checker"), {"window": "C3", "h": 64, "w": 96})], "safety-check", "nnnnnnnn", "nnnnnn",
    ),
    "SDXL, flat ids": ([(XL, {"window": "C6", "family": "sdxl"})], "txt2img", "nnnnndyy", "nnnddd"),
    "SDXL, rows of ids": ([(XL, {"window": "C7", "family": "sdxl"})], "txt2img", "nnnnnnyy", "nnnddd"),
    "SDXL refiner": ([((*XL, "refiner"), {"window": "C7", "family": "sdxl"})], "refiner", "nnnnnnyy", "nnnnnn"),
    "SDXL refiner missing": ([(XL, {"window": "C7", "family": "sdxl"})], "refiner", "nnnnnnnn", "nnnnnn"),
    "SDXL img2img, z": ([((*XL, "vae_encoder"), {"window": "C6", "family": "sdxl"})], "img2img", "nnnnndyy", "nnnnnn"),
    "SDXL img2img, x": ([((*XL, "vae_encoder"), {"window": "C7", "family": "sdxl"})], "img2img", "nnnnnnyy", "nnnnnn"),
    "SDXL has no ControlNet": (
        [(XL, {"window": "C7", "family": "sdxl"})], "controlnet", "nnnnnnnn", "nnnnnn",
    ),
    "SD 3": (
        [(("text_encoder", "text_encoder_2", "mmdit", "vae_decoder"), {"window": "C8a", "family": "sd3"})],
        "txt2img", "nnnnnnny", "nnnnnn",
    ),
    "multilingual": (
        [((*SD, "multilingual_projection"), {"window": "C5", "S": 256})], "multilingual", "nnnnyyyy", "nnnnnn",
    ),
    "multilingual with a UNet of 77 tokens": (
        [((*SD, "multilingual_projection"), {"window": "C5"})], "multilingual", "nnnnnnnn", "nnnnnn",
    ),
    "chunked UNet": (
        [
            (("text_encoder", "vae_decoder"), {}),
            (("unet",), {"chunk": 1}),
            (("unet",), {"chunk": 2}),
        ],
        "txt2img", "yyyyyyyy", "nnnnnn",
    ),
    "half a UNet": (
        [(("text_encoder", "vae_decoder"), {}), (("unet",), {"chunk": 1})], "txt2img", "nnnnnnnn", "nnnnnn",
    ),
    "UNet of batch one": ([(SD, {"window": "main", "B": 1})], "txt2img", "nnnnnnnd", "nnnnny"),
    "sizes differ": (
        [(("text_encoder", "unet"), {}), (("vae_decoder",), {"h": 96})], "txt2img", "nnnnnnnn", "nnnnnn",
    ),
    "widths differ": (
        [(("text_encoder", "vae_decoder"), {"D": 1024}), (("unet",), {})], "txt2img", "nnnnnnnn", "nnnnnn",
    ),
    "encoder of another size": (
        [(SD, {"window": "0.4.0"}), (("vae_encoder",), {"window": "0.4.0", "h": 96})], "img2img", "nnnnnnnn", "nnnnnn",
    ),
    "float16 outputs": ([(SD, {"window": "C6b", "outputs": "FLOAT16"})], "txt2img", "nnnnnddd", "yyyyyy"),
    "float16 encoder": (
        [(SD, {"window": "0.4.0"}), (("vae_encoder",), {"window": "C6b", "outputs": "FLOAT16"})],
        "img2img", "nnnnnyyy", "nnnnnn",
    ),
    "no text encoder": ([(("unet", "vae_decoder"), {})], "txt2img", "nnnnnnnn", "nnnnnn"),
    "overflowing mask": (
        [(("unet", "vae_decoder"), {}), (("text_encoder",), {"mask": -3.4e38})], "txt2img", "dddddddd", "dddddd",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_matrix_row(name: str, tmp_path: Path) -> None:
    groups, task, swift, python = ROWS[name]
    for names, options in groups:
        packages.folder_of(tmp_path, *names, **options)
    (bundle,) = inspect(tmp_path).bundles
    matrix = capabilities(bundle)
    for ids, expected in ((SWIFT, swift), (PYTHON, python)):
        found = {i: matrix.cell(task, i).verdict for i in ids}
        wanted = {i: LETTERS[letter] for i, letter in zip(ids, expected, strict=True)}
        assert found == wanted, {i: matrix.cell(task, i).failure for i in ids if found[i] != wanted[i]}
    for consumer in matrix.consumers:
        cell = matrix.cell(task, consumer.id)
        assert (cell.verdict == "yes") or cell.failure
        assert cell.verdict != "no" or cell.reasons[0].remedy, "a failure needs a remedy"


def test_the_crash_of_legacy_encoders_is_quoted_with_its_evidence(tmp_path: Path) -> None:
    packages.folder_of(tmp_path, *SD, "vae_encoder", window="0.3.0")
    cell = capabilities(inspect(tmp_path).bundles[0]).cell("img2img", "S5")
    assert "Encoder.swift:96: Fatal error: Unexpectedly found nil" in cell.failure
    assert "176, 185, 209" in cell.reasons[0].evidence
    assert cell.reasons[0].repair == "encoder-z"


@pytest.mark.parametrize(("encoder", "mochi"), [("0.3.0", "nnnnnn"), ("0.4.0", "nyyyyy"), ("1.1.0", "nnnyyy")])
def test_mochi_follows_the_package_that_it_was_built_with(encoder: str, mochi: str, tmp_path: Path) -> None:
    packages.folder_of(tmp_path, *SD, "vae_encoder", window=encoder, h=96, w=96)
    matrix = capabilities(inspect(tmp_path).bundles[0])
    ids = [consumer.id for consumer in matrix.consumers if consumer.app == "mochi"]
    assert [matrix.cell("img2img", i).verdict for i in ids] == [LETTERS[letter] for letter in mochi]
    assert "Encoder.swift" not in matrix.cell("img2img", "M3.0").failure


def test_mochi_three_does_img2img_at_512_only(tmp_path: Path) -> None:
    packages.folder_of(tmp_path, *SD, "vae_encoder", window="0.3.0")
    assert capabilities(inspect(tmp_path).bundles[0]).cell("img2img", "M3.0").verdict == "yes"


def test_a_single_model_is_judged_alone(tmp_path: Path) -> None:
    path = packages.component(tmp_path, "vae_encoder", window="0.4.0")
    matrix = capabilities(inspect(path).bundles[0])
    assert [matrix.cell("img2img", i).verdict for i in SWIFT] == ["no"] * 3 + ["yes"] * 5


def test_requirements(tmp_path: Path) -> None:
    packages.folder_of(tmp_path, *SD, "vae_encoder", window="1.1.0")
    inspection = inspect(tmp_path)
    assert require("img2img on swift>=1.1", inspection).met
    unmet = require("img2img on swift>=1.0", inspection)
    assert [cell.consumer for _, cell in unmet.unmet] == ["S5", "S6"]
    for text in ("img2img", "fly on swift", "img2img on nothing", "img2img on"):
        with pytest.raises(UsageError):
            require(text, inspection)


def test_a_degraded_cell_meets_a_demand_only_when_accepted(tmp_path: Path) -> None:
    packages.folder_of(tmp_path, *SD, window="main", B=1)
    inspection = inspect(tmp_path)
    assert not require("txt2img on swift==main", inspection).met
    assert require("txt2img on swift==main", inspection, degraded=True).met


def test_every_task_of_every_consumer_can_be_had(tmp_path: Path) -> None:
    """No cell of the matrix is dead: for each consumer and task some folder gives yes or degraded."""
    table = consumers()
    seen = set()
    for number, (groups, *_rest) in enumerate(ROWS.values()):
        folder = tmp_path / str(number)
        for names, options in groups:
            packages.folder_of(folder, *names, **options)
        matrix = capabilities(inspect(folder).bundles[0])
        seen |= {key for key, cell in matrix.cells.items() if cell.verdict in ("yes", "degraded")}
    offered = {(task, consumer.id) for consumer in table.consumers for task in consumer.tasks}
    assert offered - seen == set()
