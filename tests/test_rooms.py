"""Do imports run downwards, and do no two files import each other in a circle?

Read from the source, so imports inside functions count; imports for annotations alone (``if TYPE_CHECKING``) count too,
since they say who must know whom.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "parity"

ORDER = (  # lowest first; a room imports from itself and from those before it
    ("errors", "files", "cache", "assets", "quiet", "tables", "children", "memory"),  # the root's files, one room
    ("networks",),
    ("streams",),
    ("metrics",),
    ("mil",),
    ("recipes",),
    ("models",),
    ("coreml",),
    ("contracts",),
    ("convert", "repair"),
    ("coreai",),  # asks the converter for the networks that it exports
    ("pipelines",),
    ("backends",),
    ("suite",),
    ("bench",),
    ("runs",),
    ("fleet",),
    ("report",),
    ("plugin", "cli", "commands", "__main__"),
)
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}

Imports = dict[str, set[str]]


def imports(root: Path) -> Imports:
    """Return which modules of a package each of its modules imports, by dotted names."""
    files = {_name(path, root): path for path in sorted(root.rglob("*.py"))}
    return {name: set(_imported(path, name, files)) for name, path in files.items()}


def _name(path: Path, root: Path) -> str:
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(path: Path, own: str, files: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            module = node.module or ""
            named = [f"{module}.{alias.name}" for alias in node.names]
            found = [name if name in files else module for name in named]
        elif isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        else:
            continue
        yield from (name for name in found if name in files and name != own)


def circles(graph: Imports) -> list[list[str]]:
    """Return the groups of modules that reach each other."""
    reach = {name: _reached(graph, name) for name in graph}
    groups = {frozenset(b for b in reach[a] if a in reach[b]) for a in graph}
    return sorted(sorted(group) for group in groups if group)


def _reached(graph: Imports, start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for name in graph[waiting.pop()] - seen:
            seen.add(name)
            waiting.append(name)
    return seen


def upwards(graph: Imports) -> list[str]:
    """Return the imports from a room that lies higher, or from a neighbour on the same level."""
    wrong = []
    for own, names in graph.items():
        for name in names:
            here, there = _room(own), _room(name)
            if "" in (here, there):  # the package itself: its version
                continue
            neighbours = LEVEL[here] == LEVEL[there] and here != there and LEVEL[here] not in (0, len(ORDER) - 1)
            if LEVEL[there] > LEVEL[here] or neighbours:
                wrong.append(f"{own} imports {name}")
    return sorted(wrong)


def _room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


@pytest.fixture(scope="module")
def graph() -> Imports:
    return imports(ROOT)


@pytest.mark.long
def test_every_room_has_its_level(graph: Imports) -> None:
    assert {_room(name) for name in graph} - {""} == set(LEVEL)


def test_no_circle(graph: Imports) -> None:
    assert circles(graph) == []


def test_no_import_upwards(graph: Imports) -> None:
    assert upwards(graph) == []


def test_planted_imports_are_found(tmp_path: Path) -> None:
    package = tmp_path / "parity"
    planted = {
        "errors.py": "",
        "mil/__init__.py": "",
        "mil/one.py": "from parity.mil import two\n",
        "mil/two.py": "def late():\n    from parity.mil.one import thing\n",
        "convert/__init__.py": "from parity.errors import ParityError\nimport parity.mil\n",
        "repair/__init__.py": "from parity import convert\n",
        "metrics/__init__.py": "if TYPE_CHECKING:\n    from parity.suite import run\n",
        "suite/run.py": "import parity.suite.run\nfrom os import path\n",
        "cli.py": "from parity.plugin import hook\n",
        "plugin.py": "",
    }
    for name, text in planted.items():
        file = package / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    found = imports(package)
    assert circles(found) == [["parity.mil.one", "parity.mil.two"]]
    assert upwards(found) == ["parity.metrics imports parity.suite.run", "parity.repair imports parity.convert"]
