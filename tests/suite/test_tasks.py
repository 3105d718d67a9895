"""Every task runs as a cell of the suite: on the reference runtime, by releases that have it, with little memory."""

from __future__ import annotations

import gc
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest

from parity import assets, convert, recipes
from parity.suite.options import Options
from parity.suite.plan import Cell, by_backend, cells
from parity.suite.run import Run
from parity.suite.stage import Stage
from tests.suite.planting import TINY

PICTURES = assets.fixtures() / "pictures"
PROMPT = 'prompt = "a photo of a red circle"'
INPAINT = f'{PROMPT}\ntask = "inpaint"\nimage = "{PICTURES / "start.png"}"\nmask = "{PICTURES / "mask.png"}"'
CONTROL = f'{PROMPT}\ntask = "controlnet"\ncontrol = "{PICTURES / "edges.png"}"'
HOLES = f'{PROMPT}\ntask = "controlnet-inpaint"\ncontrol = "{PICTURES / "holes.png"}"'
REFINED = f'{PROMPT}\ntask = "txt2img"\nrefiner_start = 0.5'
XL = {"model_version": "tiny-sdxl", "refiner": "tiny-sdxl-refiner"}
NETS = {"model_version": "tiny-sd", "controlnet": ("tiny-controlnet",)}


def options(folder: Path, text: str, **given: Any) -> Options:
    path = folder / "cases.toml"
    path.write_text(f'[[case]]\nname = "one"\nsteps = 4\nscheduler = "ddim"\n{text}\n', encoding="utf-8")
    return Options(**{"cases": path, "compatibility": "none", "tolerances": TINY, **given})


def ask(asked: Options, number: int = 0) -> dict[str, Any]:
    return Run(asked).ask(cells(asked)[number])


