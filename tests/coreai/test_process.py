"""A process that runs Core AI may refuse, die or hang; what asked for it goes on and says why."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from parity.errors import FormatError, UsageError

pytestmark = pytest.mark.coreai


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    """A file with a linear layer, and its module."""
    import torch

    from parity.coreai import converter

    torch.manual_seed(0)
    module = torch.nn.Linear(8, 4).eval()
    path = tmp_path_factory.mktemp("process") / "linear.aimodel"
    converter.convert(module, {"x": torch.zeros(2, 8)}, path, outputs=["y"])
    return path, module


def test_runs_and_is_started_again_after_closing(linear):
    import torch

    from parity.coreai.process import Process

    path, module = linear
    x = np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)
    with Process(path) as process:
        (function,) = process.functions.values()
        assert [(f.name, f.dtype, f.shape) for f in function.inputs] == [("x", "float32", (2, 8))]
        with torch.inference_mode():
            expected = module(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(process.run({"x": x})["y"], expected, rtol=1e-5, atol=1e-6)
        process.close()
        np.testing.assert_allclose(process.run({"x": x.astype(np.float64)})["y"], expected, rtol=1e-5, atol=1e-6)


def test_inputs_are_checked_here(linear):
    from parity.coreai.process import Process

    with Process(linear[0]) as process:
        for inputs, message in (
            ({}, "input x is missing"),
            ({"x": np.zeros((1, 8))}, r"input x has shape \[2, 8\], not \[1, 8\]"),
            ({"x": np.zeros((2, 8)), "z": np.zeros(1)}, "no input z; it has x"),
            ({"x": np.full((2, 8), "a")}, r"takes numbers \(float32\), not <U1"),
            ({"x": np.zeros((2, 8), complex)}, r"takes numbers \(float32\), not complex128"),
        ):
            with pytest.raises(UsageError, match=message):
                process.run(inputs)
        with pytest.raises(UsageError, match="no function 'other'; there are main"):
            process.run({"x": np.zeros((2, 8))}, function="other")


def test_integer_inputs(tmp_path):
    import torch

    from parity.coreai import converter
    from parity.coreai.process import Process

    class Pick(torch.nn.Module):
        def forward(self, ids):
            return torch.arange(20.0)[ids.long()]

    path = tmp_path / "pick.aimodel"
    converter.convert(Pick(), {"ids": torch.zeros(3, dtype=torch.int32)}, path, outputs=["y"])
    with Process(path) as process:
        assert process.run({"ids": np.array([1, 19, 0], np.int64)})["y"].tolist() == [1, 19, 0]
        with pytest.raises(UsageError, match="takes whole numbers"):
            process.run({"ids": np.zeros(3)})
        with pytest.raises(UsageError, match="values outside int32"):
            process.run({"ids": np.array([0, 1, 1 << 40])})


def test_an_operator_that_ends_the_process(tmp_path):
    import torch

    from parity.coreai import converter
    from parity.coreai.process import Process

    class Divide(torch.nn.Module):
        def forward(self, a, b):
            return torch.div(a, b, rounding_mode="floor")

    one = torch.ones(2, dtype=torch.int32)
    path = tmp_path / "divide.aimodel"
    converter.convert(Divide(), {"a": one, "b": one}, path, outputs=["y"])
    ones, zeros = np.ones(2, np.int32), np.zeros(2, np.int32)
    with Process(path) as process:
        with pytest.raises(FormatError, match=r"process ended \(SIG\w+\) at 'run': an operator"):
            process.run({"a": ones, "b": zeros})
        assert process.run({"a": ones * 7, "b": ones * 2})["y"].tolist() == [3, 3]


def test_damage_that_the_hash_does_not_show(linear, tmp_path):
    """A program whose hash was written anew: the process dies or refuses, and that is a message."""
    from parity.coreai.process import Process

    path = tmp_path / "bad.aimodel"
    path.mkdir()
    for name in ("main.mlirb", "metadata.json"):
        (path / name).write_bytes((linear[0] / name).read_bytes())
    data = (path / "main.mlirb").read_bytes()[:200]
    (path / "main.mlirb").write_bytes(data)
    (path / "main.hash").write_bytes(hashlib.sha256(data).digest())
    with Process(path) as process, pytest.raises(FormatError, match=r"bad\.aimodel: Core AI") as caught:
        process.run({"x": np.zeros((2, 8))})
    assert "it said: " in str(caught.value)  # what the reader of the program found, not how the process ended
    assert "SystemError" not in str(caught.value)


def test_a_time_limit(linear):
    from parity.coreai.process import Process

    with Process(linear[0], seconds=1e-4) as process:
        with pytest.raises(FormatError, match=r"did not finish 'load' in 0\.0001 s"):
            process.functions  # noqa: B018
        process.seconds = 600
        assert process.functions
