"""``torch-cpu`` against torch: values, call sequences, states, kernels, refusals."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parity import streams
from parity.streams.detect import TorchOnThisMachine, torch_cpu
from tests.streams.drawn_by_torch import DTYPES, cases

BOUNDS = ((0, 10), (-5, 2**27), (0, 2**28 - 1), (0, 2**28), (0, 2**33 + 1), (-(2**63), 2**63 - 1))
SIZES = [0, 1, 3, 7, 15, 16, 17, 31, 32, 100, 1000, 8192, 8193, (3, 5), (1, 4, 8, 8), (2, 0, 3)]


def _bytes(values: np.ndarray | torch.Tensor, dtype: str) -> bytes:
    if isinstance(values, torch.Tensor):
        return values.contiguous().view(torch.uint8).numpy().tobytes() if values.numel() else b""
    if dtype == "bfloat16":
        assert not np.any(values.view(np.uint32) & 0xFFFF)
        values = (values.view(np.uint32) >> 16).astype(np.uint16)
    return values.tobytes()


CALLS = st.lists(
    st.one_of(
        st.tuples(st.just("normal"), st.sampled_from(SIZES), st.sampled_from(DTYPES), st.just((0.0, 1.0))),
        st.tuples(
            st.just("normal"),
            st.sampled_from(SIZES),
            st.sampled_from(DTYPES),
            st.tuples(st.floats(-20, 20, allow_subnormal=False), st.floats(0, 20, allow_subnormal=False)),
        ),
        st.tuples(st.just("rand"), st.sampled_from(SIZES), st.sampled_from(DTYPES), st.none()),
        st.tuples(st.just("randint"), st.sampled_from(SIZES), st.just("int64"), st.sampled_from(BOUNDS)),
        st.tuples(st.just("channels_last"), st.just((2, 4, 6, 5)), st.sampled_from(DTYPES), st.just((0.5, 2.0))),
        st.tuples(st.just("transposed"), st.just((7, 40)), st.sampled_from(DTYPES), st.just((0.0, 1.0))),
        st.tuples(st.sampled_from(["export", "import"]), st.none(), st.none(), st.none()),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(st.integers(-(2**63), 2**64 - 1), CALLS)
def test_call_sequences(torch_options: dict[str, Any], seed: int, calls: list[tuple[str, Any, Any, Any]]) -> None:
    ours = streams.open("torch-cpu", seed, **torch_options)
    theirs = torch.Generator().manual_seed(seed)
    for call, size, dtype, numbers in calls:
        if call == "export":
            theirs.set_state(torch.from_numpy(ours.export_state()))
        elif call == "import":
            assert ours.export_state().tobytes() == theirs.get_state().numpy().tobytes()
            ours.import_state(theirs.get_state().numpy())
        elif call == "randint":
            low, high = numbers
            expected = torch.randint(low, high, size if isinstance(size, tuple) else (size,), generator=theirs)
            assert ours.integers(low, high, size).tobytes() == _bytes(expected, dtype)
        elif call == "rand":
            expected = torch.rand(size, dtype=getattr(torch, dtype), generator=theirs)
            assert _bytes(ours.uniform(size, dtype=dtype), dtype) == _bytes(expected, dtype)
        elif call == "normal":
            mean, std = numbers
            empty = torch.empty(size, dtype=getattr(torch, dtype))
            expected = empty.normal_(mean, std, generator=theirs)
            assert _bytes(ours.normal(size, dtype=dtype, mean=mean, std=std), dtype) == _bytes(expected, dtype)
        else:
            tensor = torch.empty(size, dtype=getattr(torch, dtype))
            target = np.empty(size, "float32" if dtype == "bfloat16" else dtype)
            if call == "channels_last":
                tensor = tensor.to(memory_format=torch.channels_last)
                target = np.ascontiguousarray(target.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
            else:
                tensor, target = tensor.t(), target.T
            tensor.normal_(*numbers, generator=theirs)
            ours.fill_normal(target, dtype=dtype, mean=numbers[0], std=numbers[1])
            assert _bytes(np.ascontiguousarray(target), dtype) == _bytes(tensor, dtype)


def test_randn_is_normal_without_scaling(torch_options: dict[str, Any]) -> None:
    ours = streams.open("torch-cpu", 93, **torch_options).normal((1, 4, 64, 64))
    theirs = torch.randn((1, 4, 64, 64), generator=torch.Generator().manual_seed(93))
    assert ours.tobytes() == theirs.numpy().tobytes()


@pytest.mark.long
@pytest.mark.parametrize(("capability", "kernel"), [("default", "libm"), ("avx2", "avx2")])
def test_kernels_in_processes_of_their_own(
    torch_options: dict[str, Any], capability: str, kernel: str, tmp_path: Path
) -> None:
    if torch_options["kernel"] != "avx2":
        pytest.skip("this CPU lacks AVX2, so only one of the two kernels can be run")
    script = Path(__file__).with_name("drawn_by_torch.py")
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": capability}
    subprocess.run([sys.executable, script, tmp_path / "drawn", "93"], env=environment, check=True)
    drawn = (tmp_path / "drawn").read_bytes()
    stream = streams.open("torch-cpu", 93, **torch_options | {"kernel": kernel})
    for dtype, mean, std, size in cases():
        mine = _bytes(stream.normal(size, dtype=dtype, mean=mean, std=std), dtype)
        assert mine == drawn[: len(mine)], (dtype, mean, std, size)
        drawn = drawn[len(mine) :]
    assert not drawn


def _many(count: int, dtype: str, options: dict[str, Any]) -> None:
    ours = streams.open("torch-cpu", 93, **options).normal(count, dtype=dtype)
    theirs = torch.randn(count, dtype=getattr(torch, dtype), generator=torch.Generator().manual_seed(93))
    assert _bytes(ours, dtype) == _bytes(theirs, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_million_values(torch_options: dict[str, Any], dtype: str) -> None:
    _many(1_000_003, dtype, torch_options)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_ten_million_values(torch_options: dict[str, Any], dtype: str) -> None:
    _many(10_000_003, dtype, torch_options)


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1, 1.5, "a", True])
def test_refuses_the_seeds_that_torch_refuses(seed: Any) -> None:
    refusal = (ValueError, RuntimeError)  # which of both torch raises depends on its release
    with pytest.raises(refusal):
        torch.Generator().manual_seed(seed)
    for name in ("torch-cpu", "torch-cuda"):
        with pytest.raises(refusal, match="seed"):
            streams.open(name, seed)


def test_refuses_the_arguments_that_torch_refuses() -> None:
    stream = streams.open("torch-cpu", 93)
    with pytest.raises(RuntimeError, match="negative"):
        torch.randn(-1)
    with pytest.raises(RuntimeError, match="negative"):
        stream.normal(-1)
    with pytest.raises(TypeError):
        torch.randn(2, 1.5)
    with pytest.raises(TypeError, match="integers"):
        stream.normal((2, 1.5))
    with pytest.raises(RuntimeError):  # NotImplementedError, which is one, in later releases
        torch.randn(3, dtype=torch.int64)
    with pytest.raises(NotImplementedError, match=r"int64.*float32, float64, float16, bfloat16"):
        stream.normal(3, dtype="int64")
    with pytest.raises(RuntimeError, match="std"):
        torch.empty(3).normal_(0.0, -1.0)
    with pytest.raises(RuntimeError, match="std"):
        stream.normal(3, std=-1.0)
    with pytest.raises(RuntimeError, match="from"):
        torch.randint(6, 5, (3,))
    with pytest.raises(RuntimeError, match="integers"):
        stream.integers(6, 5, 3)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"kernel": "sse"}, "avx2, libm"),
        ({"torch_version": "1.13"}, "2.0 or later"),
        ({"threads": 3}, "no option"),
        ({"fused": True}, "libm and system-libm have two"),
    ],
)
def test_options(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        streams.open("torch-cpu", 93, **options)


def test_damaged_state() -> None:
    stream = streams.open("torch-cpu", 93)
    state = stream.export_state()
    for damaged in (state[:-1], state.astype(np.int64), np.zeros_like(state)):
        with pytest.raises(ValueError, match="state"):
            stream.import_state(damaged)


@pytest.mark.parametrize(
    ("found", "options"),
    [
        (("2.6.0", "avx2", "2.11"), {"torch_version": "2.6", "kernel": "avx2"}),  # integers follow 2.6, not 2.11
        (("2.0.1", "avx2", "2.0"), {"torch_version": "2.0", "kernel": "avx2"}),
        (("2.13.0+cpu", "libm", "2.12"), {"torch_version": "2.12", "kernel": "libm"}),
        (("2.10.0", "libm", "2.11", True), {"torch_version": "2.10", "kernel": "libm", "fused": True}),
        (("2.14.1", None, None), {"torch_version": "2.14"}),
    ],
)
def test_detected_options_name_the_release(found: tuple[Any, ...], options: dict[str, Any]) -> None:
    assert TorchOnThisMachine(*found).options() == options


def test_torch_dtypes_are_taken() -> None:
    stream = streams.open("torch-cpu", 93)
    assert stream.normal(16, dtype=torch.float16).dtype == np.float16  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError, match="does not draw complex64"):
        stream.normal(16, dtype=torch.complex64)  # type: ignore[arg-type]


def test_detector_tells_kernels_apart() -> None:
    found = torch_cpu()
    assert found.version == torch.__version__
    if found.kernel is not None:
        stream = streams.open("torch-cpu", 5, **found.options())
        expected = torch.randn(4096, generator=torch.Generator().manual_seed(5))
        assert stream.normal(4096).tobytes() == expected.numpy().tobytes()
