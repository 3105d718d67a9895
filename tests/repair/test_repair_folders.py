"""Whole folders of each contract, repaired by the command: they pass the demand, and the consumer draws the picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from parity import cli, mil, recipes, repair
from parity.contracts.inspect import inspect
from parity.models.model import Model
from parity.suite.questions import releases
from parity.suite.questions.play import Execution, Original
from tests.pipelines.playing import execute

LOWEST_PSNR = 40.0  # dB; measured 47 to 56
BASE = ("text_encoder", "unet", "vae_decoder", "vae_encoder")
XL = ("text_encoder", "text_encoder_2", "unet", "vae_decoder", "vae_encoder")

Converted = Callable[..., Path]
Written = Callable[..., dict[str, Path]]


@pytest.fixture(scope="session")
def kept() -> dict:
    return {}


RANK4 = "attention-rank4"  # text encoders of releases before 2024-08 have attention of three axes


def repaired(models: dict[str, Path], tmp_path: Path, *options: str) -> tuple[dict[str, Path], list[str]]:
    """Repair an assembled folder by the command; return the packages by component, and what was repaired."""
    folder, output = tmp_path / "old models ✓", tmp_path / "repaired"
    releases.assemble(models, folder)
    before = {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}
    assert cli.main(["repair", str(folder), "-o", str(output), "--complete", *options]) == 0
    assert {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))} == before, "the source is untouched"
    (bundle,) = inspect(output).bundles
    records = [c.metadata.get(repair.PROVENANCE) for c in bundle.components]
    done = sorted(name for record in records if record for name in json.loads(record)["repairs"])
    return {c.kind: output / c.path for c in bundle.components}, done


def demand(models: dict[str, Path], text: str) -> int:
    return cli.main(["inspect", str(models["unet"].parent), "--require", text])


def play(models: dict[str, Path], consumer: str, kept: dict, *, xl: bool = False, image: bool = True) -> Execution:
    model = Model("tiny-sdxl" if xl else "tiny-sd")
    prompt, negative = (model.tokens(text) for text in ("a red circle on a blue background", "blurry, low quality"))
    side = 64 if xl else 128
    picture = np.random.RandomState(93).uniform(-1, 1, (1, 3, side, side)).astype(np.float32) if image else None
    original = Original(Path(recipes.build("tiny-sdxl")) if xl else Path(model.location))
    chosen = {key: path for key, path in models.items() if key != "safety_checker"}
    return execute(chosen, consumer, original, prompt=prompt, negative=negative, image=picture, kept=kept)


def moments(path: Path) -> np.ndarray:
    from parity.mil.session import Session

    model = mil.load(path)
    (feature,) = model.inputs
    dtype = np.float16 if feature.dtype == "fp16" else np.float32
    image = np.random.RandomState(5).uniform(-1, 1, feature.shape).astype(dtype)
    return np.asarray(Session(model, fuse=False).predict({feature.name: image})["latent"])


@pytest.mark.long
@pytest.mark.parametrize("contract", ["0.2.0", "0.3.0"])
def test_folders_with_five_inputs_do_img2img_everywhere(
    contract: str,
    written: Written,
    kept: dict,
    tmp_path: Path,
) -> None:
    models, done = repaired(written(contract, "sd", *BASE), tmp_path)
    assert done == [RANK4, "encoder-z"]
    assert demand(models, "img2img on swift>=1.1") == 0
    assert demand(models, "img2img on swift>=0.4") == 0
    modern = written("0.4.0", "sd", "vae_encoder")["vae_encoder"]
    np.testing.assert_array_equal(moments(models["vae_encoder"]), moments(modern))
    for consumer in ("S4", "S6", "S7", "S8", "M4.3"):
        result = play(models, consumer, kept)
        assert result.psnr >= LOWEST_PSNR, (consumer, result.failure)


@pytest.mark.long
def test_folders_of_today_work_in_releases_of_2023(
    written: Written,
    kept: dict,
    tmp_path: Path,
) -> None:
    source = written("1.1.0", "sd", *BASE)
    assert "Encoder.swift:96" in play(source, "S5", kept).failure
    models, done = repaired(source, tmp_path)
    assert done == [RANK4, "encoder-z"]
    assert demand(models, "img2img on swift>=0.4") == 0
    np.testing.assert_array_equal(moments(models["vae_encoder"]), moments(source["vae_encoder"]))
    for consumer in ("S4", "S5", "S8"):
        assert play(models, consumer, kept).psnr >= LOWEST_PSNR


@pytest.mark.long
def test_folders_of_today_work_in_the_release_with_five_inputs(
    written: Written,
    kept: dict,
    tmp_path: Path,
) -> None:
    models, done = repaired(written("main", "sd", *BASE), tmp_path, "--for", "swift==0.3.0")
    assert done == ["encoder-legacy"]
    assert demand(models, "img2img on swift==0.3.0") == 0
    result = play(models, "S3", kept)
    assert result.psnr >= LOWEST_PSNR
    reference = play(written("0.3.0", "sd", *BASE), "S3", kept)
    # 0.3.0 had attention of other ranks, whose operations are fused and rounded otherwise
    assert result.pictures is not None
    assert reference.pictures is not None
    np.testing.assert_allclose(result.pictures, reference.pictures, atol=0.02)


@pytest.mark.long
def test_float16_outputs_work_in_releases_that_do_not_convert(
    written: Written,
    converted: Converted,
    kept: dict,
    tmp_path: Path,
) -> None:
    source = written("0.4.0", "sd", *BASE)
    source |= {name: converted("0.4.0", name, outputs="FLOAT16") for name in ("vae_decoder", "vae_encoder")}
    assert "read without conversion" in play(source, "S5", kept).failure
    models, done = repaired(source, tmp_path)
    assert done == [RANK4, "float32-outputs", "float32-outputs"]
    assert demand(models, "img2img on swift>=0.4") == 0
    assert play(models, "S5", kept).psnr >= LOWEST_PSNR
    np.testing.assert_array_equal(moments(models["vae_encoder"]), moments(source["vae_encoder"]).astype(np.float32))


@pytest.mark.long
def test_sdxl_of_today_works_in_main_of_august_2023(
    written: Written,
    kept: dict,
    tmp_path: Path,
) -> None:
    source = written("1.1.0", "xl", *XL)
    assert "time_ids of 12 values" in play(source, "S6", kept, xl=True, image=False).failure
    models, done = repaired(source, tmp_path, "--for", "S6")
    assert done == [RANK4, RANK4, "encoder-z", "time-ids-flat"]
    assert cli.main(["inspect", str(tmp_path / "repaired"), "--require", "img2img on S6", "--accept-degraded"]) == 0
    for image in (False, True):
        mended = play(models, "S6", kept, xl=True, image=image)
        assert mended.psnr >= LOWEST_PSNR, mended.failure
    np.testing.assert_array_equal(moments(models["vae_encoder"]), moments(source["vae_encoder"]))


@pytest.mark.long
def test_sdxl_of_august_2023_gets_two_axes(
    written: Written,
    kept: dict,
    tmp_path: Path,
) -> None:
    source = written("C6", "xl", *XL)
    models, done = repaired(source, tmp_path, "--only", "time-ids-rows")
    assert done == ["time-ids-rows"]
    assert demand(models, "txt2img on swift>=1.1") == 0
    flat, rows = (play(each, "S7", kept, xl=True, image=False) for each in (source, models))
    assert rows.psnr >= LOWEST_PSNR
    np.testing.assert_array_equal(flat.pictures, rows.pictures)


@pytest.mark.long
def test_compressed_folders_are_repaired_too(
    written: Written,
    converted: Converted,
    kept: dict,
    tmp_path: Path,
) -> None:
    source = written("0.3.0", "sd", *BASE) | {"vae_encoder": converted("0.3.0", "vae_encoder", compression="affine8")}
    models, done = repaired(source, tmp_path)
    assert done == [RANK4, "encoder-z"]
    assert inspect(models["vae_encoder"]).components[0].fingerprint.compression == ("8-bit linear",)
    assert play(models, "S7", kept).psnr >= 30.0  # 8-bit weights
