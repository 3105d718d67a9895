"""The suite writes run folders: from the command line, from pytest, from xdist's workers; resumed in each."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from parity import cli
from parity.runs import ledger
from parity.runs.result import result
from parity.suite.evaluate import Evaluator
from parity.suite.outcome import Outcome
from parity.suite.plan import Cell
from tests.suite.planting import TINY

pytest_plugins = ["pytester"]

SCHEDULERS = ("euler", "ddim", "pndm", "dpm++")
CASE = '[[case]]\nname = "{0}"\ntask = "txt2img"\nprompt = "a ring"\nscheduler = "{0}"\nsteps = 2\n'
STAGED = """
import os
from pathlib import Path
from parity.suite.comparison import Check
from parity.suite.evaluate import Evaluator
from parity.suite.outcome import Outcome
from parity.suite.verdict import Verdict


def evaluate(self, cell):
    with Path("asked").open("a") as stream:
        stream.write(cell.case.name + "\\n")
    with Path(f"asked-by-{os.getpid()}").open("a") as stream:
        stream.write(f"{cell.case.name} {cell.backend}\\n")
    if Path(f"crash-{cell.case.name}").exists():
        os._exit(1)
    if Path(f"stop-{cell.case.name}").exists():
        raise KeyboardInterrupt
    return Outcome(cell, (Check("image", "image", "", float("nan"), float("nan"), Verdict.PASS, ""),), {}, "")


Evaluator.evaluate = evaluate
"""

BACKENDS = """[pytest]
parity_cases = cases.toml
parity_model_version = tiny-sd
parity_run_dir = night
parity_backend = torch:cpu torch:float16
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makefile(".toml", cases="".join(map(CASE.format, SCHEDULERS)))
    pytester.makeconftest(STAGED)
    pytester.makeini(
        "[pytest]\nparity_cases = cases.toml\nparity_coreml_runtime = reference\nparity_model_version = tiny-sd\n"
        "parity_run_dir = night\n"
    )
    return pytester


