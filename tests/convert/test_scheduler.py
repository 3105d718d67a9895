"""The scheduler's configuration beside the packages: written as the checkpoint has it, never another model's."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from parity import convert
from parity.contracts.capability import capabilities
from parity.contracts.inspect import inspect
from parity.convert import scheduler
from parity.errors import UsageError
from parity.models.source import Source, open_model

Model = Callable[[str], Path]
SWIFT = ("S1", "S4", "S7", "S8", "M6", "D2024-06")


def config(folder: Path) -> dict:
    return json.loads((folder / "scheduler" / "scheduler_config.json").read_text())


@pytest.mark.long
def test_what_a_converted_model_predicts_is_no_guess(model: Model, tmp_path: Path) -> None:
    """Its width is that of SD 1 and its id says nothing: the file beside the packages decides."""
    convert.convert(model("sd1"), tmp_path, components=["vae_decoder"], check=False)
    assert json.loads((tmp_path / scheduler.FILE).read_text()) == config(model("sd1"))
    for kind in ("epsilon", "v_prediction"):
        scheduler.write(tmp_path, predicting(model("sd1"), kind))
        bundle = inspect(tmp_path).bundles[0]
        assert bundle.facts["prediction_source"] == "scheduler"
        for consumer in SWIFT:
            found = {reason.rule for reason in capabilities(bundle).cell("txt2img", consumer).reasons}
            assert ("v-prediction" in found) == (kind == "v_prediction")
            assert not found & {"prediction-unknown", "prediction-assumed"}


def predicting(folder: Path, kind: str) -> Source:
    """Open a model as if its scheduler stated a kind of prediction."""
    source = open_model(folder)
    return replace(
        source, configs={**source.configs, "scheduler": {**source.configs["scheduler"], "prediction_type": kind}}
    )


def test_the_schedule_of_another_model_is_not_overwritten(model: Model, tmp_path: Path) -> None:
    path = scheduler.write(tmp_path, open_model(model("sd1")))
    written = path.read_bytes()
    with pytest.raises(UsageError, match=r"scheduler_config.json exists and is not the schedule of a/b.*--force"):
        convert.convert(model("sd2"), tmp_path, components=["vae_decoder"], identifier="a/b")
    assert [path.read_bytes()] == [file.read_bytes() for file in tmp_path.iterdir()] == [written]
    scheduler.check(tmp_path, open_model(model("sd1")), force=False)
    scheduler.check(tmp_path, open_model(model("sd2")), force=True)


def test_a_damaged_schedule_is_not_taken_for_the_models_own(model: Model, tmp_path: Path) -> None:
    (tmp_path / scheduler.FILE).write_text("{")
    with pytest.raises(UsageError, match="is not the schedule of"):
        scheduler.check(tmp_path, open_model(model("sd1")), force=False)


def test_a_loaded_pipeline_has_its_schedule_written(model: Model, tmp_path: Path) -> None:
    import diffusers

    from parity import quiet

    with quiet.loading():
        own = diffusers.DDIMScheduler.from_pretrained(model("sd2"), subfolder="scheduler")
        unet = diffusers.UNet2DConditionModel.from_pretrained(model("sd2"), subfolder="unet")
        vae = diffusers.AutoencoderKL.from_pretrained(model("sd2"), subfolder="vae")
        parts = {"text_encoder": None, "tokenizer": None, "safety_checker": None, "feature_extractor": None}
        pipeline = diffusers.StableDiffusionPipeline(
            vae=vae, unet=unet, scheduler=own, **parts, requires_safety_checker=False
        )
    written = json.loads(scheduler.write(tmp_path, open_model(pipeline, identifier="a/b")).read_text())
    assert written["prediction_type"] == "v_prediction"
    assert written == {
        name: value for name, value in pipeline.scheduler.config.items() if name != "_use_default_values"
    }
