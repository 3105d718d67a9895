"""The plugin in somebody else's project: ids that read like sentences, ini options, the table, the report, xdist."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.suite.planting import TINY

pytest_plugins = ["pytester"]

CASES = '[[case]]\nname = "quick"\ntask = "txt2img"\nprompt = "a ring"\nscheduler = "euler"\nsteps = 2\n'


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makefile(".toml", cases=CASES)
    pytester.makeini(
        "[pytest]\nparity_cases = cases.toml\nparity_coreml_runtime = reference\nparity_seed = 7\n"
        f"parity_model_version = tiny-sd\nparity_tolerances = {TINY}\n"
    )
    return pytester


@pytest.mark.long
def test_the_suite_runs_from_another_folder(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess("--pyargs", "parity.suite", "-m", "parity", "-v", "--parity-report", "out")
    result.assert_outcomes(passed=1)
    text = result.stdout.str()
    assert "test_parity[tiny-sd draws txt2img with euler, seed 7 of torch-cpu, on reference runtime" in text
    assert "1 pass, 0 fail, 0 unknown" in text
    record = json.loads((project.path / "out" / "report.json").read_text())["records"][0]
    assert record["settings"]["seed"] == 7
    assert (project.path / "out" / "index.html").is_file()


@pytest.mark.long
def test_a_report_that_cannot_be_written_is_one_line_after_the_table(project: pytest.Pytester) -> None:
    stage(project, "good")
    (project.path / "out" / "index.html").mkdir(parents=True)
    result = project.runpytest_subprocess("--pyargs", "parity.suite", "--parity-report", "out")
    assert result.ret == 2
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["1 pass, 0 fail, 0 unknown*", "parity: no report: out/index.html: *"])
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()


@pytest.mark.long
def test_a_defect_in_the_report_costs_no_table(project: pytest.Pytester) -> None:
    stage(project, "good")
    project.makeconftest(f"{STAGED}\nimport parity.report.html as page\npage.write = lambda *given: 1 // 0\n")
    result = project.runpytest_subprocess("--pyargs", "parity.suite", "--parity-report", "out")
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["1 pass, 0 fail, 0 unknown*", "parity: no report: stopped by ZeroDivisionError*"])


@pytest.mark.long
def test_the_command_line_wins_and_workers_report_too(project: pytest.Pytester) -> None:
    stage(project, "good")
    result = project.runpytest_subprocess(
        "--pyargs", "parity.suite", "-n", "1", "--seed", "8", "--compute-unit", "CPU_AND_NE", "--parity-report", "out"
    )
    result.assert_outcomes(passed=1)
    record = json.loads((project.path / "out" / "report.json").read_text())["records"][0]
    assert (record["settings"]["seed"], record["units"]) == (8, ["CPU_AND_NE"])
    assert "computed once for CPU_AND_NE" in result.stdout.str()


@pytest.mark.slow
def test_another_producer_by_command_line(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess("--pyargs", "parity.suite", "-v", "--as", "python==1.1.0", "--as", "S2")
    assert "1 pass, 0 fail, 1 unknown" in result.stdout.str()
    assert "as python==1.1.0, on reference runtime" in result.stdout.str()
    assert "S2 has no scheduler euler; it has pndm, dpm++" in result.stdout.str()


@pytest.mark.long
def test_producers_by_ini(project: pytest.Pytester) -> None:
    stage(project, "good")
    ini = "[pytest]\nparity_cases = cases.toml\nparity_model_version = tiny-sd\nparity_as =\n    {}\n"
    project.makeini(ini.format("swift==1.1.0"))
    result = project.runpytest_subprocess("--pyargs", "parity.suite", "-v")
    result.assert_outcomes(passed=1)
    assert "as swift==1.1.0, on reference runtime" in result.stdout.str()
    project.makeini(ini.format("swiift"))
    result = project.runpytest_subprocess("--pyargs", "parity.suite")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*no producer named 'swiift'; did you mean swift?*"])


@pytest.mark.slow  # `parity run` says the same: tests/commands/test_run.py
def test_a_failure_is_explained_and_unknown_is_not_green(project: pytest.Pytester) -> None:
    project.makefile(".toml", t='[[tolerance]]\npoint = "image"\nmetric = "image_psnr"\nbound = 400\nmeasured = "x"\n')
    result = project.runpytest_subprocess("--pyargs", "parity.suite", "--tolerances", "t.toml")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*image: image_psnr * dB is below the bound 400.00 dB*", "*would pass with bound*", "*reproduce: parity run*"]
    )


@pytest.mark.long
@pytest.mark.parametrize(("extra", "outcome"), [([], {"skipped": 1}), (["--parity-strict"], {"failed": 1})])
def test_what_is_not_available_is_unknown_with_its_reason(
    project: pytest.Pytester, extra: list[str], outcome: dict[str, int]
) -> None:
    cell = (
        "import dataclasses, parity.suite.plan as plan\n"
        "original = plan.cells\n"
        "def cells(options):\n"
        "    return [dataclasses.replace(cell, unavailable='no such machine') for cell in original(options)]\n"
        "plan.cells = cells\n"
    )
    project.makeconftest(cell)
    result = project.runpytest_subprocess("--pyargs", "parity.suite", *extra)
    result.assert_outcomes(**outcome)
    assert "no such machine" in result.stdout.str()
    assert result.ret == 1


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--compute-unit", "NPU"], "*--compute-unit NPU: not known; there are CPU_ONLY*"),
        (["--cases", "none.toml"], "*--cases none.toml: no such file or folder*"),
    ],
)
def test_bad_options_stop_collection_with_one_message(
    project: pytest.Pytester, arguments: list[str], says: str
) -> None:
    result = project.runpytest_subprocess("--pyargs", "parity.suite", *arguments)
    result.stderr.fnmatch_lines([says]) if result.stderr.str() else result.stdout.fnmatch_lines([says])
    assert result.ret in {pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.INTERRUPTED}


STAGED = """
import os
from parity.errors import MissingError
from parity.suite import comparison
from parity.suite.evaluate import Evaluator
from parity.suite.outcome import Outcome, reproduce
from parity.suite.verdict import Verdict