def suite(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest_subprocess("--pyargs", "parity.suite", *arguments)


def held(project: pytest.Pytester) -> list[str]:
    return sorted(entry.record["case"] for entry in ledger.read(project.path / "night").entries)


def asked(project: pytest.Pytester) -> list[str]:
    return sorted((project.path / "asked").read_text().split())


@pytest.mark.long
def test_an_interrupted_session_goes_on(project: pytest.Pytester) -> None:
    stop = project.path / "stop-pndm"
    stop.touch()
    assert suite(project).ret == pytest.ExitCode.INTERRUPTED
    assert held(project) == ["ddim", "euler"]
    stop.unlink()
    result = suite(project)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "parity: --run-dir night: it holds a run of 2 finished cells" in result.stderr.str()
    result = suite(project, "--resume")
    result.assert_outcomes(passed=2, deselected=2)
    assert "2 cells were finished in night" in result.stdout.str()
    assert "4 pass, 0 fail, 0 unknown" in result.stdout.str()
    assert held(project) == sorted(SCHEDULERS)
    assert asked(project) == sorted([*SCHEDULERS, "pndm"])  # interrupted in it, so asked twice; the others once
    again = suite(project, "--resume")
    assert (again.ret, asked(project)) == (0, sorted([*SCHEDULERS, "pndm"]))
    assert "4 pass, 0 fail, 0 unknown" in again.stdout.str()


@pytest.mark.long
def test_workers_write_one_folder_and_one_that_dies_costs_its_cell(project: pytest.Pytester) -> None:
    (project.path / "crash-ddim").touch()
    suite(project, "-n", "2").assert_outcomes(passed=3, failed=1)
    found = ledger.read(project.path / "night")
    verdicts = {entry.record["case"]: entry.record["verdict"] for entry in found.entries}
    assert verdicts == {"euler": "pass", "ddim": "fail", "pndm": "pass", "dpm++": "pass"}
    assert [entry.sequence for entry in found.entries] == [1, 2, 3, 4]
    assert len(found.sessions) == 1
    assert [entry["case"] for entry in result(found).records] == list(SCHEDULERS)  # whoever was first


@pytest.mark.slow
@pytest.mark.parametrize("how", ["-n 2", "-n 1", "-n 8", "-n 2 --dist loadgroup"])
def test_any_number_of_workers_gives_the_same_report(project: pytest.Pytester, how: str) -> None:
    """Cells of two backends: each worker meets a backend once; table, report and folder are those of one process."""
    project.makefile(".ini", pytest=BACKENDS)
    single = suite(project, "--parity-report", "single", "--run-dir", "alone")
    several = suite(project, *how.split(), "--parity-report", "several")
    single.assert_outcomes(passed=8)
    several.assert_outcomes(passed=8)
    assert tables(several) == tables(single)
    documents = [json.loads((project.path / name / "report.json").read_text()) for name in ("single", "several")]
    assert documents[0]["records"] == documents[1]["records"]
    records = [result(ledger.read(project.path / name)).records for name in ("alone", "night")]
    assert records[0] == records[1]
    for path in project.path.glob("asked-by-*"):
        backends = [line.split()[1] for line in path.read_text().splitlines()]
        assert len([key for key, _ in itertools.groupby(backends)]) == len(set(backends))


def tables(found: pytest.RunResult) -> list[str]:
    """Return the lines of the table."""
    lines = found.outlines
    return lines[lines.index(next(line for line in lines if line.startswith("verdict "))) :][:10]


@pytest.mark.long
def test_workers_leave_out_what_is_finished_also_one_that_comes_later(project: pytest.Pytester) -> None:
    suite(project, "-k", "ddim").assert_outcomes(passed=1, deselected=3)
    (project.path / "crash-pndm").touch()
    suite(project, "-n", "1", "--resume").assert_outcomes(passed=2, failed=1)
    assert held(project) == sorted(SCHEDULERS)
    assert asked(project) == sorted(SCHEDULERS)


def test_the_command_line_goes_on_and_asks_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cases.toml").write_text("".join(map(CASE.format, SCHEDULERS)))
    namespace: dict[str, object] = {}
    monkeypatch.setattr(Evaluator, "evaluate", Evaluator.evaluate)
    exec(STAGED, namespace)
    arguments = ["run", "--cases", "cases.toml", "--model-version", "tiny-sd", "--coreml-runtime", "reference"]
    arguments += ["--run-dir", "night"]
    Path("stop-pndm").touch()
    assert cli.main(arguments) == 130
    Path("stop-pndm").unlink()
    assert cli.main([*arguments, "--resume"]) == 0
    captured = capsys.readouterr()
    assert "2 of 4 cells are finished in night" in captured.err
    assert "4 pass, 0 fail, 0 unknown" in captured.out
    assert sorted(Path("asked").read_text().split()) == sorted([*SCHEDULERS, "pndm"])
    assert cli.main([*arguments, "--resume", "--seed", "8"]) == 2
    assert "seed 93 there, 8 here" in capsys.readouterr().err
    assert cli.main(["run", "--resume"]) == 2
    assert "--resume needs --run-dir DIR" in capsys.readouterr().err


def test_a_full_disk_ends_the_run_with_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from parity.runs.ledger import Appender
    from parity.suite import comparison

    add, lines = Appender.add, [0]

    def limited(self: Appender, *content: bytes) -> None:
        lines[0] += 1
        if lines[0] > 3:  # the session's and two cells'
            raise OSError(28, "No space left on device")
        add(self, *content)

    def evaluate(self: Evaluator, cell: Cell) -> Outcome:
        return Outcome(cell, (comparison.unknown("image", "x"),), {}, "")

    monkeypatch.setattr(Appender, "add", limited)
    monkeypatch.setattr(Evaluator, "evaluate", evaluate)
    (tmp_path / "cases.toml").write_text("".join(map(CASE.format, SCHEDULERS)))
    arguments = ["run", "--cases", tmp_path / "cases.toml", "--model-version", "tiny-sd", "--run-dir", tmp_path / "n"]
    assert cli.main([*map(str, arguments)]) == 2
    said = capsys.readouterr().err
    assert "cannot be written: No space left on device; 2 finished cells are kept in it; make room and go on" in said
    assert "Traceback" not in said
    assert len(ledger.read(tmp_path / "n").entries) == 2


DIES = """
import os, signal, sys
from parity.networks.backend import Backend


class Dies(Backend):
    name, numerics, precision = "dies", "dies (float16)", "float16"

    def _load(self, name):
        print("compiling for a device that ends the process", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


class Opener:
    def resolve(self, words):
        return "dies (float16)"

    def open(self, words, subject):
        return Dies()
"""


@pytest.mark.slow
@pytest.mark.parametrize("program", ["parity run", "pytest"])
def test_a_backend_that_ends_its_process_costs_its_cell_alone(pytester: pytest.Pytester, program: str) -> None:
    """The whole path: another package's backend is killed while it loads, the one behind it is judged."""
    pytester.makepyfile(dies_backend=DIES)
    info = pytester.path / "dies_backend-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dies-backend\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[parity.backends]\ndies = dies_backend:Opener\n")
    pytester.makefile(".toml", cases=CASE.format("euler").replace("steps = 2", "steps = 1"))
    options = ["--model-version=tiny-sd", "--cases=cases.toml", "--isolate", "--run-dir=night"]
    options += ["--backend=dies", "--backend=coreml:reference", f"--tolerances={TINY}"]
    command = ["parity", "run"] if program == "parity run" else ["pytest", "--pyargs", "parity.suite"]
    path = os.pathsep.join([str(pytester.path), str(Path(__file__).parents[2])])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-m", *command, *options], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 1, done.stderr
    dead, judged = (entry.record for entry in ledger.read(pytester.path / "night").entries)
    assert (dead["verdict"], dead["checks"][0]["where"]) == ("fail", "SIGKILL")
    assert "| compiling for a device that ends the process" in dead["explanation"]
    assert dead["id"] == "candidate/euler/dies"
    assert judged["verdict"] == "pass"
    assert set(judged["pictures"]) == {"reference", "candidate", "latents"}
