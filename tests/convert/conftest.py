"""Miniature models shared by the tests of conversion, built once a run; every test has a cache of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return ``model(family)``: the diffusers folder of a miniature model."""
    from tests.convert import models

    root = tmp_path_factory.mktemp("models")

    def folder(name: str) -> Path:
        target = root / f"tiny-{name}"
        if target.exists():
            return target
        if name == "controlnet":
            models.controlnet().save_pretrained(target)
            return target
        target.mkdir()
        return models.build(name, target)

    return folder


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PARITY_CACHE", str(tmp_path / "cache"))
