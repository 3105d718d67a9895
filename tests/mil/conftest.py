"""Small models made by coremltools, once a run."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def storage() -> Any:
    """coremltools' own weight file writer and reader, loaded without its package."""
    spec = importlib.util.find_spec("coremltools")
    assert spec is not None
    assert spec.submodule_search_locations
    path = next(Path(spec.submodule_search_locations[0]).glob("libmilstoragepython*.so"))
    name = "coremltools.libmilstoragepython"
    if name in sys.modules:
        return sys.modules[name]
    loader = importlib.machinery.ExtensionFileLoader(name, str(path))
    described = importlib.util.spec_from_loader(name, loader)
    assert described is not None
    module = importlib.util.module_from_spec(described)
    loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def ct() -> Any:
    """coremltools without its notices about this platform."""
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import coremltools
    return coremltools


@pytest.fixture(scope="session")
def convert(ct: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """``convert(module, example, **options) -> Path`` of a saved package: traced, seeded, float16 unless told."""
    import torch

    def run(module: Any, example: tuple[Any, ...], **options: Any) -> Path:
        options.setdefault("minimum_deployment_target", ct.target.iOS16)
        options.setdefault(
            "inputs",
            [ct.TensorType(name=f"x{i}", shape=t.shape, dtype=t.numpy().dtype.type) for i, t in enumerate(example)],
        )
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(module.eval(), example)
            converted = ct.convert(traced, skip_model_load=True, convert_to="mlprogram", **options)
        path = tmp_path_factory.mktemp("models") / "model.mlpackage"
        converted.save(str(path))
        return path

    return run


@pytest.fixture(scope="session")
def small(convert: Any) -> Path:
    """A convolution, a group norm, an activation and a linear layer in float16 for iOS 16, with metadata."""
    import torch

    torch.manual_seed(7)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(4, 8, 3, padding=1),
        torch.nn.GroupNorm(2, 8),
        torch.nn.SiLU(),
        torch.nn.Flatten(2),
        torch.nn.Linear(36, 5),
    )
    return convert(module, (torch.randn(1, 4, 6, 6),))
