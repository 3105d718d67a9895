"""Is the profile ``float16-sequential`` Core AI's arithmetic, bit for bit? Which operators does ``declared`` equal?"""

from __future__ import annotations

import copy

import numpy as np
import pytest

pytestmark = [pytest.mark.coreai, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def modules():
    """Name to (module, shapes of the inputs)."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Function(nn.Module):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def forward(self, *inputs):
            return self.function(*inputs)

    attention = Function(lambda q, k, v: functional.scaled_dot_product_attention(q, k, v))
    return {
        "linear": (nn.Linear(320, 24), [(2, 5, 320)]),
        "matmul": (Function(torch.matmul), [(2, 5, 64), (2, 64, 9)]),
        "attention": (attention, [(1, 2, 12, 32), (1, 2, 20, 32), (1, 2, 20, 32)]),
        "conv": (nn.Conv2d(16, 12, 3, padding=1), [(1, 16, 9, 9)]),
        "strided conv": (nn.Conv2d(16, 12, 3, stride=2, padding=1), [(1, 16, 9, 9)]),
        "avg_pool": (nn.AvgPool2d(3), [(1, 4, 12, 12)]),
        "cumsum": (Function(lambda x: x.cumsum(-1)), [(3, 50)]),
        "mean": (Function(lambda x: x.mean(-1)), [(3, 500)]),
        "softmax": (nn.Softmax(-1), [(3, 64)]),
        "layer norm": (nn.LayerNorm(64), [(3, 64)]),
        "group norm": (nn.GroupNorm(4, 16), [(1, 16, 8, 8)]),
        "silu": (nn.SiLU(), [(300,)]),
    }


NAMES = (
    "linear",
    "matmul",
    "attention",
    "conv",
    "strided conv",
    "avg_pool",
    "cumsum",
    "mean",
    "softmax",
    "layer norm",
    "group norm",
    "silu",
)
DECLARED = ("mean", "softmax", "layer norm", "group norm", "silu")


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_equal_bit_for_bit(name, tmp_path):
    import torch

    from parity import mil
    from parity.convert import workarounds
    from parity.coreai import converter
    from parity.coreai.process import Process

    torch.manual_seed(len(name))
    module, shapes = modules()[name]
    module = module.eval().half()
    inputs = {f"x{index}": torch.randn(shape).half() for index, shape in enumerate(shapes)}
    converter.convert(copy.deepcopy(module), inputs, tmp_path / "a.aimodel", outputs=["y"])
    with Process(tmp_path / "a.aimodel") as process:
        theirs = process.run({key: tensor.numpy() for key, tensor in inputs.items()})["y"]

    ct = workarounds.coremltools()
    with workarounds.tracing(), torch.no_grad():
        traced = torch.jit.trace(module.float(), [tensor.float() for tensor in inputs.values()], check_trace=False)
    with workarounds.converting():
        package = ct.convert(
            traced,
            inputs=[ct.TensorType(name=key, shape=tensor.shape, dtype=np.float16) for key, tensor in inputs.items()],
            outputs=[ct.TensorType(name="y", dtype=np.float16)],
            minimum_deployment_target=ct.target.iOS18,
            skip_model_load=True,
        )
    package.save(str(tmp_path / "a.mlpackage"))
    model, given = mil.load(tmp_path / "a.mlpackage"), {key: tensor.numpy() for key, tensor in inputs.items()}
    np.testing.assert_array_equal(mil.Session(model, "float16-sequential").predict(given)["y"], theirs)
    same = np.array_equal(mil.Session(model).predict(given)["y"], theirs)
    assert same == (name in DECLARED)