@pytest.mark.long
@pytest.mark.parametrize(
    ("text", "given", "networks"),
    [
        (INPAINT, {"model_version": "tiny-inpaint"}, {"vae_encoder", "text_encoder", "unet", "vae_decoder"}),
        (INPAINT, {"model_version": "tiny-sd"}, {"vae_encoder", "text_encoder", "unet", "vae_decoder"}),
        (CONTROL, NETS, {"text_encoder", "controlnet-1", "control-unet", "vae_decoder"}),
        (
            REFINED,
            XL,
            {"text_encoder", "text_encoder_2", "unet", "refiner", "vae_decoder"},
        ),
        pytest.param(
            f'{PROMPT}\ntask = "img2img"\nimage = "{PICTURES / "start.png"}"',
            {"model_version": "tiny-sdxl-refiner"},
            {"vae_encoder", "text_encoder_2", "unet", "vae_decoder"},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            f'{PROMPT}\ntask = "txt2img"\nsafety_checker = true\nimages = 2',
            {"model_version": "tiny-sd-checked"},
            {"text_encoder", "unet", "vae_decoder", "safety_checker"},
            marks=pytest.mark.slow,
        ),
        ('task = "unconditional"\nimages = 2', {"model_version": "shapes-ddpm"}, {"unconditional-unet"}),
        pytest.param(
            f'{PROMPT}\ntask = "txt2img"\nheight = 96\nwidth = 160',
            {"model_version": "tiny-sd"},
            {"text_encoder", "unet", "vae_decoder"},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_task_passes_on_the_reference_runtime(
    tmp_path: Path, text: str, given: dict[str, Any], networks: set[str]
) -> None:
    record = ask(options(tmp_path, text, **given))
    assert record["verdict"] == "pass", record["explanation"]
    assert {
        check["point"] for check in record["checks"] if not check["point"].startswith(("latents", "image"))
    } == networks
    assert {"reference", "candidate"} <= set(record["pictures"])


@pytest.mark.parametrize(
    ("text", "given", "says"),
    [
        (f'{PROMPT}\ntask = "txt2img"', {"model_version": "tiny-inpaint"}, "it does inpaint, not txt2img"),
        (CONTROL.replace("edges", "none"), {"model_version": "tiny-sd"}, "none.png: no such picture"),
        (INPAINT.replace("mask.png", "mask.toml"), {"model_version": "tiny-inpaint"}, "mask.toml: no such picture"),
        (CONTROL, {"model_version": "tiny-sd"}, "1 control images, and 0 ControlNets are given"),
        (CONTROL, {"model_version": "shapes-sd", "controlnet": ("tiny-controlnet",)}, "tiny-controlnet"),
        (CONTROL, {"model_version": "tiny-sd", "controlnet": ("tiny-sd",)}, "tiny-sd"),
        (REFINED, {"model_version": "tiny-sdxl"}, "name its checkpoint with --refiner"),
        (REFINED, {**XL, "refiner": "tiny-sd"}, "takes over from a base model of SDXL"),
        (f'{PROMPT}\ntask = "txt2img"\nsafety_checker = true', {"model_version": "tiny-sd"}, "has no safety checker"),
    ],
)
def test_what_does_not_fit_is_bad_input(tmp_path: Path, text: str, given: dict[str, Any], says: str) -> None:
    record = ask(options(tmp_path, text, **given))
    assert record["verdict"] == "unknown"
    assert says in record["bad_input"][0]


@pytest.mark.long
def test_a_size_that_the_users_models_do_not_have_is_named(tmp_path: Path) -> None:
    unet = convert.cached(recipes.build("tiny-sd"), components=("unet",))["unet"]
    text = f'{PROMPT}\ntask = "txt2img"\nheight = 96\nwidth = 96'
    record = ask(options(tmp_path, text, model_version="tiny-sd", models=unet))
    assert "96x96 pixels are asked, and the models in" in record["bad_input"][0]
    assert "draw 128x128" in record["bad_input"][0]


@pytest.mark.long
def test_a_unet_of_batch_one_is_asked_for_each_row(tmp_path: Path) -> None:
    models = tmp_path / "models"
    for package in convert.cached(recipes.build("tiny-sd"), batch=1).values():
        shutil.copytree(package, models / package.name)
    record = ask(
        options(tmp_path, f'{PROMPT}\ntask = "txt2img"\nguidance_scale = 5.0', models=models, model_version="tiny-sd")
    )
    assert record["verdict"] == "pass", record["explanation"]
    assert len([check for check in record["checks"] if check["point"] == "unet"]) >= 1


@pytest.mark.long
@pytest.mark.parametrize(
    ("text", "given", "networks"),
    [
        (CONTROL, {**NETS, "producers": ("swift==0.4.0",)}, {"controlnet-1", "control-unet"}),
        (HOLES, {**NETS, "producers": ("swift==1.1.0",)}, {"controlnet-1", "control-unet"}),
        (f'{PROMPT}\ntask = "txt2img"', {**XL, "producers": ("swift==1.1.0",)}, {"unet", "refiner"}),
    ],
)
def test_a_release_draws_the_tasks_that_it_has(
    tmp_path: Path, text: str, given: dict[str, Any], networks: set[str]
) -> None:
    asked = options(tmp_path, text.replace("task", 'rng = "numpy-legacy"\ntask', 1), **given)
    text = asked.cases.read_text().replace('"ddim"', '"pndm"') if asked.cases else ""
    (tmp_path / "cases.toml").write_text(text)
    record = ask(asked)
    assert record["verdict"] == "pass", record["explanation"]
    assert networks <= {check["point"] for check in record["checks"]}


@pytest.mark.parametrize(
    ("text", "who", "says"),
    [
        (INPAINT, "swift==1.1.0", "has no task inpaint; it has txt2img, img2img, controlnet, controlnet-inpaint"),
        (CONTROL + "\ncontrol_scale = 0.5", "swift==1.1.0", "no scales and no shares"),
        (CONTROL, "swift==0.3.0", "has no task controlnet"),
        (f'{PROMPT}\ntask = "txt2img"\ngenerators = "each"', "swift==1.1.0", "no list of generators"),
        (REFINED, "swift==1.1.0", "refiner_start = 0.5 is asked"),
    ],
)
def test_a_release_says_what_it_does_not_have(tmp_path: Path, text: str, who: str, says: str) -> None:
    asked = options(tmp_path, text, producers=(who,), **NETS)
    (tmp_path / "cases.toml").write_text((tmp_path / "cases.toml").read_text().replace('"ddim"', '"pndm"', 1))
    assert says in cells(asked)[0].unavailable


@pytest.mark.long
def test_little_memory_gives_the_same_records(tmp_path: Path) -> None:
    def kept(record: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in record.items() if name != "seconds"}

    plain, frugal = (options(tmp_path, CONTROL, **NETS, reduce_memory=frugal) for frugal in (False, True))
    assert kept(ask(plain)) == kept(ask(frugal))


@pytest.mark.long
def test_little_memory_holds_one_network_at_a_time(tmp_path: Path) -> None:
    asked = options(tmp_path, f'{PROMPT}\ntask = "txt2img"', model_version="tiny-sd", reduce_memory=True)
    stage = Stage(asked)
    (case,) = stage.cases
    loaded: list[set[str]] = []
    text = stage.reference.component("text_encoder")
    forgotten = weakref.ref(text._module)  # type: ignore[attr-defined]
    del text
    load = stage.reference._load

    def watched(name: str) -> Any:
        loaded.append({*stage.reference._loaded, name})
        return load(name)

    stage.reference._load = watched  # type: ignore[method-assign]
    stage.reference.release()
    gc.collect()
    assert forgotten() is None
    stage.run(stage.reference, case)
    assert loaded == [{"text_encoder"}, {"unet"}, {"vae_decoder"}]


def test_cells_of_one_backend_are_asked_together_and_reported_in_order(tmp_path: Path) -> None:
    class Recorded(Run):
        asked: list[str]
        let_go = 0

        def ask(self, cell: Cell) -> dict[str, Any]:
            self.asked.append(cell.id)
            return {"id": cell.id}

        def release(self) -> None:
            self.let_go += 1
            super().release()

    asked = options(tmp_path, f'{PROMPT}\ntask = "txt2img"\nseed = [1, 2]', backend=("coreml", "torch:cpu:float16"))
    planned = cells(asked)
    run = Recorded(asked)
    run.asked = []
    records = run.ask_all(planned)
    assert [record["id"] for record in records] == [cell.id for cell in planned]
    assert [name.rpartition("/")[2] for name in run.asked] == [
        "coreml",
        "coreml",
        "torch:cpu:float16",
        "torch:cpu:float16",
    ]
    assert run.let_go == 1
    assert by_backend(planned) == [0, 2, 1, 3]


@pytest.mark.slow
def test_a_played_network_names_the_operation_at_fault(tmp_path: Path) -> None:
    given = {**NETS, "producers": ("swift==1.1.0",), "tolerances": None}
    asked = options(tmp_path, CONTROL, **given)
    path = tmp_path / "cases.toml"  # from the last timestep, where the embedding's angles are largest
    path.write_text(path.read_text().replace("steps = 4", "steps = 3").replace("ddim", "dpm++"))
    record = ask(asked)
    for point in ("controlnet-1", "control-unet"):  # both embed the timestep
        messages = [check["message"] for check in record["checks"] if check["point"] == point]
        assert any("cause: the timestep embedding is computed in float16" in message for message in messages)
    assert sum("the timestep embedding is computed in float16 (" in remark for remark in record["remarks"]) == 2
