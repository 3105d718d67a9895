"""Published and recorded vectors: nothing here needs the producer."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import numpy as np
import pytest

from parity import streams
from parity.assets import fixtures
from parity.streams.mersenne import MersenneTwister, key_from_array, key_from_seed
from parity.streams.pcg import PCG64, seed_words
from parity.streams.philox import philox

FOLDER = fixtures() / "streams"


def _rows(name: str) -> list[list[str]]:
    lines = (FOLDER / name).read_text().splitlines()
    return [line.split(",") for line in lines if not line.startswith("#")]


@pytest.mark.parametrize("row", _rows("philox4x32.csv"), ids=lambda row: row[0])
def test_philox(row: list[str]) -> None:
    numbers = [int(word, 16) for word in row]
    words = philox(tuple(numbers[0:4]), tuple(numbers[4:6]))
    assert [int(word) for word in words] == numbers[6:10]


@pytest.mark.parametrize("seed", ["0xdeadbeaf", "0x0"])
@pytest.mark.parametrize("generator", ["mt19937", "pcg64"])
def test_words_of_numpy(generator: str, seed: str) -> None:
    expected = [int(word, 16) for kind, s, _, word in _rows("numpy_words.csv") if (kind, s) == (generator, seed)]
    assert len(expected) == 24
    if generator == "pcg64":
        words = PCG64.from_seed(int(seed, 16))
        assert [words.word() for _ in expected] == expected
        return
    key = np.array(seed_words(int(seed, 16), 312), "<u8").view("<u4").astype(np.uint32)
    key[0] = 0x80000000
    assert MersenneTwister(key, 623).peek(24).tolist() == expected  # NumPy starts at the last word of the key


def test_mersenne_reference_output() -> None:
    """The first words of mt19937ar.out by the algorithm's authors, and the 10000th of the C++ standard."""
    words = MersenneTwister(key_from_array([0x123, 0x234, 0x345, 0x456]))
    assert words.take(5).tolist() == [1067595299, 955945823, 477289528, 4107218783, 4228976476]
    words = MersenneTwister(key_from_seed(5489))
    words.skip(9999)
    assert words.word() == 4123659995


def _values(name: str) -> list[dict[str, Any]]:
    return json.loads((FOLDER / name).read_text())["values"]


@pytest.mark.parametrize(
    "case", _values("swift.json"), ids=lambda c: f"{c['rng']}-{c['seed']}-{c['count']}-{c['index']}"
)
def test_swift(case: dict[str, Any]) -> None:
    stream = streams.open(case["rng"], case["seed"])
    if "before" in case:
        stream.normal(case["before"])
    draw = stream.normal_each if case.get("each") else stream.normal
    value = draw(case["count"], dtype="float64")[case["index"]]
    assert value == pytest.approx(case["value"], abs=0.6 * 10.0 ** -case["digits"])


@pytest.mark.parametrize("case", _values("torch_cuda.json"), ids=lambda c: f"{c['seed']}-{c['count']}-{c['index']}")
def test_torch_cuda(case: dict[str, Any]) -> None:
    stream = streams.open("torch-cuda", case["seed"], device=case.get("device"))
    if "before" in case:
        stream.normal(case["before"])
    value = stream.normal(case["count"], dtype=case.get("dtype"))[case["index"]]
    assert value == pytest.approx(case["value"], abs=0.6 * 10.0 ** -case["digits"])


def _prints() -> list[Any]:
    prints = json.loads((FOLDER / "torch_cuda.json").read_text())["prints"]
    return [pytest.param(case, id=case["source"].split(":")[0]) for case in prints]


@pytest.mark.parametrize("case", _prints())
def test_torch_cuda_prints_the_same(case: dict[str, Any]) -> None:
    """Also beyond one grid, in float16 and float64, with mean and std: to the four digits that were printed."""
    geometry = {key: case[key] for key in ("device", "multiprocessors", "threads") if key in case}
    scale = {key: case[key] for key in ("mean", "std") if key in case}
    values = streams.open("torch-cuda", case["seed"], **geometry).normal(
        case["shape"], dtype=case.get("dtype"), **scale
    )
    flat = values.reshape(-1).astype(np.float64)
    for start, printed in case["blocks"].items():
        at = int(start) % flat.size
        assert flat[at : at + len(printed)] == pytest.approx(printed, abs=0.6e-4), start


@pytest.mark.parametrize("each", [False, True])
def test_swift_nvidia_applies_the_deviation_to_the_radius(each: bool) -> None:
    """NvRandomSource line by line, value by value: (stdev * sqrt(-2 log u)) * sin v + mean."""
    stream = streams.open("swift-nvidia", 93)
    draw = stream.normal_each if each else stream.normal  # type: ignore[attr-defined]
    values = draw(500, dtype="float64", mean=0.25, std=14.614647)
    for index, value in enumerate(values.tolist()):
        x, y, *_ = (int(word) for word in philox((index, 0, 0, 0) if each else (0, 0, index, 0), (93, 0)))
        u, v = x * 2.0**-32 + 2.0**-33, y * (math.pi * 2.0**-31) + math.pi * 2.0**-32
        assert value == 14.614647 * math.sqrt(-2.0 * math.log(u)) * math.sin(v) + 0.25


def _torch_runs() -> list[Any]:
    runs = json.loads((FOLDER / "torch_releases.json").read_text())["runs"]
    return [pytest.param(run, id=f"{run['torch']}-{run.get('machine', 'x86_64')}-{run['kernel']}") for run in runs]


@pytest.mark.parametrize("run", _torch_runs())
def test_torch_releases(run: dict[str, Any]) -> None:
    for case in run["cases"]:
        fused = True if run.get("machine") == "aarch64" else None
        stream = streams.open("torch-cpu", case["seed"], kernel=run["kernel"], torch_version=run["torch"], fused=fused)
        if case["kind"] == "integers":
            values = stream.integers(0, case["high"], case["size"])
        elif case["kind"] == "uniform":
            values = stream.uniform(case["size"], dtype=case["dtype"])
        elif case["kind"] == "channels-last":
            values = np.empty((2, 6, 5, 4), "float32" if case["dtype"] == "bfloat16" else case["dtype"])
            stream.fill_normal(values.transpose(0, 3, 1, 2), dtype=case["dtype"], mean=case["mean"], std=case["std"])
            values = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
        else:
            values = stream.normal(case["size"], dtype=case["dtype"], mean=case["mean"], std=case["std"])
        if case.get("dtype") == "bfloat16":
            values = (values.view(np.uint32) >> 16).astype(np.uint16)
        assert hashlib.sha256(values.tobytes()).hexdigest() == case["sha256"], case
        if "next_double" in case:
            assert stream.uniform(1, dtype="float64")[0].hex() == case["next_double"], case
