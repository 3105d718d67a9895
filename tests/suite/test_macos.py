"""A whole run as on a Mac: four units, each a candidate with a verdict of its own, by command line and by pytest."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from parity import cli, convert, coreml, recipes
from tests.suite.macos import pretended

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
CASES = '[[case]]\nname = "quick"\ntask = "txt2img"\nprompt = "a ring"\nscheduler = "euler"\nsteps = 2\n'
IDS = {unit: f"candidate/quick/coreml:{unit}" for unit in coreml.COMPUTE_UNITS}
BOUNDS = {"CPU_ONLY": 35.0, "CPU_AND_GPU": 35.0, "CPU_AND_NE": 30.0, "ALL": 30.0}  # of the UNet, in tolerances.toml


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    convert.cached(recipes.find("shapes-sd"))  # before the platform has another name
    path = tmp_path / "cases.toml"
    path.write_text(CASES)
    return path


def records(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the records of a report by cell id."""
    return {record["id"]: record for record in json.loads((folder / "report.json").read_text())["records"]}


def unet(record: dict[str, Any]) -> dict[str, Any]:
    return next(check for check in record["checks"] if check["point"] == "unet")


def test_four_units_are_four_candidates_with_bounds_of_their_own(
    cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pretended():
        assert cli.main(["run", "--cases", str(cases), "--parity-report", str(tmp_path)]) == 0
    found = records(tmp_path)
    assert set(found) == set(IDS.values())
    for unit, name in IDS.items():
        record = found[name]
        assert (record["units"], record["backend"]) == ([unit], f"Core ML {unit}")
        assert record["verdict"] == "pass"
        assert unet(record)["bound"] == BOUNDS[unit]
    values = [unet(found[IDS[unit]])["value"] for unit in ("CPU_ONLY", "CPU_AND_GPU", "ALL", "CPU_AND_NE")]
    assert values == sorted(set(values), reverse=True)  # each its own numerics, the noisier the lower
    out = capsys.readouterr().out
    assert "4 pass, 0 fail, 0 unknown" in out
    assert "reference runtime" not in out


def test_a_defect_of_one_unit_fails_that_unit_alone_and_its_command_repeats_it(
    cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pretended(defect=("CPU_AND_GPU", "unet")):
        assert cli.main(["run", "--cases", str(cases), "--parity-report", str(tmp_path / "all")]) == 1
        err = capsys.readouterr().err
        (line,) = (line for line in err.splitlines() if "reproduce: " in line)
        _, *words = shlex.split(line.partition("reproduce: ")[2])
        assert cli.main([*words, "--parity-report", str(tmp_path / "one")]) == 1
    found = records(tmp_path / "all")
    assert {name for name, record in found.items() if record["verdict"] == "fail"} == {IDS["CPU_AND_GPU"]}
    assert {name for name, record in found.items() if record["verdict"] == "pass"} == {*IDS.values()} - {
        IDS["CPU_AND_GPU"]
    }
    failed = [check["point"] for check in found[IDS["CPU_AND_GPU"]]["checks"] if check["verdict"] == "fail"]
    assert "unet" in failed
    assert {"text_encoder", "vae_decoder"}.isdisjoint(failed)
    assert "on Core ML CPU_AND_GPU" in err
    (again,) = records(tmp_path / "one").values()
    assert (again["id"], unet(again)["value"]) == (IDS["CPU_AND_GPU"], unet(found[IDS["CPU_AND_GPU"]])["value"])


def test_pytest_names_the_unit_that_fails(
    cases: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makeconftest(
        f"import sys\nsys.path.append({str(ROOT)!r})\n"
        "from tests.suite.macos import pretended\n"
        "held = pretended(defect=('CPU_AND_NE', 'unet'))\n"
        "def pytest_configure(config): held.__enter__()\n"
        "def pytest_unconfigure(config): held.__exit__(None, None, None)\n"
    )
    result = pytester.runpytest_subprocess(
        *("--pyargs", "parity.suite", "-m", "parity", "-v", f"--cases={cases}", "--parity-report=out")
    )
    result.assert_outcomes(passed=3, failed=1)
    found = records(pytester.path / "out")
    assert {name: record["verdict"] for name, record in found.items()} == {
        name: "fail" if unit == "CPU_AND_NE" else "pass" for unit, name in IDS.items()
    }
    text = result.stdout.str()
    assert "on Core ML CPU_AND_NE] FAILED" in text
    assert f"reproduce: parity run --cases {cases} --cell {IDS['CPU_AND_NE']}" in text
