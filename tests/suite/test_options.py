"""One declaration of options for the command line, pytest and ini; units that compute alike are one candidate."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

from parity import coreml
from parity.errors import MissingError, UsageError
from parity.suite import options as suite_options
from parity.suite import plan
from parity.suite.options import Option, Options
from parity.suite.question import question


def test_every_option_has_a_field_and_the_reverse() -> None:
    assert [option.key for option in suite_options.OPTIONS] == [field.name for field in dataclasses.fields(Options)]


def test_the_command_line_wins_over_ini_and_ini_over_the_default() -> None:
    ini = {"seed": "7", "rng": "numpy-legacy", "compute_unit": ["ALL"]}

    def fallback(option: Option) -> object:
        return ini.get(option.key)

    options = suite_options.read({"seed": 5}, fallback)
    assert (options.seed, options.rng, options.compute_unit, options.device) == (5, "numpy-legacy", ("ALL",), "cpu")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"compute_unit": ["NPU"]}, "CPU_ONLY, CPU_AND_GPU, CPU_AND_NE, ALL"),
        ({"device": "tpu"}, "cpu, mps, cuda"),
        ({"coreml_runtime": "fast"}, "auto, native, reference"),
        ({"seed": "x"}, "whole number"),
        ({"model_version": "somebody/else", "update_golden": True}, "--golden-dir"),
    ],
)
def test_values_that_are_not_allowed(given: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        suite_options.read(given)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="--models"):
        suite_options.read({"models": str(tmp_path / "none")})


def test_what_is_merged_into_the_original_decides_the_run(tmp_path: Path) -> None:
    lora = tmp_path / "style.safetensors"
    lora.write_bytes(b"")
    options = suite_options.read({"lora": [f"{lora}:0.5"]})
    assert options.ingredients.sentence() == "the original has LoRA style.safetensors at 0.5 merged in"
    assert options.goldens is None  # the shipped ones are of the model as it is
    asked, plain = question(options), question(Options())
    assert {key: asked[key] for key in asked.keys() - plain.keys()} == {
        "original lora style.safetensors": "scale 0.5 e3b0c44298fc1c14"
    }
    assert question(suite_options.read({"lora": [f"{lora}:0.6"]})) != asked


def test_goldens_are_the_shipped_ones_for_the_default_cases_only(tmp_path: Path) -> None:
    assert Options().goldens is not None
    assert Options(seed=1).goldens is None
    assert Options(model_version="x").goldens is None
    assert Options(model_version="x", golden_dir=tmp_path).goldens == tmp_path


def test_units_with_the_same_numerics_are_one_candidate() -> None:
    cells = plan.cells(Options(coreml_runtime="reference"))
    candidates = [cell for cell in cells if cell.kind == "candidate"]
    assert {cell.units for cell in candidates} == {coreml.COMPUTE_UNITS}
    assert all("reference runtime" in cell.sentence for cell in candidates)
    assert not any("CPU_AND_NE" in cell.sentence for cell in candidates)


@pytest.mark.skipif(sys.platform == "darwin", reason="on macOS the native runtime is there")
def test_the_native_runtime_away_from_macos_is_planned_as_unavailable() -> None:
    cells = [
        c for c in plan.cells(Options(coreml_runtime="native", compute_unit=("CPU_AND_NE",))) if c.kind == "candidate"
    ]
    assert all("macOS" in cell.unavailable for cell in cells)
    assert all(cell.numerics == "Core ML CPU_AND_NE" for cell in cells)
