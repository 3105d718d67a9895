"""Examples in docstrings, README, guides and tutorials are run: a reader can trust what is printed there.

Each Python block of a page runs by itself, in a folder of its own. A page whose blocks build on each other says so in
its first line, and is run as a reader would: Python blocks in one session, shell blocks in the same folder, blocks
behind ``<!-- file: NAME -->`` written to that file. ``# exit code N`` behind a command is what it must end with, and a
text block behind a shell block must be found in its output, where ``…`` stands for anything.
"""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import parity

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SEQUENCE = "<!-- examples: one after the other -->"
SLOW = {"first-comparison.md", "nightly-job.md"}  # they convert from scratch: a minute of computing each
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(parity.__path__, "parity.")
    if "conformance" not in module.name and not module.name.endswith(("__main__", "test_parity"))
)
BLOCK = re.compile(r"(?:^<!-- file: (\S+) -->\n)?^( *)```(\w+)\n(.*?)^\2```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """Return the blocks of a page: file to be written or "", language, text without the block's indentation."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [
        (file, language, re.sub(f"^{indent}", "", text, flags=re.MULTILINE)) for file, indent, language, text in found
    ]


def in_sequence(page: Path) -> bool:
    return page.read_text(encoding="utf-8").startswith(SEQUENCE)


ALONE = [
    pytest.param(text, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    if not in_sequence(page)
    for number, text in enumerate((text for _, language, text in blocks(page) if language == "python"), 1)
]
TOGETHER = [
    pytest.param(page, id=str(page.relative_to(ROOT)), marks=[pytest.mark.slow] if page.name in SLOW else [])
    for page in PAGES
    if in_sequence(page)
]


@pytest.mark.long
def test_examples_in_docstrings() -> None:
    attempted = 0
    for name in MODULES:
        module = importlib.import_module(name)
        if ">>>" not in Path(module.__file__ or "").read_text(encoding="utf-8"):
            continue  # doctest looks at all files that were imported for each module
        result = doctest.testmod(module)
        assert result.failed == 0, name
        attempted += result.attempted
    assert attempted > 20


@pytest.mark.long
@pytest.mark.parametrize("text", ALONE)
def test_a_block_by_itself(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(text, "example", "exec"), {"__name__": "example"})


@pytest.mark.long
@pytest.mark.parametrize("page", TOGETHER)
def test_a_page_from_top_to_bottom(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    environment = shell_environment(tmp_path / "bin")
    namespace: dict[str, object] = {"__name__": f"example in {page.name}"}
    tutorial = page.parent.name == "tutorials"  # elsewhere commands have placeholders; tests/test_pages.py parses them
    output = ""
    for file, language, text in blocks(page):
        if file:
            (work / file).write_text(text, encoding="utf-8")
        elif language == "python":
            exec(compile(text, page.name, "exec"), namespace)
        elif language == "sh" and tutorial:
            output = run(text, environment)
        elif language == "text" and tutorial:
            assert found(text, output), f"{page.name} promises\n{text}\nbut the command printed\n{output}"


def shell_environment(folder: Path) -> dict[str, str]:
    """Return an environment in which ``parity``, ``pytest`` and ``python`` are those of this test run."""
    folder.mkdir()
    for name, arguments in {"parity": "-m parity", "pytest": "-m pytest -p no:cacheprovider", "python": ""}.items():
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        (folder / name).chmod(0o755)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**kept, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": path, "COLUMNS": "120"}


def run(text: str, environment: dict[str, str]) -> str:
    """Run a shell block; it must end with the exit code that it names, or 0."""
    named = re.search(r"# exit code (\d)\s*$", text)
    expected = int(named[1]) if named else 0
    shell = shutil.which("bash") or "sh"
    done = subprocess.run([shell, "-ec", text], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == expected, f"{text}ended with {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def found(expected: str, output: str) -> bool:
    """Return whether lines occur in an output, in this order; ``…`` is anything, blanks do not count."""
    pieces = [" ".join(piece.split()) for line in expected.splitlines() for piece in line.split("…")]
    pattern = ".*?".join(re.escape(piece) for piece in pieces if piece)
    return re.search(pattern, " ".join(output.split())) is not None


def test_a_promise_is_found_or_not() -> None:
    assert found("a …\nb c", "x a\n long  line\nb    c")
    assert not found("b\na", "a b")
