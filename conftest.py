"""Test set-up of the checkout: where made things are kept, and which modules a run has no use for.

Built models and conversions are kept in ``.cache`` beside the sources. A run that can choose nothing in ``tests/``
(``pytest -m parity``) does not import it, and the suite comes from the package that is installed, which may be another
one than the checkout's.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path

import pytest

ROOT = Path(__file__).parent
SUITE = Path("parity", "suite", "test_parity.py")

os.environ.setdefault("PARITY_CACHE", str(ROOT / ".cache" / "parity"))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out ``tests/`` where the expression after ``-m`` asks for the suite: none of its tests has that marker."""
    inside = ROOT / "tests" in (collection_path, *collection_path.parents)
    return True if inside and needs(config.option.markexpr, "parity") else None


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Take the suite of the installed package: one of the same name from the checkout could not be imported."""
    import parity

    installed = Path(parity.__file__).parents[1] / SUITE
    if module_path != ROOT / SUITE or installed == module_path or not installed.is_file():
        return None
    return pytest.Module.from_parent(parent, path=installed)


def needs(expression: str, marker: str) -> bool:
    """Tell whether an expression of markers chooses nothing but what has this marker.

    Parameters
    ----------
    expression : str
        As after ``-m``; one that is more than names, ``and``, ``or`` and ``not`` is taken to choose anything.
    marker : str
        A marker's name.

    Examples
    --------
    >>> needs("parity and not slow", "parity"), needs("not parity", "parity"), needs("parity or slow", "parity")
    (True, False, False)
    """
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
        others = sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - {marker})
        return not any(_holds(tree, {marker: False, **chosen}) for chosen in _choices(others))
    except (SyntaxError, TypeError):
        return False


def _choices(names: list[str]) -> Iterator[dict[str, bool]]:
    for values in product((False, True), repeat=len(names)):
        yield dict(zip(names, values, strict=True))


def _holds(node: ast.expr, given: Mapping[str, bool]) -> bool:
    if isinstance(node, ast.Name):
        return given[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return not _holds(node.operand, given)
    if isinstance(node, ast.BoolOp):
        found = [_holds(value, given) for value in node.values]
        return all(found) if isinstance(node.op, ast.And) else any(found)
    raise TypeError(f"{ast.dump(node)}: neither a marker nor and, or, not")
