"""What a run at the root of the checkout imports, and which package's suite it takes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import parity

ROOT = Path(__file__).parents[1]
COLLECT = """
import sys
sys.path[:] = [path for path in sys.path if path not in ("", {root!r})]
import pytest
code = pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", "--compatibility", "none", *sys.argv[1:]])
heavy = {{"torch", "diffusers", "coremltools", "transformers"}}
print("LOADED", sorted(heavy & set(sys.modules)), sys.modules["parity"].__file__, "tests.conftest" in sys.modules)
raise SystemExit(int(code))
"""


def collect(package: Path, *arguments: str) -> str:
    """What a collection at the root prints, with the package from this folder."""
    script = COLLECT.format(root=str(ROOT) if package != ROOT else "")
    environment = {**os.environ, "PYTHONPATH": str(package), "PYTEST_ADDOPTS": ""}
    command = [sys.executable, "-c", script, *arguments]
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


@pytest.mark.long
def test_the_suite_alone_imports_no_test_and_nothing_heavy() -> None:
    text = collect(ROOT, "-m", "parity")
    assert f"LOADED [] {ROOT / 'parity' / '__init__.py'}" in text
    assert "parity/suite/test_parity.py::test_parity[shapes-sd draws txt2img with ddim" in text
    assert "deselected" not in text


@pytest.mark.long
def test_the_suite_of_a_package_that_is_installed_elsewhere(tmp_path: Path) -> None:
    source = Path(parity.__file__).parent
    elsewhere = tmp_path / "site"
    shutil.copytree(source, elsewhere / "parity", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("fixtures", "golden"):
        (elsewhere / name).symlink_to(ROOT / name)
    text = collect(elsewhere, "-m", "parity")
    assert f"LOADED [] {elsewhere / 'parity' / '__init__.py'}" in text
    assert "test_parity[shapes-sd draws txt2img with ddim" in text


def test_no_test_of_the_project_has_the_suites_marker() -> None:
    marked = [path for path in (ROOT / "tests").rglob("*.py") if "mark." + "parity" in path.read_text()]
    assert marked == []
