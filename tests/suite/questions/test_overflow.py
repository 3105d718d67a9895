"""A cause is named for what is known: a group norm whose squares leave float16's range."""

from __future__ import annotations

from pathlib import Path

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb  # noqa: N813 - as everybody calls it

from parity.suite.questions import overflow

SHAPE = (1, 8, 6, 6)


@pytest.fixture(scope="module")
def norm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two groups of four channels, as coremltools lowers a GroupNorm."""

    @mb.program(input_specs=[mb.TensorSpec(shape=SHAPE)], opset_version=ct.target.iOS16)
    def program(x: object) -> object:
        parts = mb.reshape(x=mb.mul(x=x, y=np.float32(1.5)), shape=[1, 2, 4, 6, 6])
        centred = mb.sub(x=parts, y=mb.reduce_mean(x=parts, axes=[2, 3, 4], keep_dims=True))
        variance = mb.reduce_mean(x=mb.square(x=centred), axes=[2, 3, 4], keep_dims=True)
        scaled = mb.real_div(x=centred, y=mb.sqrt(x=mb.add(x=variance, y=np.float32(1e-5))))
        return mb.reshape(x=scaled, shape=list(SHAPE), name="normed")

    precision, target = ct.precision.FLOAT16, ct.target.iOS16
    model = ct.convert(program, minimum_deployment_target=target, compute_precision=precision, skip_model_load=True)
    path = tmp_path_factory.mktemp("norm") / "norm.mlpackage"
    model.save(str(path))
    return path


@pytest.mark.long
@pytest.mark.parametrize(("scale", "named"), [(1.0, False), (400.0, True)])
def test_a_group_norm_of_large_values_is_explained(norm: Path, scale: float, named: bool) -> None:
    x = np.random.default_rng(93).uniform(-1, 1, SHAPE).astype(np.float32) * scale
    text = overflow.explain((norm,), {"x": x})
    assert ("operator:" in text and "fused_group_norm" in text) is named
    assert ("cause: a group norm squares" in text and "--float32 all" in text) is named
