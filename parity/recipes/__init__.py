"""Small diffusers models that need no download: built from a TOML recipe and the project's own random streams.

A recipe (``fixtures/recipes/NAME.toml``) lists components with their diffusers or transformers class and configuration,
a tokenizer by its words, and rules by which parameters are drawn. Every tensor has a seed of its own, derived from its
name, so the weights do not depend on the order of parameters, on torch's generators or on the platform.

>>> names()[:1]
['tiny-sd']
"""

from __future__ import annotations

from parity.recipes.build import Recipe, build, load, names, write

__all__ = ["Recipe", "build", "load", "names", "write"]
