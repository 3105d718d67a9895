"""A convolution that is computed a band of rows at a time is the same convolution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.backends import rounded

SIZES = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(7, 23),
    kernel=SIZES,
    stride=SIZES,
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=SIZES,
    groups=st.sampled_from([1, 2]),
    biased=st.booleans(),
    batch=st.integers(1, 2),
)
def test_bands_are_equal_to_the_whole(
    height: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    biased: bool,
    batch: int,
) -> None:
    generator = torch.Generator().manual_seed(93)
    image = torch.randn(batch, 4, height, 9, generator=generator, dtype=torch.float64)
    weight = torch.randn(2, 4 // groups, *kernel, generator=generator, dtype=torch.float64)
    bias = torch.randn(2, generator=generator, dtype=torch.float64) if biased else None
    given_ = (image, weight, bias, list(stride), list(padding), list(dilation), False, [0, 0], groups)
    calls = []

    def counted(*args: object) -> torch.Tensor:
        calls.append(args)
        return torch.ops.aten.convolution(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounded, "_PATCHES", 2000)
        found = rounded._in_bands(counted, given_)
    wanted = torch.nn.functional.conv2d(image, weight, bias, stride, padding, dilation, groups)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    patches = found.shape[2] * batch * 9 * weight[0].numel() * 8
    assert patches <= 2000 or len(calls) > 1 or found.shape[2] == 1


def test_float32_is_convolved_as_a_whole() -> None:
    """Its kernels need no patches, and another shape could change the last bit of a sum."""
    image, weight = torch.ones(1, 4, 20, 9), torch.ones(2, 4, 3, 3)
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounded, "_PATCHES", 1)
        rounded._in_bands(lambda *args: calls.append(args), (image, weight, None, [1], [1], [1], False, [0], 1))
    assert len(calls) == 1


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("options", [{}, {"padding": 1}, {"stride": (2, 1), "padding": (1, 0), "dilation": 2}])
def test_a_modules_convolution_is_banded_in_every_mode(mode: Callable[[], Any], options: dict[str, Any]) -> None:
    """Inference mode gives ``conv2d`` where others give ``convolution``."""
    generator = torch.Generator().manual_seed(93)
    image = torch.randn(1, 4, 20, 9, generator=generator).half()
    network = torch.nn.Conv2d(4, 2, 3, **options).half()
    bands: list[int] = []
    counted = rounded._in_bands

    def watched(convolution: Any, args: tuple[Any, ...]) -> torch.Tensor:
        def count(*each: Any) -> torch.Tensor:
            bands.append(each[0].shape[2])
            return convolution(*each)

        return counted(count, args)

    with pytest.MonkeyPatch.context() as patch, mode(), rounded.Rounded():
        whole = network(image)
        patch.setattr(rounded, "_PATCHES", 2000)
        patch.setattr(rounded, "_in_bands", watched)
        found = network(image)
    assert len(bands) > 1
    assert torch.equal(found, whole)


def test_what_a_call_leaves_out_is_its_default() -> None:
    image, weight = torch.randn(1, 4, 8, 8).half(), torch.randn(2, 4, 3, 3).half()
    with torch.inference_mode(), rounded.Rounded():
        found = torch.nn.functional.conv2d(image, weight)
        same = torch.nn.functional.conv2d(image, weight, padding="valid")
    assert torch.equal(found, same)
    torch.testing.assert_close(
        found.float(), torch.nn.functional.conv2d(image.float(), weight.float()), rtol=1e-3, atol=1e-2
    )
