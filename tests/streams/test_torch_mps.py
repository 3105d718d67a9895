"""``torch-mps``: counts published from hardware, the kernels of torch's source thread by thread, states, refusals."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parity import streams
from parity.assets import fixtures
from parity.streams import torch_mps

PUBLISHED = json.loads((fixtures() / "streams" / "torch_mps.json").read_text())


@pytest.mark.long
def test_counts_published_from_hardware() -> None:
    """Six calls on one generator: words, key, rounds, layout, offsets, and the rounding of uniforms."""
    stream = streams.open("torch-mps", PUBLISHED["seed"])
    for call in PUBLISHED["calls"]:
        values = stream.uniform(PUBLISHED["size"], dtype=call["dtype"])
        assert int(np.count_nonzero(values == 1.0)) == call["at_high"], call  # uniform_(0, 4) is 4 times uniform_(0, 1)


def test_uniforms_of_2_15_stay_below_one() -> None:
    old, new = (
        streams.open("torch-mps", 0, torch_version=v).uniform(1 << 16, dtype="bfloat16") for v in ("2.14", "2.15")
    )
    assert np.count_nonzero(old == 1.0) > 0
    assert np.array_equal(np.where(old == 1.0, np.float32(0), old), new)


def _words(seed: int, index: int) -> list[int]:
    """One thread's words, by c10/metal/random.h in Python's integers."""
    counter = [0, 0, index >> 32 & 0xFFFFFFFF, index & 0xFFFFFFFF]
    key = [seed >> 32 & 0xFFFFFFFF, seed & 0xFFFFFFFF]
    for _ in range(9):
        first, second = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [
            second >> 32 ^ counter[1] ^ key[0],
            second & 0xFFFFFFFF,
            first >> 32 ^ counter[3] ^ key[1],
            first & 0xFFFFFFFF,
        ]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return counter


CALLS = st.lists(
    st.tuples(
        st.sampled_from(["normal", "uniform", "integers"]),
        st.integers(0, 40),
        st.tuples(st.floats(-3, 3), st.floats(0, 20)),
        st.sampled_from([(0, 10), (-5, 2**40), (-(2**63), 2**63 - 1)]),
    ),
    max_size=5,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(-(2**63), 2**64 - 1), st.sampled_from([0, 1, 2**32 - 3, 2**40]), CALLS)
def test_kernels_thread_by_thread(seed: int, offset: int, calls: list[Any]) -> None:
    stream = streams.open("torch-mps", seed)
    state = stream.export_state()
    state.view("<u4")[9:11] = offset & 0xFFFFFFFF, offset >> 32
    stream.import_state(state)
    for kind, size, (mean, std), (low, high) in calls:
        expected: list[float] = []
        for thread in range(-(-size // (2 if kind == "integers" else 4))):
            words = _words(seed % 2**64, offset + thread)
            if kind == "integers":
                drawn = [words[0] << 32 | words[1], words[2] << 32 | words[3]]
                wide = high - low == 2**64 - 1
                expected += [(v if wide else v % (high - low)) + low for v in drawn]
                continue
            u = [float(np.float32(w & 0x7FFFFFFF) * np.float32(4.6566127342e-10)) for w in words]
            for first, second in (u[:2], u[2:]) if kind == "normal" else ():
                radius = math.sqrt(-2 * math.log(max(first, 2.0**-23)))
                expected += [radius * f(2 * math.pi * second) * std + mean for f in (math.cos, math.sin)]
            if kind == "uniform":
                expected += u
        if kind == "integers":
            assert stream.integers(low, high, size).tolist() == expected[:size]
        elif kind == "uniform":
            assert stream.uniform(size).tolist() == expected[:size]
        else:
            values = stream.normal(size, mean=mean, std=std)
            assert np.allclose(values, expected[:size], rtol=1e-6, atol=3e-6 * (1 + std))
        offset += -(-size // (2 if kind == "integers" else 4))
    assert int(stream.export_state()[36:].view("<u8")[0]) == offset


def test_half_types_are_the_float32_values_rounded() -> None:
    plain = streams.open("torch-mps", 93).normal(1001, mean=0.3, std=2.7)
    assert np.array_equal(
        streams.open("torch-mps", 93).normal(1001, dtype="float16", mean=0.3, std=2.7), plain.astype(np.float16)
    )
    bfloat16 = streams.open("torch-mps", 93).normal(1001, dtype="bfloat16", mean=0.3, std=2.7)
    assert np.array_equal(bfloat16, torch.from_numpy(plain).bfloat16().float().numpy())


def test_prediction_is_what_would_be_printed() -> None:
    """The line in the module's docstring, for a Mac's owner; here torch prints our values."""
    values = torch.from_numpy(streams.open("torch-mps", 42).normal(5))
    assert repr(values)[:-1] + ", device='mps:0')" == torch_mps.PREDICTION


def test_state_goes_both_ways() -> None:
    stream = streams.open("torch-mps", 2**40 + 93)
    stream.normal(7)
    state = stream.export_state()
    assert state.shape == (44,)
    assert state.view("<u4").tolist() == [1, 1, 1, 1, 1, 93, 256, 93, 256, 2, 0]
    again = streams.open("torch-mps", 0)
    again.import_state(state)
    assert np.array_equal(again.normal(9), stream.normal(9))
    for damaged in (state[:-1], state.astype(np.int64)):
        with pytest.raises(ValueError, match="44 uint8"):
            again.import_state(damaged)


def test_closed_releases_are_named() -> None:
    with pytest.raises(NotImplementedError, match=r"2\.12 MPSGraph.*closed"):
        streams.open("torch-mps", 93, torch_version="2.12")


@pytest.mark.skipif(not torch.backends.mps.is_available(), reason="this machine has no Apple GPU")
def test_on_an_apple_gpu() -> None:
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 13):
        pytest.skip(f"torch {torch.__version__} draws by MPSGraph")
    stream, generator = streams.open("torch-mps", 93), torch.Generator("mps").manual_seed(93)
    uniform = torch.rand(1001, device="mps", generator=generator).cpu().numpy()
    assert np.array_equal(stream.uniform(1001), uniform)
    integers = torch.randint(-5, 2**40, (1001,), device="mps", generator=generator).cpu().numpy()
    assert np.array_equal(stream.integers(-5, 2**40, 1001), integers)
    assert stream.export_state().tobytes() == generator.get_state().numpy().tobytes()
    normal = torch.randn(1001, device="mps", generator=generator).cpu().numpy()
    assert np.allclose(stream.normal(1001), normal, rtol=1e-6, atol=1e-6)
