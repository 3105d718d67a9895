"""Real conversions of the miniature model, kept in the cache between runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    """Folder of the miniature diffusers model."""
    from parity import recipes

    return recipes.build("tiny-sd")


@pytest.fixture(scope="session")
def converted(checkpoint: Path) -> Callable[..., Path]:
    """Return ``converted(contract, component, **options)``: a package of the miniature model."""
    from parity.convert import cached

    def package(contract: str, component: str, **options: object) -> Path:
        packages = cached(
            str(checkpoint), contract=contract, components=[component], identifier="parity/tiny-sd", **options
        )
        return packages[component]

    return package
