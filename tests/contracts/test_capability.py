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
CHECKED = (*SD, "safety_checker")  # the Python pipeline wants a checker where the checkpoint has one
XL = ("text_encoder", "text_encoder_2", "unet", "vae_decoder")
SWIFT = ("S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8")
PYTHON = ("P1", "P2", "P3", "P4", "P5", "P6")
XL_BASE = "stabilityai/stable-diffusion-xl-base-1.0"
XL_ID = {"model_id": "owner/model-xl"}  # the Python pipeline knows SDXL by its id
LETTERS = {"y": "yes", "n": "no", "d": "degraded", "?": "unknown"}

# name -> (components by options, task, verdicts for S1…S8, verdicts for P1…P6)
ROWS: dict[str, tuple[list[tuple[tuple[str, ...], dict]], str, str, str]] = {
    "txt2img SD 1": ([(CHECKED, {"window": "C1"})], "txt2img", "yyyyyyyy", "yyyyyy"),
    "txt2img SD 1 without safety checker": ([(SD, {"window": "C1"})], "txt2img", "yyyyyyyy", "yyyyyy"),
    "txt2img SD 1 of a v-prediction id": (
        [(CHECKED, {"model_id": "owner/fluffy-v_prediction"})], "txt2img", "nnnnnnnn", "yyyyyy",
    ),
    "txt2img v-prediction": (
        [(SD, {"family": "sd2", "model_id": "stabilityai/stable-diffusion-2-1"})], "txt2img", "nnnnnnnn", "yyyyyy",
    ),
    "txt2img SD 2 epsilon": (
        [(SD, {"family": "sd2", "model_id": "stabilityai/stable-diffusion-2-1-base"})], "txt2img", "yyyyyyyy", "yyyyyy",
    ),
    "txt2img SD 2 of unknown prediction": ([(SD, {"family": "sd2"})], "txt2img", "????????", "yyyyyy"),
    "negative prompt": ([(CHECKED, {"window": "C1"})], "negative-prompt", "nyyyyyyy", "yyyyyy"),
    "img2img, five inputs": ([((*SD, "vae_encoder"), {"window": "0.3.0"})], "img2img", "nnynnnnn", "nnnnnn"),
    "img2img, z": ([((*SD, "vae_encoder"), {"window": "0.4.0"})], "img2img", "nnnyyyyy", "nnnnnn"),
    "img2img, x": ([((*SD, "vae_encoder"), {"window": "1.1.0"})], "img2img", "nnnnnnyy", "nnnnnn"),
    "img2img without encoder": ([(SD, {})], "img2img", "nnnnnnnn", "nnnnnn"),
    "img2img, five inputs, not square": (
        [((*SD, "vae_encoder"), {"window": "0.3.0", "w": 96})], "img2img", "nnnnnnnn", "nnnnnn",
    ),
    "inpainting UNet": ([(SD, {"Cin": 9})], "txt2img", "nnnnnnnn", "nnnnnn"),
    "ControlNet": (
        [((*CHECKED, "control-unet", "controlnet", "vae_encoder"), {"window": "0.4.0"})],
        "controlnet", "nnnyyyyy", "nnyyyy",
    ),
    "ControlNet, hole support": (
        [((*SD, "control-unet", "controlnet"), {"window": "0.4.0"})], "inpaint", "nnnnnyyy", "nnnnnn",
    ),
    "ControlNet without controlled UNet": ([((*SD, "controlnet"), {})], "controlnet", "nnnnnnnn", "nnnnnn"),
    "ControlNet of float16 outputs": (
        [((*CHECKED, "control-unet"), {"window": "0.4.0"}),
         (("controlnet",), {"window": "0.4.0", "outputs": "FLOAT16"})],
        "controlnet", "nnnnnnnn", "nnyyyy",
    ),
    "several ControlNets": (
        [
            ((*CHECKED, "control-unet", "controlnet"), {"window": "0.4.0"}),
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
    "SDXL, flat ids": ([(XL, {"window": "C6", "family": "sdxl", **XL_ID})], "txt2img", "nnnnndyy", "nnnddd"),
    "SDXL, rows of ids": ([(XL, {"window": "C7", "family": "sdxl", **XL_ID})], "txt2img", "nnnnnnyy", "nnnddd"),
    "SDXL of an id without xl": ([(XL, {"window": "C7", "family": "sdxl"})], "txt2img", "nnnnnnyy", "nnnnnn"),
    "SDXL refiner alone": (
        [
            (("text_encoder_2", "unet"), {"window": "C7", "family": "sdxl-refiner"}),
            (("vae_decoder",), {"window": "C7", "family": "sdxl"}),
        ],
        "txt2img", "nnnnnnyy", "nnnnnn",
    ),
    "SDXL base without first text encoder": (
        [(("text_encoder_2", "unet", "vae_decoder"), {"window": "C7", "family": "sdxl"})],
        "txt2img", "nnnnnnnn", "nnnnnn",
    ),
    "SDXL refiner of another size": (
        [(XL, {"window": "C7", "family": "sdxl"}), (("refiner",), {"window": "C7", "family": "sdxl", "h": 96})],
        "refiner", "nnnnnnnn", "nnnnnn",
    ),
    "SDXL with a float16 decoder": (
        [
            (("text_encoder", "text_encoder_2", "unet"), {"window": "C7", "family": "sdxl", **XL_ID}),
            (("vae_decoder",), {"window": "C7", "family": "sdxl", "variant": "custom-vae", **XL_ID}),
        ],
        "txt2img", "nnnnnn??", "nnnddd",
    ),
    "SDXL refiner": ([((*XL, "refiner"), {"window": "C7", "family": "sdxl"})], "refiner", "nnnnnnyy", "nnnnnn"),
    "SDXL refiner missing": ([(XL, {"window": "C7", "family": "sdxl"})], "refiner", "nnnnnnnn", "nnnnnn"),
    "SDXL img2img, z": ([((*XL, "vae_encoder"), {"window": "C6", "family": "sdxl"})], "img2img", "nnnnnd??", "nnnnnn"),
    "SDXL img2img, z, of an encoder that is known to overflow": (
        [((*XL, "vae_encoder"), {"window": "C6", "family": "sdxl", "model_id": XL_BASE})],
        "img2img", "nnnnnddd", "nnnnnn",
    ),
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
    "multilingual SDXL": (
        [(XL, {"window": "C7", "family": "sdxl", "S": 256}), (("multilingual_projection",), {"window": "C7"})],
        "multilingual", "nnnnnnnn", "nnnnnn",
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
    "chunked controlled UNet": (
        [
            (("text_encoder", "vae_decoder", "controlnet", "safety_checker"), {"window": "0.4.0"}),
            (("control-unet",), {"window": "0.4.0", "chunk": 1}),
            (("control-unet",), {"window": "0.4.0", "chunk": 2}),
        ],
        "controlnet", "nnnyyyyy", "nnnnnn",
    ),
    "half a UNet": (
        [(("text_encoder", "vae_decoder"), {}), (("unet",), {"chunk": 1})], "txt2img", "nnnnnnnn", "nnnnnn",
    ),
    "UNet of batch one": ([(CHECKED, {"window": "main", "B": 1})], "txt2img", "nnnnnnnd", "nnnnny"),
    "UNet of eight channels": ([(SD, {"Cin": 8})], "img2img", "nnnnnnnn", "nnnnnn"),
    "controlled UNet of another size": (
        [((*SD, "controlnet"), {"window": "0.4.0"}), (("control-unet",), {"window": "0.4.0", "h": 96})],
        "controlnet", "nnnnnnnn", "nnnnnn",
    ),
    "rows that are padded": (
        [((*SD, "vae_encoder"), {"window": "0.4.0", "h": 63, "w": 63})], "img2img", "nnndddyy", "nnnnnn",
    ),
    "sizes differ": (
        [(("text_encoder", "unet"), {}), (("vae_decoder",), {"h": 96})], "txt2img", "nnnnnnnn", "nnnnnn",
    ),
    "widths differ": (
        [(("text_encoder", "vae_decoder"), {"D": 1024}), (("unet",), {})], "txt2img", "nnnnnnnn", "nnnnnn",
    ),
    "encoder of another size": (
        [(SD, {"window": "0.4.0"}), (("vae_encoder",), {"window": "0.4.0", "h": 96})], "img2img", "nnnnnnnn", "nnnnnn",
    ),
    "float16 outputs": ([(CHECKED, {"window": "C6b", "outputs": "FLOAT16"})], "txt2img", "nnnnnddd", "yyyyyy"),
    "float16 encoder": (
        [(SD, {"window": "0.4.0"}), (("vae_encoder",), {"window": "C6b", "outputs": "FLOAT16"})],
        "img2img", "nnnnndyy", "nnnnnn",
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


@pytest.mark.parametrize(("encoder", "mochi"), [("0.3.0", "nnnnnnnnn"), ("0.4.0", "nyyyyyyyy"), ("1.1.0", "nnnnyyyyy")])
def test_mochi_follows_the_package_that_it_was_built_with(encoder: str, mochi: str, tmp_path: Path) -> None:
    packages.folder_of(tmp_path, *SD, "vae_encoder", window=encoder, h=96, w=96)
    matrix = capabilities(inspect(tmp_path).bundles[0])
    ids = [consumer.id for consumer in matrix.consumers if consumer.app == "mochi"]
    assert [matrix.cell("img2img", i).verdict for i in ids] == [LETTERS[letter] for letter in mochi]
    assert "Encoder.swift" not in matrix.cell("img2img", "M3.0").failure


def test_mochi_three_does_img2img_at_512_only(tmp_path: Path) -> None:
    packages.folder_of(tmp_path, *SD, "vae_encoder", window="0.3.0")
    assert capabilities(inspect(tmp_path).bundles[0]).cell("img2img", "M3.0").verdict == "yes"


def test_mochi_without_an_encoder(tmp_path: Path) -> None:
    """Up to 4.5 it says so; from 4.6 on the picture is ignored."""
    packages.folder_of(tmp_path, *SD)
    matrix = capabilities(inspect(tmp_path).bundles[0])
    texts = {i: matrix.cell("img2img", i).failure for i in ("M4.1", "M4.3", "M4.6", "M6")}
    assert texts["M4.1"] == texts["M4.3"] == "The selected model does not support setting a starting image."
    assert texts["M4.6"] == texts["M6"] == "the starting image is silently ignored and the result is text to image"


def test_which_apps_leave_sdxl_the_wrong_factor(tmp_path: Path) -> None:
    packages.folder_of(tmp_path, *XL, window="C6", family="sdxl")
    matrix = capabilities(inspect(tmp_path).bundles[0])
    ids = ("M4.2", "M4.3", "D2023-07", "D2023-08", "D2023-09")
    found = [matrix.cell("txt2img", i).verdict for i in ids]
    assert found == ["degraded", "yes", "degraded", "yes", "yes"]


def test_mochi_lists_chunks_where_it_was_read(tmp_path: Path) -> None:
    packages.folder_of(tmp_path, "text_encoder", "vae_decoder")
    for chunk in (1, 2):
        packages.component(tmp_path, "unet", chunk=chunk)
    matrix = capabilities(inspect(tmp_path).bundles[0])
    ids = [consumer.id for consumer in matrix.consumers if consumer.app == "mochi"]
    assert "".join(matrix.cell("txt2img", i).verdict[0] for i in ids) == "uuunuuuuy"


@pytest.mark.parametrize(
    ("statement", "verdict", "source"),
    [
        ('{"prediction_type": "v_prediction"}', "no", "scheduler"),
        ('{"prediction_type": "epsilon"}', "yes", "scheduler"),
        ('{"_class_name": "PNDMScheduler"}', "yes", "scheduler"),  # diffusers' default
        ('{"prediction_type": "sample"}', "no", "scheduler"),
        ("[1, 2]", "yes", "family"),
        ("{", "yes", "family"),
        ("", "yes", "family"),
    ],
)
def test_a_scheduler_beside_the_models_says_what_they_predict(
    tmp_path: Path, statement: str, verdict: str, source: str
) -> None:
    packages.folder_of(tmp_path, *SD)
    if statement:
        (tmp_path / "scheduler_config.json").write_text(statement)
    (bundle,) = inspect(tmp_path).bundles
    matrix = capabilities(bundle)
    assert {matrix.cell("txt2img", i).verdict for i in SWIFT} == {verdict}
    assert bundle.facts["prediction_source"] == source
    assumed = [r for r in matrix.cell("txt2img", "S7").reasons if r.rule == "prediction-assumed"]
    assert bool(assumed) == (source == "family"), "what no file says is said to be assumed"
    if statement in ("[1, 2]", "{"):
        assert any("scheduler_config.json" in f.text for f in bundle.findings)


@pytest.mark.parametrize(
    ("family", "model_id", "prediction", "source"),
    [
        ("sd1", "runwayml/stable-diffusion-v1-5", "epsilon", "id"),
        ("sd1", "CompVis/stable-diffusion-v1-4", "epsilon", "id"),
        ("sd1", "toys/shapes-sd", "epsilon", "family"),
        ("sd1", "owner/model-vpred", "v", "id"),
        ("sd2", "stabilityai/stable-diffusion-2-1", "v", "id"),
        ("sd2", "stabilityai/stable-diffusion-2-1-base", "epsilon", "id"),
        ("sd2", "owner/model", "unread", "unread"),
    ],
)
def test_a_model_id_can_say_it(tmp_path: Path, family: str, model_id: str, prediction: str, source: str) -> None:
    packages.folder_of(tmp_path, *SD, family=family, model_id=model_id)
    facts = inspect(tmp_path).bundles[0].facts
    assert (facts["prediction"], facts["prediction_source"]) == (prediction, source)


def test_python_without_a_safety_checker_depends_on_the_checkpoint(tmp_path: Path) -> None:
    """No file in the folder tells, so a remark does."""
    packages.folder_of(tmp_path, *SD)
    cell = capabilities(inspect(tmp_path).bundles[0]).cell("txt2img", "P6")
    assert "python-wants-the-safety-checker" in {reason.rule for reason in cell.reasons if reason.general}


def test_remarks_on_single_requests_do_not_change_a_verdict(tmp_path: Path) -> None:
    packages.folder_of(tmp_path, *CHECKED, "vae_encoder", window="0.4.0")
    matrix = capabilities(inspect(tmp_path).bundles[0])
    for task, consumer, request in (
        ("txt2img", "S8", "guidance below 1"),
        ("txt2img", "P6", "guidance of 1 or less"),
        ("img2img", "S4", "strength x steps below 1"),
        ("img2img", "M6", "seed 4294967295"),
    ):
        cell = matrix.cell(task, consumer)
        assert cell.verdict == "yes"
        assert request in {reason.request for reason in cell.reasons}
    assert not [r for r in matrix.cell("txt2img", "D2024-06").reasons if r.request], "which always computes both rows"


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


@pytest.mark.long
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
