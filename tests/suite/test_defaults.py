"""A model is asked what its family draws."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from parity import recipes
from parity.models import family
from parity.suite import defaults
from parity.suite.options import Options
from parity.suite.plan import cells


@pytest.mark.parametrize(
    ("options", "tasks"),
    [
        (Options(), {"txt2img", "img2img"}),
        (Options("tiny-sd"), {"txt2img", "img2img"}),
        (Options("tiny-sdxl-turbo"), {"txt2img", "img2img"}),
        (Options("tiny-sdxl-refiner"), {"img2img"}),
        (Options("tiny-inpaint"), {"inpaint"}),
        (Options("shapes-ddpm"), {"unconditional"}),
        (Options("tiny-sd", controlnet=("tiny-controlnet",)), {"txt2img", "img2img", "controlnet"}),
    ],
)
def test_a_familys_cases_fit_its_tasks(options: Options, tasks: set[str]) -> None:
    found = defaults.asked(options)
    assert {case.request.task for case in found} == tasks
    assert tasks <= {task for task in family.TASKS[family.identify(options.model_version)]}
    assert all(picture.is_file() for case in found for picture in case.pictures)
    assert all(len(case.request.control) <= len(options.controlnet) for case in found)


def test_what_is_named_beside_a_model_has_cases() -> None:
    refined = defaults.asked(Options("tiny-sdxl", refiner="tiny-sdxl-refiner"))
    assert [case.request.refiner_start for case in refined if case.request.refiner_start] == [0.8]
    two = defaults.asked(Options("tiny-sd", controlnet=("tiny-controlnet", "tiny-controlnet-2")))
    assert max(len(case.request.control) for case in two) == 2
    assert any(case.request.safety_checker for case in defaults.asked(Options("tiny-sd-checked")))


def test_a_checker_is_asked_where_the_users_models_hold_one(tmp_path: Path) -> None:
    def asked() -> bool:
        return any(case.request.safety_checker for case in defaults.asked(Options("tiny-sd-checked", models=tmp_path)))

    assert not asked()
    (tmp_path / "SafetyChecker.mlmodelc").mkdir()
    assert asked()


def test_a_family_is_told_without_reading_weights(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(recipes.build("tiny-inpaint"), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    assert family.identify(str(folder)) == "sd-inpaint"
    (folder / "model_index.json").write_text("{")
    assert family.identify(str(folder)) == ""
    assert family.identify("nobody/nothing") == ""


def test_ids_of_cells_are_unique_in_a_grid(tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    path.write_text('[[case]]\nname = "g"\ntask = "txt2img"\nprompt = ["a", "b"]\nsteps = [1, 2]\n')
    ids = [cell.id for cell in cells(Options("tiny-sd", cases=path))]
    assert len(ids) == len(set(ids)) == 4
    assert ids[0].startswith("candidate/g-prompt1-steps1/")