def evaluate(self, cell):
    happens = cell.case.name
    if happens == "bad":
        raise MissingError("none.png: no such picture")
    if happens == "defect":
        raise RuntimeError("Error computing NN outputs")
    if happens == "stop":
        raise KeyboardInterrupt
    if happens == "crash":
        os._exit(1)
    check = comparison.unknown("image", "no such machine") if happens == "away" else comparison.Check(
        "image", "image", "", float("nan"), float("nan"), Verdict.PASS, "")
    return Outcome(cell, (check,), {}, reproduce(self.options, cell))


Evaluator.evaluate = evaluate
"""  # what may happen to a cell, by the name of its case
SCHEDULERS = ("euler", "ddim", "pndm", "dpm++")


def stage(project: pytest.Pytester, *names: str) -> None:
    """Make a case of each name, and let happen what the name says."""
    project.makeconftest(STAGED)
    cases = [CASES.replace("quick", name).replace("euler", s) for name, s in zip(names, SCHEDULERS, strict=False)]
    project.makefile(".toml", cases="".join(cases))


@pytest.mark.long
def test_no_cell_is_lost_not_even_with_its_worker(project: pytest.Pytester) -> None:
    stage(project, "good", "bad", "defect", "crash")
    result = project.runpytest_subprocess("--pyargs", "parity.suite", "-n", "1", "--parity-report", "out")
    result.assert_outcomes(passed=1, failed=3)
    document = json.loads((project.path / "out" / "report.json").read_text())
    found = {record["case"]: record for record in document["records"]}
    verdicts = {name: record["verdict"] for name, record in found.items()}
    assert verdicts == {"good": "pass", "bad": "unknown", "defect": "fail", "crash": "fail"}
    assert found["bad"]["bad_input"] == ["not compared: none.png: no such picture"]
    assert "stopped by RuntimeError: Error computing NN outputs" in found["defect"]["explanation"]
    assert "crashed while running" in found["crash"]["explanation"]
    assert document["conclusion"] == {
        "exit_code": 1,
        "messages": ["bad input: 1 of 4 cells could not be compared as asked"],
    }
    text = result.stdout.str()
    assert "1 pass, 2 fail, 1 unknown" in text
    assert "bad input (1): not compared: none.png: no such picture" in text
    assert (project.path / "out" / "index.html").read_text().count("<article") == 4


@pytest.mark.long
@pytest.mark.parametrize(
    ("names", "arguments", "shown", "code"),
    [
        (("good", "stop", "late"), [], "1 pass, 0 fail, 2 unknown", pytest.ExitCode.INTERRUPTED),
        (("good", "bad", "late"), ["-x"], "1 pass, 0 fail, 2 unknown", pytest.ExitCode.TESTS_FAILED),
    ],
)
def test_what_a_stopped_session_left_out_is_counted(
    project: pytest.Pytester, names: tuple[str, ...], arguments: list[str], shown: str, code: int
) -> None:
    stage(project, *names)
    result = project.runpytest_subprocess("--pyargs", "parity.suite", *arguments)
    assert result.ret == code
    assert shown in result.stdout.str()
    assert "of 3 cells were not asked" in result.stdout.str()


@pytest.mark.long
def test_one_cell_by_its_id(project: pytest.Pytester) -> None:
    stage(project, "good", "bad")
    wanted = "--cell=candidate/good/coreml:reference"
    project.runpytest_subprocess("--pyargs", "parity.suite", wanted).assert_outcomes(passed=1)
    result = project.runpytest_subprocess("--pyargs", "parity.suite", "--cell=candidate/god/coreml:reference")
    assert result.ret in {pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.INTERRUPTED}
    said = result.stdout.str() + result.stderr.str()
    assert "none of the 2 cells of this run has that id; did you mean candidate/good/coreml:reference" in said


@pytest.mark.long
def test_goldens_alone_do_not_make_a_run_green(project: pytest.Pytester, tmp_path: Path) -> None:
    stage(project, "good")
    project.makeconftest(STAGED.replace('happens == "away"', 'cell.kind == "candidate"'))
    result = project.runpytest_subprocess("--pyargs", "parity.suite", f"--golden-dir={tmp_path}")
    result.assert_outcomes(passed=1, skipped=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["no candidate was compared, 1 unknown; what was decided beside them (golden) says*"])


SESSIONS = """
import sys
from pathlib import Path
import pytest
folder = Path(sys.argv[3].removeprefix("--golden-dir=")).parent
for more in ([], ["--update-golden"], []):
    code = pytest.main([*sys.argv[1:], *more])
    print(f"exit {int(code)}, approvals {len(list(folder.rglob('approvals.jsonl')))}")
    print("next session")
