"""Each family of models draws what was accepted of it, and a golden knows every checkpoint that took part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from parity import assets
from parity.suite.options import Options
from parity.suite.plan import Cell, cells
from parity.suite.run import Run

REFINED = {"model_version": "tiny-sdxl", "refiner": "tiny-sdxl-refiner"}
CONTROLLED = {"model_version": "tiny-sd", "controlnet": ("tiny-controlnet",)}
LONG = pytest.mark.slow  # 15 to 100 steps, on models that a quick case asks as well


def goldens(**given: Any) -> dict[str, Cell]:
    return {cell.case.name: cell for cell in cells(Options(**given, compatibility="none")) if cell.kind == "golden"}


@pytest.mark.long
@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"model_version": "tiny-sdxl-turbo"}, ["txt2img-turbo"]),
        (REFINED, ["refined-euler"]),
        ({"model_version": "tiny-sdxl-refiner"}, ["img2img-scores"]),
        ({"model_version": "tiny-inpaint"}, ["inpaint-ddim"]),
        (CONTROLLED, ["controlnet-part"]),
        ({"model_version": "tiny-sd3"}, ["txt2img-flow-heun"]),
        ({"model_version": "shapes-ddpm"}, ["unconditional-ddim"]),
        pytest.param(CONTROLLED, [], marks=LONG),
        pytest.param(REFINED, [], marks=LONG),
        pytest.param({"model_version": "tiny-inpaint"}, [], marks=LONG),
        pytest.param({"model_version": "tiny-sd3"}, [], marks=LONG),
        pytest.param({"model_version": "shapes-ddpm"}, [], marks=LONG),
    ],
)
def test_a_family_draws_what_was_accepted(given: dict[str, Any], names: list[str]) -> None:
    planned, run = goldens(**given), Run(Options(**given, compatibility="none"))
    for name in names or planned:
        record = run.ask(planned[name])
        assert record["verdict"] == "pass", record["explanation"]


def test_a_golden_is_of_its_controlnets(tmp_path: Path) -> None:
    cases = tmp_path / "cases.toml"
    cases.write_text(
        '[[case]]\nname = "edges"\ntask = "controlnet"\nsteps = 2\nscheduler = "ddim"\nprompt = "a red circle"\n'
        f'control = "{assets.fixtures() / "pictures" / "edges.png"}"\n'
    )
    given = {"model_version": "tiny-sd", "cases": cases, "compatibility": "none", "golden_dir": tmp_path / "golden"}
    for name, update in (("tiny-controlnet", True), ("tiny-controlnet-2", False)):
        asked = Options(**given, controlnet=(name,), update_golden=update)
        record = Run(asked).ask(next(cell for cell in cells(asked) if cell.kind == "golden"))
    assert record["verdict"] == "fail", record["explanation"]
    assert "was made with controlnet" in record["explanation"]
