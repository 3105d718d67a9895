"""Each hazard is found, and Core AI still computes what its entry says; when one fails, its entry goes."""

from __future__ import annotations

import numpy as np
import pytest

from parity.errors import UnsupportedError

pytestmark = pytest.mark.coreai

inf, nan = np.inf, np.nan


def _f(*values):
    return np.array(values, np.float32)


def _i(*values):
    return np.array(values, np.int32)


def cases():
    """Name of the hazard to (function, inputs, what Core AI gives)."""
    import torch
    from torch.nn import functional as f

    ramp = np.arange(100, dtype=np.float32).reshape(1, 1, 10, 10)
    square = np.ones((1, 1, 4, 4), np.float32)
    query, keys = np.full((1, 1, 2), 3000, np.float32), np.array([[[100, 100], [-100, 100]]], np.float32)
    return {
        "float-scalar": (lambda i: i * 0.5, [_i(1, 2049, 65535)], [0.5, 1024, inf]),
        "boolean-index": (lambda a: a[a > 0], [_f(1, -1, 2)], [-1, 1, -1]),
        "pool-indices": (
            lambda x: f.max_pool2d(x, 2, return_indices=True)[1],
            [np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)],
            [0, 0, 0, 0],
        ),
        "pool-padding": (
            lambda x: f.avg_pool2d(x, 3, 1, 1, count_include_pad=False)[0, 0, 0],
            [square],
            [4 / 9, 2 / 3, 2 / 3, 4 / 9],
        ),
        "nearest-ratio": (
            lambda x: f.interpolate(x, scale_factor=1.3, mode="nearest")[0, 0, 0, :6],
            [ramp],
            [0, 1, 1, 2, 3, 4],
        ),
        "integer-clamp": (lambda i: i.clamp(16777217, 16777219), [_i(1, 5, -7)], [16777216] * 3),
        "boolean-mask": (
            lambda q, k, v, m: f.scaled_dot_product_attention(q, k, v, m > 0),
            [query, keys, np.array([[[1, 2], [3, 4]]], np.float32), np.array([[-1, 1]], np.float32)],
            [1, 2],
        ),
        "nan-comparison": (lambda a, b: a >= b, [_f(nan, 1), _f(1, 1)], [True, True]),
        "infinite-rounding": (torch.floor, [_f(inf, 1.5)], [nan, 1]),
        "cancelling-tail": (f.softplus, [_f(-18, 1)], [0, np.log1p(np.e)]),
        "half-norm": (lambda a: a.norm().reshape(1), [_f(2e-5, 2e-5).astype(np.float16)], [0]),
    }


NAMES = (
    "float-scalar",
    "boolean-index",
    "pool-indices",
    "pool-padding",
    "nearest-ratio",
    "integer-clamp",
    "boolean-mask",
    "nan-comparison",
    "infinite-rounding",
    "cancelling-tail",
    "half-norm",
)


def _module(function):
    import torch

    class Module(torch.nn.Module):
        def forward(self, *inputs):
            return function(*inputs)

    return Module().eval()


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    """Convert and run a function; give the conversion and the first output."""
    import torch

    from parity.coreai import converter
    from parity.coreai.process import Process

    folder = tmp_path_factory.mktemp("hazards")
    process = None

    def run(name, function, arrays):
        nonlocal process
        tensors = {f"x{index}": torch.from_numpy(array) for index, array in enumerate(arrays)}
        made = converter.convert(_module(function), tensors, folder / f"{name}.aimodel", outputs=["y"])
        if process is None:
            process = Process(made.path)
        process.switch(made.path)
        return made, process.run({key: tensor.numpy() for key, tensor in tensors.items()})["y"].ravel()

    yield run
    if process is not None:
        process.close()


@pytest.mark.parametrize("name", NAMES)
def test_found_and_still_true(name, runner):
    import torch

    function, arrays, expected = cases()[name]
    made, result = runner(name, function, arrays)
    assert name in {finding.hazard.name for finding in made.findings}
    np.testing.assert_allclose(result.astype(np.float64), expected, rtol=1e-5)
    right = function(*map(torch.from_numpy, arrays)).numpy().ravel()
    right = right.astype(np.float64)
    assert right.shape != result.shape or not np.allclose(right, result, equal_nan=True, rtol=1e-8, atol=0)


def test_every_hazard_has_a_case():
    from parity.coreai import hazards

    # the result of an empty sum is uninitialised memory, which may be right by chance
    assert {hazard.name for hazard in hazards.known()} == {*NAMES, "empty-reduction"}


def test_an_empty_reduction_is_found():
    import torch

    from parity.coreai import converter, hazards

    program = converter.export(_module(lambda x: x[:, 3:3].sum()), (torch.ones(2, 5),))
    (finding,) = hazards.find(program)
    assert finding.hazard.name == "empty-reduction"


def test_what_is_right_is_not_found():
    import torch
    from torch.nn import functional as f

    from parity.coreai import converter, hazards

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = torch.nn.Conv2d(4, 4, 3, padding=1), torch.nn.GroupNorm(2, 4)

        def forward(self, x, i):
            y = f.interpolate(self.norm(self.conv(x)) * 0.5, scale_factor=2.0)
            return f.avg_pool2d(f.max_pool2d(y, 2), 2) + i[0] * 2

    program = converter.export(Network().eval(), (torch.ones(1, 4, 8, 8), torch.ones(2, dtype=torch.int32)))
    assert hazards.find(program) == ()


def test_a_lacking_operator_is_named_with_its_modules(tmp_path):
    import torch

    from parity.coreai import converter

    class Spread(torch.nn.Module):
        def forward(self, x):
            return x.std(-1)

    module = torch.nn.Sequential(torch.nn.Linear(4, 4), Spread()).eval()
    with pytest.raises(UnsupportedError, match=r"no translation of aten\.var\.correction \(in 1\)"):
        converter.convert(module, {"x": torch.ones(1, 4)}, tmp_path / "x.aimodel", outputs=["y"])
    assert not (tmp_path / "x.aimodel").exists()


@pytest.mark.long
def test_one_tensor_given_twice_is_two_inputs(tmp_path):
    import torch

    from parity.coreai import converter
    from parity.coreai.process import Process

    one = torch.ones(2)
    made = converter.convert(_module(torch.sub), {"a": one, "b": one}, tmp_path / "sub.aimodel", outputs=["y"])
    with Process(made.path) as process:
        assert process.run({"a": np.full(2, 7.0), "b": np.full(2, 2.0)})["y"].tolist() == [5, 5]