"""  # in one process, which imports the libraries once


def counted(lines: list[str]) -> dict[str, int]:
    """Return how many tests of a session had which outcome."""
    found = pytest.RunResult.parse_summary_nouns(lines)
    return {name: count for name, count in found.items() if name not in ("warning", "warnings")}


@pytest.mark.long
def test_a_missing_golden_fails_and_can_be_made(
    project: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARITY_AUTHOR", "Ada")
    golden = tmp_path / "golden"
    project.makepyfile(sessions=SESSIONS)
    words = ["--pyargs", "parity.suite", f"--golden-dir={golden}", "-k", "accepted"]
    text = project.run(sys.executable, "sessions.py", *words).stdout.str()
    missing, made, accepted = (part.splitlines() for part in text.split("next session\n")[:3])
    assert counted(missing) == {"failed": 1, "deselected": 1}
    pytest.LineMatcher(missing).fnmatch_lines(
        ["*no golden for case quick*written aside*parity golden approve*--update-golden*"]
    )
    assert missing[-1] == "exit 1, approvals 0"  # what is written aside is accepted by nobody
    assert counted(made) == {"skipped": 1, "deselected": 1}  # none passes in the run that made it
    assert made[-1] == "exit 0, approvals 1"
    assert counted(accepted) == {"passed": 1, "deselected": 1}


@pytest.mark.long
def test_expected_failures_are_xfailed_until_they_pass(project: pytest.Pytester, tmp_path: Path) -> None:
    stage(project, "good", "defect")
    entry = '[[expected]]\ncell = "candidate/{}/*"\nowner = "ada"\nreason = "known"\nuntil = {}-01-01\n'
    listed = tmp_path / "expected.toml"
    listed.write_text(entry.format("defect", 9999) + entry.format("elsewhere", 9999))
    arguments = ["--pyargs", "parity.suite", f"--expected={listed}"]
    result = project.runpytest_subprocess(*arguments)
    result.assert_outcomes(passed=1, xfailed=1)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "*expected to fail until 9999-01-01, ada: known*",
            "expected failure 'candidate/elsewhere/[*]' is about no cell*",
        ]
    )
    listed.write_text(entry.format("defect", 1999))
    project.runpytest_subprocess(*arguments).assert_outcomes(passed=1, failed=1)
    listed.write_text(entry.format("good", 9999))
    result = project.runpytest_subprocess(*arguments)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*that is expected to fail passes: take the entry*"])
