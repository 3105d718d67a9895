"""A release is refused unless its tag is the version everywhere; its notes are the section of CHANGELOG.md."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import parity
from tests import matrix

ROOT = Path(__file__).parents[1]
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8"))
CHANGES = """# Changes

## [Unreleased]

## [{}] - 2030-01-01

- New: a thing.

## [0.0.1] - 2029-01-01

- Old.
"""


def step(name: str) -> str:
    (found,) = (step["run"] for step in WORKFLOW["jobs"]["build"]["steps"] if step.get("name") == name)
    return str(found)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of version 7.8.9 in which everything says so."""
    (tmp_path / "parity").mkdir()
    (tmp_path / "parity" / "__init__.py").write_text('__version__ = "7.8.9"\n')
    (tmp_path / "CITATION.cff").write_text("version: 7.8.9\n")
    (tmp_path / "CHANGELOG.md").write_text(CHANGES.format("7.8.9"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, script: str, tag: str) -> subprocess.CompletedProcess[str]:
    monkeypatch.setenv("GITHUB_REF_NAME", tag)
    return subprocess.run(["bash", "-e", "-c", script], capture_output=True, text=True, check=False)


def test_the_tag_is_the_version(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = step("The tag is the version")
    assert run(monkeypatch, check, "v7.8.9").returncode == 0
    wrong = run(monkeypatch, check, "v7.9.0")
    assert (wrong.returncode, wrong.stderr.strip()) == (1, "the tag is v7.9.0, and parity.__version__ is 7.8.9")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("CHANGELOG.md", CHANGES.format("7.8.8"), "CHANGELOG.md has no section [7.8.9]"),
        ("CITATION.cff", "version: 7.8.8\n", "CITATION.cff names another version"),
    ],
)
def test_a_file_that_names_another_version(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, says: str
) -> None:
    (checkout / name).write_text(text)
    done = run(monkeypatch, step("The tag is the version"), "v7.8.9")
    assert (done.returncode, done.stderr.strip()) == (1, says)


def test_the_notes_are_the_versions_section(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, step("Notes"), "v7.8.9").returncode == 0
    assert (checkout / "notes.md").read_text().strip() == "- New: a thing."
    assert run(monkeypatch, step("Notes"), "v7.8").returncode != 0


def test_every_file_of_this_checkout_names_its_version() -> None:
    assert f"\nversion: {parity.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"{parity.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_each_environment_of_the_matrix_is_a_job_of_the_release() -> None:
    asked: list[Any] = WORKFLOW["jobs"]["install"]["strategy"]["matrix"]["entry"]
    assert asked == [f"{python}, {versions}" for python, versions, _ in matrix.ENTRIES]
    assert {python for python, _, _ in matrix.ENTRIES} == {"3.10", "3.11", "3.12", "3.13"}


def test_an_environment_that_does_not_hold_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one.whl", "one.tar.gz"):
        (tmp_path / name).touch()

    def check(entry: matrix.Entry, interpreter: str, folder: Path) -> Any:
        yield "light"
        if entry.python == "3.13":
            raise matrix.FailedError("exit code 3: parity doctor")

    monkeypatch.setattr(matrix, "check", check)
    monkeypatch.setattr(matrix, "interpreter", lambda version: None if version == "3.11" else "python")
    assert matrix.main([str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "Python 3.13, newest, wheel: FAILS after light: exit code 3: parity doctor" in said
    assert "Python 3.11, newest, sdist: not checked, there is no such Python here" in said
    assert matrix.main([str(tmp_path), "--only", "3.12"]) == 0
    assert matrix.main([str(tmp_path), "--only", "3.11"]) == 1  # nothing is green by absence
