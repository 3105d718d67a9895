"""Every era's packages, unpacked once a run, and the model that they were made of, in PyTorch of today."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

# coremltools' own reader of weight files
from tests.mil.conftest import storage  # noqa: F401

Unpacked = Callable[[str], Path]
STEM = "Stable_Diffusion_version_eras_tiny_"


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Unpacked:
    """Return ``unpacked(era)``: the folder of an era's packages; treat it as read-only."""
    from fixtures.eras import check

    @cache
    def folder(era: str) -> Path:
        return check.unpack(era, tmp_path_factory.mktemp(f"era-{era}"))

    return folder


@pytest.fixture(scope="session")
def package(unpacked: Unpacked) -> Callable[[str], Path]:
    """Return ``package("6.1/0.2.0/unet")``: the path of one package."""

    def path(name: str) -> Path:
        era, group, component = name.split("/")
        return unpacked(era) / group / f"{STEM}{component}.mlpackage"

    return path


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    """The diffusers folder that every era converted."""
    from fixtures.eras import make
    from parity import cache as store

    return make.source(store.folder("eras", "model"))


@pytest.fixture(scope="session")
def original(checkpoint: Path) -> Callable[[str], Any]:
    """Return ``original(part)``: a module of diffusers or transformers of today with the same weights."""
    from parity.models import source

    opened = source.open_model(str(checkpoint))

    @cache
    def module(part: str) -> Any:
        return opened.module(part)

    return module
