"""Programs over streams, against the programs' own functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from parity import streams
from parity.streams import semantics

SHAPE = (3, 4, 8, 8)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("seeds", [93, [93], [93, 94, 0], np.array([93, 94, 0])])
def test_diffusers(torch_options: dict[str, Any], seeds: Any, dtype: str) -> None:
    from diffusers.utils.torch_utils import randn_tensor

    generators: Any = (
        torch.Generator().manual_seed(seeds)
        if isinstance(seeds, int)
        else [torch.Generator().manual_seed(int(s)) for s in seeds]
    )
    theirs = randn_tensor(SHAPE, generator=generators, device=torch.device("cpu"), dtype=getattr(torch, dtype))
    ours = semantics.diffusers(seeds, SHAPE, dtype=dtype, **torch_options)
    assert np.array_equal(ours.astype(np.float32), theirs.float().numpy())


def test_diffusers_on_another_device() -> None:
    cuda = semantics.diffusers([1, 2], (2, 4, 8, 8), generator_device="cuda", device="T4")
    assert np.array_equal(cuda[1], streams.open("torch-cuda", 2).normal((4, 8, 8)))
    with pytest.raises(ValueError, match="xpu"):
        semantics.diffusers(93, SHAPE, generator_device="xpu")
    with pytest.raises(ValueError, match="2 seeds for a batch of 3"):
        semantics.diffusers([1, 2], SHAPE)


def test_python_coreml_stable_diffusion() -> None:
    expected = np.random.RandomState(93).randn(1, 4, 64, 64).astype(np.float16)
    assert semantics.python_coreml_stable_diffusion(93, (1, 4, 64, 64)).tobytes() == expected.tobytes()


def test_swift_continues_and_mochi_starts_again() -> None:
    shape = (1, 4, 8, 8)
    both = np.random.RandomState(93).randn(2, *shape).astype(np.float32)
    assert np.array_equal(np.stack(semantics.swift("swift-numpy", 93, shape, images=2)), both)
    images = semantics.mochi("swift-numpy", 93, shape, images=2)
    assert np.array_equal(images[0], both[0])
    assert np.array_equal(images[1], np.random.RandomState(94).randn(*shape).astype(np.float32))
    with pytest.raises(ValueError, match="swift-torch"):
        semantics.swift("torch-cpu", 93, shape)
