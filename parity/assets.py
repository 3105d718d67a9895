"""Where the project's own data lies: recipes, weights, vectors and accepted goldens.

In a checkout these are ``fixtures/`` and ``golden/`` beside the package; in an installed wheel the same folders are
shipped inside it. Nothing here reads a file.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _folder(name: str) -> Path:
    shipped = _PACKAGE / "_assets" / name
    return shipped if shipped.is_dir() else _PACKAGE.parent / name


def fixtures() -> Path:
    """Return the folder of model recipes, weights and known-answer vectors."""
    return _folder("fixtures")


def golden() -> Path:
    """Return the folder of accepted traces that the project ships."""
    return _folder("golden")
