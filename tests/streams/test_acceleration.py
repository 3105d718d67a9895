"""Compiled loops give the bits that NumPy gives, or are not used."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parity import streams
from parity.streams import acceleration as module
from parity.streams import loops
from parity.streams.torch_float32 import BLOCK, Avx2


@pytest.fixture
def accelerated(numba: Any) -> Iterator[None]:
    if not streams.accelerate():
        pytest.skip("this CPU's compiled loops give other bits, so that they are not used")
    yield
    streams.accelerate(False)


CALLS = st.lists(
    st.tuples(
        st.sampled_from(["normal", "scaled", "uniform", "integers", "state"]),
        st.sampled_from([0, 1, 7, 15, 16, 17, 1003, 16384, 20_000, (3, 5), (1, 4, 8, 8)]),
    ),
    min_size=1,
    max_size=6,
)


def _drawn(name: str, seed: int, calls: list[Any]) -> list[bytes]:
    stream: Any = streams.open(name, seed)
    drawn = []
    for call, size in calls:
        if call == "state":
            drawn.append(repr([np.asarray(part).tobytes() for part in stream.export_state()]).encode())
            stream.import_state(stream.export_state())
        elif call == "uniform":
            drawn.append(stream.uniform(size).tobytes())
        elif call == "integers":
            drawn.append(stream.integers(-5, 2**40, size).tobytes())
        else:
            drawn.append(stream.normal(size, **({"mean": 0.3, "std": 2.7} if call == "scaled" else {})).tobytes())
    return drawn


@pytest.mark.long
@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.sampled_from(["torch-cpu", "numpy-legacy"]), st.integers(0, 2**32 - 1), CALLS)
@pytest.mark.usefixtures("numba")
def test_call_sequences_are_the_same(name: str, seed: int, calls: list[Any]) -> None:
    if not streams.accelerate():
        pytest.skip("this CPU's compiled loops give other bits, so that they are not used")
    try:
        fast = _drawn(name, seed, calls)
    finally:
        streams.accelerate(False)
    assert fast == _drawn(name, seed, calls)


@pytest.mark.usefixtures("accelerated")
def test_a_million_values(torch_options: dict[str, Any]) -> None:
    ours = streams.open("torch-cpu", 93, **torch_options).normal(1_000_003)
    assert np.array_equal(ours, torch.randn(1_000_003, generator=torch.Generator().manual_seed(93)).numpy())
    assert np.array_equal(
        streams.open("numpy-legacy", 93).normal(1_000_003), np.random.RandomState(93).randn(1_000_003)
    )


@pytest.mark.slow
@pytest.mark.usefixtures("accelerated")
def test_all_uniforms() -> None:
    """Every radius and every angle, against the NumPy kernel, itself compared with torch's."""
    kernel, half = Avx2(), BLOCK // 2
    expected, found = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for start in range(0, 1 << 24, half):
        uniforms = np.arange(start, start + half, dtype=np.uint32).reshape(-1, 8)
        words = np.stack([uniforms, uniforms[::-1] * np.uint32(2654435761)], axis=1)
        for part in (words, words[:, ::-1]):
            part = np.ascontiguousarray(part).reshape(-1)
            kernel.fill(part, found, 0.0, 1.0)
            super(Avx2, kernel).fill(part, expected, 0.0, 1.0)
            assert found.tobytes() == expected.tobytes(), start


@pytest.mark.usefixtures("numba")
def test_other_bits_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each loop in turn is made wrong in one bit; then none is used."""
    real = importlib.import_module("parity.streams.compiled")
    streams.accelerate(False)

    def one_off(function: Any, out: int) -> Any:
        def wrong(*arguments: Any) -> Any:
            result = function(*arguments)
            arguments[out].view(np.uint8)[-1] ^= 1
            return result

        return wrong

    for name, out in (("twist", 0), ("temper", 1), ("box_muller", 1), ("logarithm", 1), ("polar", 1)):
        own = {n: getattr(real, n) for n in ("twist", "temper", "box_muller", "logarithm", "polar")}
        wrong = SimpleNamespace(**own | {name: one_off(own[name], out)})
        monkeypatch.setattr(module.importlib, "import_module", lambda _, wrong=wrong: wrong)
        assert not streams.accelerate(), name
        assert loops.compiled() is None


def test_without_numba_nothing_changes() -> None:
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "from parity import streams\n"
        "assert not streams.accelerate()\n"
        "print(streams.open('torch-cpu', 93).normal(16)[0])\n"
    )
    drawn = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(drawn) == pytest.approx(0.24188056588)


def test_numba_is_not_imported_unasked() -> None:
    code = (
        "import sys\nfrom parity import streams\n"
        "streams.open('torch-cpu', 93).normal(10**6)\nprint('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
