"""An estimate of memory, on programs whose sizes are counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from parity.mil.memory import Estimate, estimate


def package(ct: Any, tmp_path: Any, function: Any, shape: tuple[int, ...], **others: Any) -> Any:
    from coremltools.converters.mil import Builder

    program = Builder.program(input_specs=[Builder.TensorSpec(shape=shape)], opset_version=ct.target.iOS16)(function)
    model = ct.convert(
        program,
        minimum_deployment_target=ct.target.iOS16,
        skip_model_load=True,
        compute_precision=ct.precision.FLOAT32,
        **others,
    )
    path = tmp_path / "model.mlpackage"
    model.save(str(path))
    return path


def test_values_are_counted_from_their_making_to_their_last_reading(ct: Any, tmp_path: Any) -> None:
    """x (4000 bytes) gives a and b, of which c is made; d replaces c. Most are alive at c: x, a, b, c."""
    from coremltools.converters.mil import Builder

    def function(x: Any) -> Any:
        a, b = Builder.exp(x=x), Builder.sin(x=x)
        c = Builder.add(x=a, y=b)
        return Builder.tanh(x=Builder.cos(x=c))

    found = estimate(package(ct, tmp_path, function, (10, 100)))
    assert found.alive == 4 * 4000
    assert found.expanded < 100  # nothing but small constants
    assert not found.flexible


@pytest.mark.filterwarnings("ignore")
def test_compressed_weights_are_counted_as_stored_and_expanded(ct: Any, tmp_path: Any) -> None:
    import coremltools.optimize.coreml as optimize
    from coremltools.converters.mil import Builder

    weight = np.random.default_rng(0).standard_normal((64, 100)).astype(np.float32)
    path = package(ct, tmp_path, lambda x: Builder.linear(x=x, weight=weight), (1, 100))
    plain = estimate(path)
    assert plain.expanded == pytest.approx(64 * 100 * 4, abs=700)
    assert plain.stored == pytest.approx(64 * 100 * 4, abs=700)
    config = optimize.OptimizationConfig(global_config=optimize.OpPalettizerConfig(nbits=4, mode="uniform"))
    small = optimize.palettize_weights(ct.models.MLModel(str(path), skip_model_load=True), config)
    small.save(str(tmp_path / "small.mlpackage"))
    found = estimate(tmp_path / "small.mlpackage")
    assert found.stored < plain.stored / 6
    assert found.expanded == pytest.approx(plain.expanded, abs=700)
    assert found.least < found.most


def test_together_weights_add_up_and_values_do_not() -> None:
    both = Estimate(100, 400, 30).beside(Estimate(10, 10, 50, True))
    assert (both.stored, both.expanded, both.alive, both.flexible) == (110, 410, 50, True)
    assert (both.least, both.most) == (160, 460)
