"""The public face: names, protocol, refusals, import time, memory."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from parity import streams
from parity.streams import catalogue
from parity.streams.cuda_devices import DEVICES, geometry


def test_names() -> None:
    assert streams.names() == [
        *("numpy-legacy", "numpy-pcg64", "torch-cpu", "torch-cuda", "torch-mps", "mlx", "jax"),
        *("swift-numpy", "swift-torch", "swift-nvidia", "webui-nv"),
    ]
    with pytest.raises(ValueError, match=r"unknown stream 'cuda'.*numpy-legacy.*swift-nvidia"):
        streams.open("cuda", seed=93)


@pytest.mark.parametrize("name", streams.names())
def test_protocol(name: str) -> None:
    for dtype in catalogue.dtypes(name):
        whole = streams.open(name, seed=93).normal((3, 0, 5), dtype=dtype)
        assert whole.shape == (3, 0, 5)
        values = streams.open(name, seed=93).normal((2, 8, 2), dtype=dtype)
        assert values.dtype == np.dtype("float32" if dtype == "bfloat16" else dtype)
        assert values.flags.c_contiguous
        assert values.tobytes() == streams.open(name, seed=93).normal([2, 8, 2], dtype=dtype).tobytes()
        assert abs(streams.open(name, seed=1).normal(20_000, dtype=dtype, std=1.0).mean()) < 0.05
    default = streams.open(name, seed=93).normal(3)
    assert default.dtype.name == catalogue.dtypes(name)[0]
    with pytest.raises(streams.open(name, seed=93)._bad_dtype, match="does not draw int8"):
        streams.open(name, seed=93).normal(3, dtype="int8")
    with pytest.raises((ValueError, RuntimeError), match="negative"):
        streams.open(name, seed=93).normal((2, -1))
    with pytest.raises(TypeError, match="integers"):
        streams.open(name, seed=93).normal((2, 1.5))


@pytest.mark.parametrize("name", streams.names())
def test_mean_and_std(name: str) -> None:
    dtype = "float64" if "float64" in catalogue.dtypes(name) and name != "torch-cuda" else "float32"
    plain = streams.open(name, seed=93).normal(40_000, dtype=dtype)
    scaled = streams.open(name, seed=93).normal(40_000, dtype=plain.dtype.name, mean=3.0, std=0.5)
    assert np.allclose(scaled, plain.astype(np.float64) * 0.5 + 3.0, rtol=1e-6)


@pytest.mark.parametrize("name", ["swift-numpy", "swift-torch", "swift-nvidia"])
@pytest.mark.parametrize("seed", [-1, 2**32])
def test_swift_seed_is_32_bits(name: str, seed: int) -> None:
    with pytest.raises(ValueError, match="4294967295"):
        streams.open(name, seed=seed)


@pytest.mark.parametrize("name", streams.names())
def test_seeds_that_are_no_integers(name: str) -> None:
    with pytest.raises((TypeError, RuntimeError), match=r"seed 1\.5"):
        streams.open(name, seed=1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("call", ["uniform", "integers"])
def test_what_a_producer_lacks(call: str) -> None:
    stream: Any = streams.open("swift-torch", seed=93)
    with pytest.raises(NotImplementedError, match="normal values only"):
        stream.uniform(3) if call == "uniform" else stream.integers(0, 3, 3)


def test_cuda_geometry() -> None:
    assert (
        streams.open("torch-cuda", 93, device="T4").normal(100_000).tobytes()
        == streams.open("torch-cuda", 93, multiprocessors=40, threads=1024).normal(100_000).tobytes()
    )
    within, beyond = (streams.open("torch-cuda", 93, device=d).normal(100_000) for d in ("A100", "T4"))
    assert np.array_equal(within[:40960], beyond[:40960])
    assert not np.any(within[40960:81920] == beyond[40960:81920])
    for options in (
        *({"device": "GTX"}, {"device": "T4", "threads": 1024}, {"multiprocessors": 1, "threads": 3}),
        *({"multiprocessors": 40}, {"threads": 1024}, {"multiprocessors": 0, "threads": 1024}),
    ):
        with pytest.raises(ValueError, match="multiprocessors"):
            streams.open("torch-cuda", 93, **options)


@pytest.mark.parametrize(
    ("spelled", "listed"),
    [("NVIDIA GeForce RTX 4090", "RTX-4090"), ("Tesla T4", "T4"), ("a10g", "A10G"), ("NVIDIA RTX A6000", "RTX-A6000")],
)
def test_cuda_device_names(spelled: str, listed: str) -> None:
    assert geometry(spelled) == DEVICES[listed]


def test_cuda_device_that_is_not_listed() -> None:
    with pytest.raises(ValueError, match=r"RTX-9090.*nearest are .*RTX-\d090"):
        geometry("RTX-9090")


@pytest.mark.parametrize("name", streams.names())
@pytest.mark.parametrize("shape", [2 * 10**12, (10**9, 10**9), 10**20])
def test_shapes_beyond_memory(name: str, shape: Any) -> None:
    with pytest.raises(ValueError, match=r"shape .* GiB, more than this machine's memory"):
        streams.open(name, seed=93).normal(shape)


def test_cuda_state_and_range() -> None:
    stream = streams.open("torch-cuda", 93)
    stream.normal(5)
    state = stream.export_state()
    assert state.view("<u8").tolist() == [93, 4]
    expected = stream.normal(5)
    again = streams.open("torch-cuda", 0)
    again.import_state(state)
    assert np.array_equal(again.normal(5), expected)
    with pytest.raises(ValueError, match="16 uint8"):
        again.import_state(state[:8])
    for dtype in catalogue.dtypes("torch-cuda"):
        values = streams.open("torch-cuda", 93, device="T4").uniform(200_000, dtype=dtype)
        assert values.min() >= 0.0
        assert values.max() < 1.0
        assert abs(values.astype(np.float64).mean() - 0.5) < 0.005


@pytest.mark.parametrize("package", ["torch", "numpy.random", "diffusers", "coremltools", "safetensors"])
def test_import_needs_numpy_alone(package: str) -> None:
    code = (
        "import sys, numpy; before = set(sys.modules); import parity.streams\n"
        f"print({package!r} in set(sys.modules) - before)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_numpy_generators_are_not_used() -> None:
    """Streams are drawn in a process whose ``numpy.random`` cannot be imported."""
    code = (
        "import sys; sys.modules['numpy.random'] = None\n"
        "from parity import streams\n"
        "from parity.streams import catalogue\n"
        "for name in streams.names():\n"
        "    for dtype in catalogue.dtypes(name): streams.open(name, seed=93).normal(1000, dtype=dtype)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("numpy-legacy", "float64"), ("numpy-pcg64", "float32"), ("torch-cpu", "float32"), ("torch-cpu", "float16")],
)
def test_memory_beside_the_output(name: str, dtype: str) -> None:
    """At most 16 MiB, whatever the size; here 4 million values, in a process of its own."""
    code = (
        "import resource, sys, numpy as np\n"
        "from parity import streams\n"
        f"count, dtype = 4_000_000, {dtype!r}\n"
        f"stream = streams.open({name!r}, seed=93)\n"
        "stream.normal(20_000, dtype=dtype)\n"
        "unit = 1024 if sys.platform == 'linux' else 1\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit\n"
        "out = stream.normal(count, dtype=dtype)\n"
        "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit\n"
        "print((after - before - out.nbytes) / 2**20)\n"
    )
    extra = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(extra) < 16
