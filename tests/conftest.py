"""The project's own tests depend on no hub: a missing file is an error at once, not a time-out.

Shared fixtures: real conversions of miniature models, kept in the cache between runs.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
gc.set_threshold(50_000, 20, 50)  # a search among the objects of torch and coremltools takes 0.4 s


CONVERTING = frozenset({"converted", "written"})
"""Fixtures below that convert a model where the cache has it not."""


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what converts a model as long; skip what runs Core AI where the extra is not installed, with the reason."""
    from parity.coreai import availability

    reason = availability.reason(convert=True)
    for item in items:
        if CONVERTING & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.long)
        if reason and item.get_closest_marker("coreai"):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let searches for garbage pass over what was there before the test: coremltools' take 0.5 s each otherwise."""
    from parity import memory

    with memory.settled():
        result = yield
        gc.collect()  # what the test left
    return result


@pytest.fixture
def unsettled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what is done around each test, and do it again: its own search would take a second."""
    from parity import memory

    monkeypatch.setattr(memory, "_settled", False)
    gc.unfreeze()
    yield
    gc.freeze()


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
    from parity.suite.questions import releases

    def packages(contract: str, family: str = "sd", *components: str, safety_size: int = 0) -> dict[str, Path]:
        return releases.packages(releases.Release(contract, family, safety_size), checkpoint, components)

    return packages
