"""Requests, models and pictures that cannot be used are refused with one clear message."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from parity import assets, recipes
from parity.errors import FormatError, MissingError, ParityError, UnsupportedError, UsageError
from parity.models.model import Model
from parity.pipelines import pictures
from parity.pipelines import request as tasks
from parity.pipelines.producer import noise_of
from parity.pipelines.request import Request
from parity.pipelines.schedules import diffusers as schedulers
from parity.pipelines.schedules.diffusers import Schedule
from parity.pipelines.schedules.noise import Drawing

PICTURES = assets.fixtures() / "pictures"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"task": "outpaint"}, "txt2img, img2img"),
        ({"scheduler": "plms"}, "ddim, ddpm, deis, dpm"),
        ({"scheduler": "pndm", "schedule": Schedule(sigmas="karras")}, r"pndm takes no sigmas; .* deis, dpm\+\+"),
        ({"scheduler": "dpm++-2s", "schedule": Schedule(timestep_spacing="trailing")}, "takes no timestep_spacing"),
        ({"scheduler": "heun", "schedule": Schedule(rescale_betas_zero_snr=True)}, "takes no rescale_betas_zero_snr"),
        ({"scheduler": "euler", "schedule": Schedule(eta=0.5)}, "takes no eta; those that do: ddim, tcd"),
        ({"scheduler": "dpm2", "schedule": Schedule(prediction_type="sample")}, "dpm2 cannot do prediction_type 'samp"),
        ({"guidance_rescale": 1.5}, r"\[0, 1\]"),
        ({"steps": 0}, "at least 1"),
        ({"images": 0}, "at least 1"),
        ({"task": "img2img"}, "picture to start from"),
        ({"task": "img2img", "image": Path("x.png"), "strength": 0.0}, r"\(0, 1\]"),
        ({"task": "img2img", "image": Path("x.png"), "strength": 0.04, "steps": 10}, "leaves no step"),
        ({"task": "inpaint", "image": Path("x.png"), "mask": Path("m.png"), "strength": 1.1}, r"\(0, 1\]"),
        ({"task": "inpaint", "image": Path("x.png")}, "needs a mask"),
        ({"task": "inpaint", "mask": Path("m.png")}, "picture to start from"),
        ({"mask": Path("m.png")}, "mask: txt2img takes none"),
        ({"task": "controlnet"}, "a control image for each ControlNet"),
        ({"control": (Path("c.png"),)}, "txt2img takes no control images"),
        (
            {"task": "controlnet", "control": (Path("c.png"),), "control_scale": (1.0, 2.0)},
            "has 2 values for 1 control",
        ),
        (
            {"task": "controlnet", "control": (Path("c.png"),), "control_start": (0.5,), "control_end": (0.4,)},
            "start < end",
        ),
        ({"refiner_start": 1.0}, r"refiner_start must lie in \(0, 1\)"),
        ({"task": "controlnet", "control": (Path("c.png"),), "refiner_start": 0.5}, "not in controlnet"),
        ({"task": "unconditional"}, "know no texts"),
        ({"task": "unconditional", "prompt": "", "safety_checker": True}, "no safety checker"),
        ({"height": 64}, "both or neither"),
        ({"height": 63, "width": 64}, "height 63: a positive multiple of 8"),
        ({"generators": "two"}, "one, each"),
    ],
)
def test_bad_requests(fields: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Request(**{"task": "txt2img", "prompt": "x", **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"sigmas": "quadratic"}, "karras, exponential or beta, not 'quadratic'"),
        ({"timestep_spacing": "even"}, "leading, linspace or trailing"),
        ({"prediction_type": "v"}, "epsilon, v_prediction or sample, not 'v'"),
        ({"eta": 1.2}, r"\[0, 1\]"),
    ],
)
def test_a_set_up_that_nothing_takes(fields: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Schedule(**fields)


@pytest.mark.parametrize("name", list(schedulers.SCHEDULERS))
def test_the_table_of_schedulers_says_what_diffusers_classes_take(name: str) -> None:
    import diffusers

    entry = schedulers.SCHEDULERS[name]
    kind = getattr(diffusers, entry.kind)
    takes, steps = inspect.signature(kind.__init__).parameters, inspect.signature(kind.step).parameters
    assert entry.sigmas == all(f"use_{sigmas}_sigmas" in takes for sigmas in schedulers.SIGMAS)
    assert entry.spacing == ("timestep_spacing" in takes)
    assert entry.rescales == ("rescale_betas_zero_snr" in takes)
    assert entry.eta == ("eta" in steps)
    assert (entry.draws == "tree") == ("noise_sampler_seed" in takes)


@pytest.mark.long
@pytest.mark.parametrize("name", list(schedulers.SCHEDULERS))
def test_predictions_that_a_scheduler_cannot_do_are_those_that_diffusers_refuses(name: str) -> None:
    import torch

    entry = schedulers.SCHEDULERS[name]
    for prediction in schedulers.PREDICTIONS:
        made = getattr(__import__("diffusers"), entry.kind).from_config({"prediction_type": prediction, **entry.config})
        made.set_timesteps(4)
        sample = torch.ones(1, 4, 8, 8)
        try:
            made.step(sample, made.timesteps[0], sample)
        except (NotImplementedError, ValueError):
            assert prediction not in entry.predictions
        else:
            assert prediction in entry.predictions


def test_a_prediction_of_the_models_own_that_the_scheduler_cannot_do() -> None:
    with pytest.raises(
        UsageError, match=r"pndm cannot do prediction_type 'sample' \(scheduler_config.json of the model"
    ):
        schedulers.make("pndm", {"prediction_type": "sample"})


def test_rescaled_betas_do_not_go_with_predicted_noise() -> None:
    config = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    with pytest.raises(UsageError, match="timestep 999 is noise alone"):
        Drawing(schedulers.make("ddim", config), np.zeros).set_timesteps(5)
    Drawing(schedulers.make("ddim", {**config, "prediction_type": "v_prediction"}), np.zeros).set_timesteps(5)


def test_what_diffusers_refuses_is_said_with_the_schedulers_name() -> None:
    with pytest.raises(
        UnsupportedError, match=r"scheduler euler with this model's scheduler_config.json: .*Only one of"
    ):
        schedulers.make("euler", {"use_karras_sigmas": True, "use_beta_sigmas": True})
    with pytest.raises(UsageError, match="DDIMScheduler does not take 2000 steps: "):
        Drawing(schedulers.make("ddim", {}), np.zeros).set_timesteps(2000)


def test_a_brownian_tree_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedulers, "find_spec", lambda name: None)
    with pytest.raises(
        MissingError, match=r"dpm\+\+-sde: DPMSolverSDEScheduler needs torchsde; .*coreml-parity\[sde\]"
    ):
        schedulers.make("dpm++-sde", {})


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


def test_a_unet_of_other_channels_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(recipes.build("tiny-sd"), folder)
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "in_channels": 5}))
    with pytest.raises(FormatError, match="in_channels is 5"):
        _ = Model(str(folder)).latent_shape
    with pytest.raises(UnsupportedError, match="its UNet takes 5 channels"):
        Model(str(folder)).check_tasks()


@pytest.mark.parametrize(
    ("model", "task", "says"),
    [
        ("tiny-inpaint", "txt2img", "takes 9 channels.*: it does inpaint, not txt2img"),
        ("tiny-sdxl", "inpaint", "model of SDXL: it does txt2img, img2img, controlnet, not inpaint"),
        ("tiny-sdxl-refiner", "txt2img", "SDXL's refiner: it does img2img, not txt2img"),
        ("shapes-ddpm", "txt2img", "without texts.*: it does unconditional, not txt2img"),
        ("tiny-sd", "unconditional", "it does txt2img, img2img, inpaint"),
    ],
)
def test_a_model_asked_for_another_task_says_which_it_does(model: str, task: str, says: str) -> None:
    with pytest.raises(UnsupportedError, match=says):
        Model(model).check_task(task)


def test_a_refiner_takes_over_from_a_base_model_alone() -> None:
    assert Model("tiny-sdxl", refiner="tiny-sdxl-refiner").refiner is not None
    for base, refiner in (("tiny-sdxl", "tiny-sdxl"), ("tiny-sd", "tiny-sdxl-refiner")):
        with pytest.raises(UnsupportedError, match="takes over from a base model of SDXL"):
            _ = Model(base, refiner=refiner).refiner


def test_a_refiner_of_other_embeddings_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "refiner"
    shutil.copytree(recipes.build("tiny-sdxl-refiner"), folder)
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "cross_attention_dim": 48}))
    with pytest.raises(UnsupportedError, match="reads embeddings of width 48, and the second text encoder"):
        _ = Model("tiny-sdxl", refiner=str(folder)).refiner


def saved(folder: Path, picture: Image.Image) -> Path:
    picture.save(folder / "picture.png")
    return folder / "picture.png"


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (Image.new("L", (64, 64), 255), "64x64 pixels, but the start picture start.png has 128x128"),
        (Image.new("RGBA", (128, 128), "white"), "mode RGBA, with transparency"),
        (Image.new("LA", (128, 128)), "mode LA, with transparency"),
        (Image.new("L", (128, 128), 0), "black everywhere"),
    ],
)
def test_masks_that_say_nothing_are_refused(tmp_path: Path, mask: Image.Image, says: str) -> None:
    asked = Request("inpaint", "x", image=PICTURES / "start.png", mask=saved(tmp_path, mask))
    with pytest.raises(FormatError, match=says):
        pictures.read_mask(asked, Model("tiny-sd"))


@pytest.mark.parametrize(
    ("picture", "holes", "says"),
    [
        (Image.new("RGB", (128, 64)), False, "128x64 pixels, but the pictures have 128x128: another shape"),
        (Image.new("RGBA", (128, 128)), False, "mode RGBA, with transparency.*only controlnet-inpaint"),
        (Image.new("RGB", (128, 128)), True, "no transparent pixels"),
    ],
)
def test_control_images_that_would_control_something_else_are_refused(
    tmp_path: Path, picture: Image.Image, holes: bool, says: str
) -> None:
    with pytest.raises(FormatError, match=says):
        pictures.read_control(saved(tmp_path, picture), Model("tiny-sd"), holes=holes)


def test_a_control_image_of_another_size_and_the_same_shape_is_resized(tmp_path: Path) -> None:
    read = pictures.read_control(saved(tmp_path, Image.new("L", (64, 64), 255)), Model("tiny-sd"))
    assert tuple(read.shape) == (1, 3, 128, 128)
    assert read.min() == 1


def test_seeds_are_what_the_producer_takes() -> None:
    asked = Request("txt2img", "x")
    for seed in (-1, 2**40, 2**64 - 1, -(2**63)):
        expected = torch.randn((1, 4, 4, 4), generator=torch.Generator().manual_seed(seed))
        assert (noise_of(asked, seed=seed, rng="torch-cpu")((1, 4, 4, 4)) == expected.numpy()).all()
    for seed, rng in ((-1, "numpy-legacy"), (2**32, "numpy-legacy"), (2**64, "torch-cpu")):
        with pytest.raises(ParityError, match=str(seed)):
            noise_of(asked, seed=seed, rng=rng)


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


def test_the_page_lists_every_scheduler_as_the_table_has_it() -> None:
    page = (Path(__file__).parents[2] / "docs" / "suite.md").read_text(encoding="utf-8")
    for name, entry in schedulers.SCHEDULERS.items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        _, _, kind, sigmas, spacing, rescales, predicts, draws, _ = (cell.strip() for cell in row.split("|"))
        assert entry.kind in kind or kind.startswith("the same")
        assert (bool(sigmas), bool(spacing), bool(rescales)) == (entry.sigmas, entry.spacing, entry.rescales), name
        assert predicts == ("all" if entry.predictions == schedulers.PREDICTIONS else "not `sample`")
        words = {"": "", "always": "yes", "eta": "with `eta` above 0", "tree": "a Brownian tree"}
        assert draws == words[entry.draws]
