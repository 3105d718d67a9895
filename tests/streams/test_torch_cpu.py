"""torch's CPU stream against torch."""

from __future__ import annotations

import pytest
import torch

from parity import streams

SHAPES = [3, 1, (4, 4), 15, (1, 4, 64, 64), 17, 5, 100, 9000, 3 * 8192 + 5, 16, 31, 0]


@pytest.mark.parametrize("seed", [0, 93, 2**32 - 1, 2**32 + 93, -1])
def test_call_sequence(seed: int) -> None:
    ours = streams.open("torch-cpu", seed=seed)
    theirs = torch.Generator().manual_seed(seed)
    for shape in SHAPES:
        assert ours.normal(shape).tobytes() == torch.randn(shape, generator=theirs).numpy().tobytes(), shape
