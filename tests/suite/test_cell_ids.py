"""Every cell has an id of its own, and the command that is printed for it plans exactly that cell again."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest

from parity.commands import run as command
from parity.coreai import availability
from parity.errors import UsageError
from parity.suite import options as suite_options
from parity.suite import plan
from parity.suite.options import Options
from parity.suite.outcome import reproduce

RUNS = {
    "default": Options(),
    "all combinations": Options(compatibility="all"),
    "some units": Options(compute_unit=("CPU_AND_NE", "ALL"), compatibility="none"),
    "native": Options(coreml_runtime="native", compatibility="none", parity_strict=True, parity_report=Path("out")),
    "backends": Options(backend=("torch:cpu:float16", "coreml", "coreml:reference:float32", "coreml:CPU_AND_NE")),
    "backends and units": Options(backend=("torch", "coreml:reference"), compute_unit=("ALL", "CPU_ONLY")),
    "native units and backends": Options(
        backend=("coreml:ALL", "coreml:reference"), compute_unit=("ALL", "CPU_ONLY"), coreml_runtime="native"
    ),
    "another seed": Options(seed=5, rng="numpy-legacy", model_version="tiny-sd", golden_dir=Path("my golden")),
}


@pytest.fixture(autouse=True)
def _planned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan once for options that differ in ``--cell`` alone; let Core AI's cell be planned wherever the test runs."""
    kept = lru_cache(plan._planned)
    monkeypatch.setattr(plan, "_planned", lambda options: kept(replace(options, cell=())))
    monkeypatch.setattr(availability, "reason", lambda convert=False: "")
    monkeypatch.setattr(availability, "require", lambda convert=False: None)


def parsed(line: str) -> Options:
    """Read a printed command as the command line does."""
    program, name, *words = shlex.split(line)
    assert (program, name) == ("parity", "run")
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return suite_options.read(vars(parser.parse_args(words)))


@pytest.mark.long
@pytest.mark.parametrize("name", RUNS)
def test_ids_are_unique_and_the_printed_command_plans_exactly_that_cell(name: str) -> None:
    cells = plan.cells(RUNS[name])
    assert len({cell.id for cell in cells}) == len(cells)
    for cell in cells:
        assert plan.cells(parsed(reproduce(RUNS[name], cell))) == [cell]


def test_an_id_is_kind_case_and_candidate() -> None:
    ids = {cell.id for cell in plan.cells(Options(backend=("torch:cpu:float16",), compute_unit=("ALL",)))}
    assert {"golden/txt2img-ddim", "candidate/txt2img-ddim/torch:cpu:float16"} <= ids
    assert "compatibility/1.1.0-in-S6-multi-controlnet-pndm" in {
        cell.id for cell in plan.cells(Options(compatibility="all"))
    }


def test_an_id_does_not_depend_on_the_other_units_of_a_run() -> None:
    """Units that share numerics are one candidate, however many were asked for."""
    for units in (("ALL",), ("CPU_ONLY", "CPU_AND_NE")):
        cells = plan.cells(Options(coreml_runtime="reference", compute_unit=units, compatibility="none"))
        assert "candidate/txt2img-ddim/coreml:reference" in {cell.id for cell in cells}
    native = plan.cells(Options(coreml_runtime="native", compute_unit=("CPU_AND_NE",), compatibility="none"))
    assert "candidate/txt2img-ddim/coreml:CPU_AND_NE" in {cell.id for cell in native}


def test_a_unit_that_is_also_named_as_backend_is_one_candidate() -> None:
    options = RUNS["native units and backends"]
    ids = [cell.id for cell in plan.cells(options) if cell.case.name == "txt2img-ddim" and cell.kind == "candidate"]
    assert sorted(ids) == [f"candidate/txt2img-ddim/coreml:{word}" for word in ("ALL", "CPU_ONLY", "reference")]


def test_several_cells_are_run_in_the_order_of_the_plan() -> None:
    wanted = ("golden/txt2img-ddim", "golden/img2img-pndm", "golden/txt2img-pndm")
    found = [cell.id for cell in plan.cells(replace(Options(), cell=wanted))]
    assert found == ["golden/txt2img-pndm", "golden/txt2img-ddim", "golden/img2img-pndm"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("golden/txt2img-dim", "did you mean golden/txt2img-ddim"),
        ("img2img-pndm", "did you mean golden/img2img-pndm"),
        ("?", "there is golden/txt2img-pndm, for example"),
    ],
)
def test_an_unknown_id_is_refused_with_the_nearest(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=r"--cell .*: none of the 15 cells of this run has that id") as caught:
        plan.cells(Options(cell=(text,), compatibility="none"))
    assert says in str(caught.value)
