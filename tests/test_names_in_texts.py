"""What docstrings, comments, tables and pages call by name exists: modules, functions, classes, data, files, options.

Read from the source without importing it. A role such as :mod:`parity.mil`, or a dotted name after ``parity``, must
name a module, or what a module or a class defines or imports; a name alone is looked for in its own module.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from parity import cli

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for room in ("parity", "benchmarks", "fixtures", "tests") for path in (ROOT / room).rglob("*.py"))
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("fixtures/**/*.md"))]
TABLES = sorted((ROOT / "parity").rglob("*.toml"))

_ROLE = re.compile(r":(?:mod|func|class|data|meth|attr|exc|obj):`~?([\w.]+)`")
_DOTTED = re.compile(r"(?<![\w./-])parity(?:\.\w+)+(?![\w/-])")
_FILE = re.compile(r"(?<![\w./-])(?:parity|tests|docs|fixtures|benchmarks)/[\w./-]*\w")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+(?!\w)")
_QUOTED = re.compile(r'"(--[a-z][a-z-]+)"')  # in code, not in a sentence

OTHERS = {"coreai_torch", *sys.stdlib_module_names}  # modules that are not ours
OTHER_OPTIONS = {
    "--pyargs",
    "--rootdir",
    "--deselect",
    "--dist",
    "--no-header",
    "--tb",
    "--min-deployment-target",
    "--name",
    "--untracked-files",
    "--include",
    "--resource-path",
}
NOT_NAMES = {
    "parity.mil._generated": "an alias that is made in sys.modules",
    "parity.backend": "key of a case's user properties",
    "parity.scores": "a group of entry points of other packages",
    "parity.__path__": "of every package",
    "parity.__file__": "of every module",
    "parity/model": "a model's id",
    "parity/tiny-sd": "a model's id",
    "parity/metrics/rms.py": "the file that the example adds",
    "fixtures/recipes/NAME.toml": "NAME is to be filled in",
    "tests/kat_vectors": "of Random123",
}
SELF = Path(__file__).name  # its table names what does not exist
PLANTED = "test_rooms.py"  # plants modules


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def module(name: str) -> Path | None:
    """Return the file of a module or package of this repository."""
    base = ROOT.joinpath(*name.split("."))
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


@cache
def _classes(path: Path) -> dict[str, list[ast.ClassDef]]:
    found: dict[str, list[ast.ClassDef]] = {}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ClassDef):
            found.setdefault(node.name, []).append(node)
    return found


@cache
def defined(path: Path, owner: str = "") -> frozenset[str]:
    """Return the names that a module, or a class of it, defines or imports."""
    body: list[ast.stmt] = tree(path).body
    if owner:
        body = [statement for node in _classes(path).get(owner, ()) for statement in node.body]
        found = {
            node.attr
            for statement in body
            for node in ast.walk(statement)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
        }
    else:
        found = set()
    for statement in body:
        for node in ast.walk(statement) if isinstance(statement, ast.If | ast.Try) else (statement,):
            found.update(_bound(node))
    return frozenset(found)


def _bound(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            yield from (name.id for name in ast.walk(target) if isinstance(name, ast.Name))
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in node.names)


def exists(name: str) -> bool:
    """Tell whether an absolute name is a module, or a name in one, or a name in a class of one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        file = module(".".join(parts[:length]))
        if file is None:
            continue
        rest = parts[length:]
        if not rest:
            return True
        late = re.search(rf'"{rest[0]}"', file.read_text(encoding="utf-8")) and "__getattr__" in defined(file)
        if not (rest[0] in defined(file) or late):
            return False
        home = _home(file, rest[0])
        return len(rest) == 1 or not _is_class(home, rest[0]) or rest[1] in defined(home, rest[0])
    return False


def _is_class(file: Path, name: str) -> bool:
    return name in _classes(file)


@cache
def _home(file: Path, name: str) -> Path:
    """Return the file in which an imported class is defined."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.ImportFrom) and name in {alias.asname or alias.name for alias in node.names}:
            return module(node.module or "") or file
    return file


def known_here(name: str, path: Path) -> bool:
    """Tell whether a name that is not absolute is one of the module's, of a class's in it, or of what it imports."""
    first, _, rest = name.partition(".")
    if not rest:
        return name in defined(path) or any(name in defined(path, owner) for owner in _classes(path))
    return first in defined(path) and rest.split(".")[0] in defined(_home(path, first), first)


def wrong_roles(path: Path, text: str) -> list[str]:
    """Return the names in roles of a module's text that nothing has."""
    wrong = []
    for name in _ROLE.findall(text):
        first = name.split(".")[0]
        if first in {"parity", "tests", "fixtures", "benchmarks"}:
            right = exists(name)
        else:
            right = known_here(name, path) or ("." in name and first in OTHERS)
        if not right:
            wrong.append(f"{path.relative_to(ROOT)}: {name}")
    return wrong


def wrong_names(path: Path, text: str) -> list[str]:
    """Return the modules, what is in them, and the files that a text names and that do not exist."""
    names = [name for name in _DOTTED.findall(text) if not exists(name)]
    names += [name for name in _FILE.findall(text) if not (ROOT / name).exists()]
    return [f"{path.relative_to(ROOT)}: {name}" for name in names if name not in NOT_NAMES]


@pytest.mark.long
def test_roles_name_what_exists() -> None:
    assert [
        wrong for path in SOURCES if path.name != SELF for wrong in wrong_roles(path, path.read_text(encoding="utf-8"))
    ] == []


def test_modules_and_files_exist() -> None:
    texts = [path for path in (*SOURCES, *PAGES, *TABLES) if path.name not in (SELF, PLANTED)]
    assert [wrong for path in texts for wrong in wrong_names(path, path.read_text(encoding="utf-8"))] == []


def test_options_exist() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in SOURCES if path.is_relative_to(ROOT / "parity")}
    known = _options(cli._parser(cli._ALL)) | OTHER_OPTIONS
    known |= {option for text in texts.values() for option in _QUOTED.findall(text)}
    named = [(path.relative_to(ROOT), option) for path, text in texts.items() for option in _OPTION.findall(text)]
    assert [f"{path}: {option}" for path, option in named if option not in known] == []


def _options(parser: argparse.ArgumentParser) -> set[str]:
    own = {option for action in parser._actions for option in action.option_strings}
    commands = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return own.union(*(_options(command) for action in commands for command in action.choices.values()))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (":func:`parity.mil.load` :class:`parity.mil.Session` :attr:`parity.coreml.Port.kind`", 0),
        (":func:`parity.mil.lod` :mod:`parity.repair.aply` :attr:`parity.coreml.Port.kin` :data:`NO_SUCH`", 4),
    ],
)
def test_planted_roles(text: str, wrong: int) -> None:
    assert len(wrong_roles(ROOT / "parity" / "cli.py", text)) == wrong


def test_planted_names() -> None:
    right = "parity.mil.load, parity.metrics.registry.METRICS, docs/faq.md"
    text = f"{right}, parity.contracts.conventions, parity/suite/player.py"
    assert [name.partition(": ")[2] for name in wrong_names(ROOT / "README.md", text)] == [
        "parity.contracts.conventions",
        "parity/suite/player.py",
    ]
