"""Faults of coremltools' converter are named in packages that it wrote, and in no others."""

from __future__ import annotations

import numpy as np
import pytest

from parity import mil, quiet
from parity.contracts import component, lowering
from parity.contracts.converters import converters
from parity.convert import workarounds

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def _package(path, function, *, compute="FLOAT32", mended=False):
    import torch

    class Module(torch.nn.Module):
        def forward(self, x):
            return function(x)

    ct = workarounds.coremltools()
    with workarounds.tracing():
        traced = torch.jit.trace(Module().eval(), torch.ones(1, 4, 3, 3))
    with workarounds.converting() if mended else quiet.without("coremltools", ()):
        made = ct.convert(
            traced,
            inputs=[ct.TensorType(name="x", shape=(1, 4, 3, 3))],
            minimum_deployment_target=ct.target.macOS13,
            compute_precision=getattr(ct.precision, compute),
            skip_model_load=True,
        )
    made.save(str(path))
    return path


def _affine(x):
    import torch

    return x * torch.linspace(0.5, 2, 4).reshape(4, 1, 1) + torch.linspace(-1, 1, 4).reshape(4, 1, 1)


def test_a_fused_epsilon_is_named_by_inspect(tmp_path):
    path = _package(tmp_path / "a.mlpackage", _affine)
    (text,) = lowering.faults(mil.load(path))
    assert text.startswith("1 batch norms of variance 1 with an epsilon of 1e-5")
    _, findings = component.read(path, path, converters())
    assert [finding for finding in findings if finding.severity == "note" and finding.text == text]


@pytest.mark.long
def test_it_is_not_in_float16_nor_where_convert_avoids_it(tmp_path):
    assert lowering.faults(mil.load(_package(tmp_path / "half.mlpackage", _affine, compute="FLOAT16"))) == ()
    assert lowering.faults(mil.load(_package(tmp_path / "mended.mlpackage", _affine, mended=True))) == ()


def test_a_real_batch_norm_is_none(tmp_path):
    import torch

    norm = torch.nn.BatchNorm2d(4).eval().requires_grad_(False)
    norm.running_var.copy_(torch.linspace(0.5, 2, 4))
    assert lowering.faults(mil.load(_package(tmp_path / "norm.mlpackage", norm))) == ()


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "text"), [("reciprocal", "1 reciprocals add an epsilon"), ("log_softmax", "1 logarithms of a softmax")]
)
def test_reciprocals_and_log_softmax(tmp_path, name, text):
    import torch

    functions = {"reciprocal": torch.reciprocal, "log_softmax": lambda x: torch.log_softmax(x, -1)}
    (found,) = lowering.faults(mil.load(_package(tmp_path / f"{name}.mlpackage", functions[name])))
    assert found.startswith(text)
    logarithm = _package(tmp_path / "log.mlpackage", lambda x: torch.log(x + np.float32(1)))
    assert lowering.faults(mil.load(logarithm)) == ()


def test_norms_whose_squares_leave_float16(tmp_path):
    """Witness: the program itself, which makes zeros of a group that PyTorch normalizes (docs/core-ai.md)."""
    import torch

    def norm(x):
        return torch.nn.functional.group_norm(x, 2)

    half, whole = tmp_path / "half.mlpackage", tmp_path / "whole.mlpackage"
    (text,) = lowering.faults(mil.load(_package(half, norm, compute="FLOAT16")))
    assert text.startswith("1 norms take squares in float16")
    assert lowering.faults(mil.load(_package(whole, norm))) == ()
    x = np.zeros((1, 4, 3, 3), np.float32)
    x[0, 0, 0] = 900
    right = norm(torch.from_numpy(x)).numpy()
    assert np.abs(right).max() > 2
    for path, expected in ((half, np.zeros_like(right)), (whole, right)):
        (result,) = mil.Session(mil.load(path)).predict({"x": x}).values()
        np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("compute", ["FLOAT16", "FLOAT32"])
def test_rms_norms_of_zeros(tmp_path, compute):
    import torch

    def norm(x):
        return torch.nn.functional.rms_norm(x, (3,))

    model = mil.load(_package(tmp_path / "rms.mlpackage", norm, compute=compute))
    (text,) = lowering.faults(model)
    assert text.startswith("1 RMS norms divide by the largest value first")
    (result,) = mil.Session(model).predict({"x": np.zeros((1, 4, 3, 3), np.float32)}).values()
    assert np.isnan(result).all()
    assert not norm(torch.zeros(3)).isnan().any()
