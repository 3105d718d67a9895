"""Real conversions of miniature models, kept in the cache between runs."""

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


@pytest.fixture(scope="session")
def written(checkpoint: Path) -> Callable[..., dict[str, Path]]:
    """Return ``written(contract, family="sd", components=())``: what a converter release wrote, by component."""
    from parity.suite import releases

    def packages(contract: str, family: str = "sd", *components: str, safety_size: int = 0) -> dict[str, Path]:
        return releases.packages(releases.Release(contract, family, safety_size), checkpoint, components)

    return packages
