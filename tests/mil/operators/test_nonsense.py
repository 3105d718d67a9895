"""Does any operator crash, hang or write into its inputs when a damaged program calls it with nonsense?

Interpreters turn whatever an operator raises into an error that names the operation, so any exception is fine here.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from parity.mil import operators

WORDS = [
    *("valid", "same", "custom", "constant", "reflect", "replicate", "update", "add", "div", "max", "EXACT"),
    *("bilinear", "nearest", "border", "symmetric", "reflection", "unnormalized", "normalized_zero_to_one"),
    *("DEFAULT", "ALIGN_CORNERS", "CORNERS_HEIGHT_FIRST", "forward", "bidirectional", "tanh", "logits", "fp32", "int8"),
    *("nchw,nwhu->nchu", "ij,jk->ik", "LINEAR", "NEAREST_NEIGHBOR", ""),
]


def _tensor(chance: random.Random) -> torch.Tensor:
    shape = [chance.choice([0, 1, 2, 3, 4]) for _ in range(chance.randint(0, 5))]
    made = torch.from_numpy(np.random.default_rng(chance.getrandbits(32)).normal(0, 3, shape))
    tensor = made.to(chance.choice([torch.float32, torch.float32, torch.int32, torch.uint8, torch.bool]))
    return tensor.transpose(0, -1) if tensor.dim() > 1 and chance.random() < 0.2 else tensor


def _plain(chance: random.Random) -> Any:
    makers = [
        lambda: chance.randint(-3, 9),
        lambda: tuple(chance.randint(-3, 9) for _ in range(chance.randint(0, 8))),
        lambda: chance.choice([0.0, 1.0, -1.5, float("inf"), float("nan")]),
        lambda: chance.choice(WORDS),
        lambda: chance.random() < 0.5,
        lambda: ((1, -1), (0, 2)),
    ]
    return chance.choice(makers)()


def _argument(chance: random.Random, operator: operators.Operator, name: str) -> Any:
    if name in operator.static:
        return _plain(chance)
    if name in operator.variadic:
        return tuple(_tensor(chance) for _ in range(chance.randint(1, 3)))
    if name == "ls":
        return [_tensor(chance), None]
    if name == "state" or operator.type in ("read_state", "write_state"):
        return operators.State(_tensor(chance)) if name != "data" else _tensor(chance)
    return _tensor(chance)


@pytest.mark.parametrize("seed", range(4))
def test_nonsense_raises_or_gives_a_result(seed):
    chance = random.Random(seed)
    known = [version for versions in operators.versions().values() for version in versions]
    results = 0
    for _ in range(1500):
        operator = chance.choice(known)
        names = [name for name in operator.parameters if name in operator.required or chance.random() < 0.5]
        arguments = {name: _argument(chance, operator, name) for name in names}
        copies = {name: value.clone() for name, value in arguments.items() if isinstance(value, torch.Tensor)}
        profile = chance.choice(["declared", "float16-accumulate"])
        context = operators.Context("n", operator.type, outputs=(operators.Declared("fp16"),), profile=profile)
        try:
            operator.function(context, **arguments)
            results += 1
        except Exception:
            continue
        finally:
            for name, copy in copies.items():
                np.testing.assert_array_equal(arguments[name].numpy(), copy.numpy(), err_msg=f"{operator.type} {name}")
    assert results > 300
