"""The drop-in is installed for all tests of this folder: on Linux that is how models are loaded."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # networks.py


@pytest.fixture(scope="module")
def ct():
    """Return coremltools with the stand-in installed, for the tests of one module."""
    from parity.coreml import shim

    shim.install(force=True)
    import coremltools

    yield coremltools
    shim.uninstall()


@pytest.fixture(scope="module")
def mb(ct):
    """Return coremltools' builder of programs."""
    from coremltools.converters.mil import Builder

    return Builder


@pytest.fixture(scope="module")
def package(ct, mb, tmp_path_factory):
    """Return a package: y = 2 relu(x) + w of shape (2, 3), float16 inside, float32 at the border."""
    import numpy as np

    @mb.program(input_specs=[mb.TensorSpec((2, 3))], opset_version=ct.target.iOS16)
    def program(x):
        weight = mb.const(val=np.arange(6, dtype=np.float32).reshape(2, 3), name="w")
        return mb.add(x=mb.mul(x=mb.relu(x=x, name="rectified"), y=2.0), y=weight, name="y")

    path = tmp_path_factory.mktemp("package") / "small.mlpackage"
    ct.convert(program, minimum_deployment_target=ct.target.iOS16, skip_model_load=True).save(str(path))
    return path
