"""Small diffusers models that need no download: built from a TOML recipe and the project's own random streams.

A recipe (``fixtures/recipes/NAME.toml``) lists components with their diffusers or transformers class and configuration,
a tokenizer by its words, and rules by which parameters are drawn. Every tensor has a seed of its own, derived from its
name, so the weights do not depend on the order of parameters, on torch's generators or on the platform.

>>> "tiny-sd" in names()
True
"""

from __future__ import annotations

from pathlib import Path

from parity.recipes import trained
from parity.recipes.build import Recipe, build, load, names, write

__all__ = ["Recipe", "build", "find", "load", "names", "write"]


def find(name: str) -> Path | None:
    """Return the folder of a shipped model, trained or built from a recipe; None for any other name.

    Raises
    ------
    MissingError, FormatError
        Files of a trained model that are not those that were shipped.
    """
    if name in trained.names():
        return trained.folder(name)
    return build(name) if name in names() else None
