"""A whole run as on a Mac: four units, each a candidate with a verdict of its own, by command line and by pytest."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from parity import cli, convert, coreml, recipes
from tests.suite.macos import pretended

pytest_plugins = ["pytester"]

CASES = '[[case]]\nname = "quick"\ntask = "txt2img"\nprompt = "a ring"\nscheduler = "euler"\nsteps = 1\n'
IDS = {unit: f"candidate/quick/coreml:{unit}" for unit in coreml.COMPUTE_UNITS}
BROKEN = "CPU_AND_GPU"
BOUNDS = {"CPU_ONLY": 35.0, "CPU_AND_GPU": 35.0, "CPU_AND_NE": 30.0, "ALL": 30.0}  # of the UNet, in tolerances.toml


@dataclass(frozen=True)
class Seen:
    """What the command line gave: exit code, both streams, records by cell id."""

    code: int
    out: str
    err: str
    records: dict[str, dict[str, Any]]


def records(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the records of a report by cell id."""
    return {record["id"]: record for record in json.loads((folder / "report.json").read_text())["records"]}


def parity_run(folder: Path, *arguments: object) -> Seen:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = cli.main(["run", *map(str, arguments), "--parity-report", str(folder)])
    return Seen(code, out.getvalue(), err.getvalue(), records(folder))


def unet(record: dict[str, Any]) -> dict[str, Any]:
    return next(check for check in record["checks"] if check["point"] == "unet")


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    convert.cached(recipes.find("tiny-sd"))  # before the platform has another name
    path = tmp_path_factory.mktemp("mac") / "cases.toml"
    path.write_text(CASES)
    return path


@pytest.fixture(scope="module")
def seen(cases: Path) -> Seen:
    """A run whose UNet is broken on one unit."""
    with pretended(defect=(BROKEN, "unet")):
        return parity_run(cases.parent / "all", "--model-version", "tiny-sd", "--cases", cases)


@pytest.mark.long
def test_four_units_are_four_candidates_with_bounds_and_values_of_their_own(seen: Seen) -> None:
    assert set(seen.records) == set(IDS.values())
    for unit, name in IDS.items():
        record = seen.records[name]
        assert (record["units"], record["backend"]) == ([unit], f"Core ML {unit}")
        assert unet(record)["bound"] == BOUNDS[unit]
    values = [unet(seen.records[IDS[unit]])["value"] for unit in ("CPU_ONLY", "ALL", "CPU_AND_NE", BROKEN)]
    assert values == sorted(set(values), reverse=True)  # the noisier the lower
    assert "3 pass, 1 fail, 0 unknown" in seen.out
    assert "reference runtime" not in seen.out


@pytest.mark.long
def test_a_defect_of_one_unit_fails_that_unit_alone(seen: Seen) -> None:
    assert seen.code == 1
    for unit, name in IDS.items():
        failed = {check["point"] for check in seen.records[name]["checks"] if check["verdict"] == "fail"}
        assert failed - {"image"} == ({"unet"} if unit == BROKEN else set())
        assert seen.records[name]["verdict"] == ("fail" if unit == BROKEN else "pass")
    assert f"on Core ML {BROKEN}\nunet/" in seen.err


@pytest.mark.long
def test_the_printed_command_repeats_that_unit_alone(seen: Seen, tmp_path: Path) -> None:
    (line,) = (line for line in seen.err.splitlines() if "reproduce: " in line)
    _, _, *words = shlex.split(line.partition("reproduce: ")[2])
    with pretended(defect=(BROKEN, "unet")):
        again = parity_run(tmp_path, *words)
    assert again.code == 1
    ((name, record),) = again.records.items()
    assert name == IDS[BROKEN]
    assert unet(record)["value"] == unet(seen.records[name])["value"]


@pytest.mark.long
def test_pytest_names_the_unit_that_fails(
    cases: Path, seen: Seen, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    with pretended(defect=(BROKEN, "unet")):
        result = pytester.runpytest_inprocess(
            *("--pyargs", "parity.suite", "-m", "parity", "-v", "--parity-report=out"),
            *("--model-version=tiny-sd", f"--cases={cases}"),
        )
    result.assert_outcomes(passed=3, failed=1)
    verdicts = {name: record["verdict"] for name, record in records(pytester.path / "out").items()}
    assert verdicts == {name: record["verdict"] for name, record in seen.records.items()}
    result.stdout.fnmatch_lines(
        [f"*on Core ML {BROKEN}* FAILED*", f"*reproduce: parity run * --cases {cases} --cell {IDS[BROKEN]}"]
    )
