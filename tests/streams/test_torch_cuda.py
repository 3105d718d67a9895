"""``torch-cuda`` against what a GPU drew (``fixtures/streams/torch_cuda_h100.json``), and its functions one by one."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest

from parity import streams
from parity.assets import fixtures
from parity.errors import UsageError
from parity.streams import cuda_double
from parity.streams.cuda_reciprocal import reciprocal
from parity.streams.cuda_sine import sine_cosine
from parity.streams.stream import RuntimeUsageError
from parity.streams.torch_cuda import TorchCUDA

RECORDED = json.loads((fixtures() / "streams" / "torch_cuda_h100.json").read_text())


def _cases() -> list[Any]:
    """One of each kind beyond one grid by default, and all that are small."""
    seen, params = set(), []
    for case in RECORDED["cases"]:
        kind = tuple(case.get(key) for key in ("dtype", "kind", "high"))
        quick = case["size"] <= 16384 or (270336 < case["size"] < 2_000_000 and kind not in seen)
        if quick and case["size"] > 16384:
            seen.add(kind)
        name = "-".join(str(case[key]) for key in case if key not in ("before", "offset", "sha256"))
        params.append(pytest.param(case, id=name, marks=() if quick else pytest.mark.slow))
    return params


def _drawn(stream: TorchCUDA, case: dict[str, Any]) -> np.ndarray:
    size, kind = case["size"], case["kind"]
    if kind == "integers":
        return stream.integers(case["low"], case["high"], size)
    if kind == "permutation":
        return stream.permutation(size)
    if kind == "uniform":
        return stream.uniform(size, dtype=case["dtype"])
    return stream.normal(size, dtype=case["dtype"], **{key: case[key] for key in ("mean", "std") if key in case})


@pytest.mark.parametrize("case", _cases())
def test_draws_what_the_gpu_drew(case: dict[str, Any]) -> None:
    stream = TorchCUDA(case["seed"], multiprocessors=RECORDED["multiprocessors"], threads=RECORDED["threads"])
    stream.import_state(np.array([case["seed"], case["before"]], "<u8").view(np.uint8))
    values = _drawn(stream, case)
    if case.get("dtype") == "bfloat16":
        values = (values.view(np.uint32) >> 16).astype(np.uint16)
    assert hashlib.sha256(values.tobytes()).hexdigest() == case["sha256"]
    assert int(stream.export_state().view("<u8")[1]) == case["offset"]


def test_recorded_calls_of_one_generator_follow_one_another() -> None:
    stream = streams.open("torch-cuda", 93, device=RECORDED["device"].split()[1])
    for case in RECORDED["cases"][:8]:
        assert hashlib.sha256(stream.normal(case["size"]).tobytes()).hexdigest() == case["sha256"]


def test_sine_and_cosine_are_within_nvidias_bound() -> None:
    """CUDA's programming guide: at most 2**-21.41 off in [-pi, pi] for the sine, 2**-21.19 for the cosine."""
    angle = (np.arange(1 << 20) * (np.pi * 2.0**-20)).astype(np.float32)
    exact = angle.astype(np.float64)
    sine, cosine = sine_cosine(angle)
    assert np.abs(sine - np.sin(exact)).max() < 2.0**-21.41
    assert np.abs(cosine - np.cos(exact)).max() < 2.0**-21.19


def test_double_functions_are_close_to_the_c_librarys() -> None:
    uniform = (np.arange(1, 1 << 16) * 0.6180339887498949) % 1.0
    assert np.allclose(cuda_double.log(uniform), np.log(uniform), rtol=4e-16, atol=0)
    sine, cosine = cuda_double.sine_cosine_pi(2 * uniform)
    assert np.allclose(sine, np.sin(2 * np.pi * uniform), rtol=0, atol=1e-15)
    assert np.allclose(cosine, np.cos(2 * np.pi * uniform), rtol=0, atol=1e-15)


def test_reciprocal_is_near_and_halves_from_2_on() -> None:
    values = 1.0 + np.arange(1 << 16) * 2.0**-16
    found = reciprocal(values)
    assert np.abs(found * values - 1.0).max() < 2.0**-20
    assert np.array_equal(reciprocal(2.0 * values[:-1]), 0.5 * found[:-1])


def test_double_functions_at_quarters_of_a_turn() -> None:
    sine, cosine = cuda_double.sine_cosine_pi(np.array([0.5, 1.0, 1.5, 2.0]))
    assert sine.tolist() == [1.0, 0.0, -1.0, 0.0]
    assert cosine.tolist() == [0.0, -1.0, 0.0, 1.0]


def test_permutation_is_one() -> None:
    for count in (0, 1, 2, 3, 5000):
        assert sorted(TorchCUDA(7).permutation(count).tolist()) == list(range(count))


@pytest.mark.parametrize(("low", "high", "error"), [(5, 5, RuntimeUsageError), (0, 2**63, UsageError)])
def test_refuses_ranges_as_torch_does(low: int, high: int, error: type[Exception]) -> None:
    with pytest.raises(error, match="torch takes"):
        TorchCUDA(7).integers(low, high, 3)
