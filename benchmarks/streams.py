"""Random streams, in NumPy operations and with numba, against the producers' own compiled loops, on one thread."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable, Iterator

import numpy as np
import torch

from benchmarks.timing import compare
from parity import streams


def _calls() -> Iterator[tuple[str, Callable[[int], object], Callable[[int], object], float | None]]:
    """Name, subject, what it stands in for, and the ratio aimed at."""
    legacy, default = np.random.RandomState(93), np.random.default_rng(93)
    numpy_legacy, numpy_pcg64, torch_cpu = (
        streams.open(name, seed=93) for name in ("numpy-legacy", "numpy-pcg64", "torch-cpu")
    )
    yield "RandomState.randn", numpy_legacy.normal, legacy.randn, 2.5
    yield "torch.randn float32", torch_cpu.normal, torch.randn, 4.5
    yield "default_rng.standard_normal float64", numpy_pcg64.normal, default.standard_normal, 3.5
    yield (
        "default_rng.standard_normal float32",
        lambda size: numpy_pcg64.normal(size, dtype="float32"),
        lambda size: default.standard_normal(size, dtype=np.float32),
        None,
    )
    for dtype in (torch.float64, torch.float16):
        name = str(dtype).removeprefix("torch.")
        yield (
            f"torch.randn {name}",
            functools.partial(torch_cpu.normal, dtype=name),
            functools.partial(torch.randn, dtype=dtype),
            None,
        )


def _compiled(report: Callable[[str], object]) -> None:
    """The two streams that numba draws, where it is installed and gives the same bits."""
    if not streams.accelerate():
        report("with numba: not installed, or other bits on this machine, so that it is not used")
        return
    legacy = np.random.RandomState(93)
    for size in (16_384, 1_048_576):
        for name, stream, instead in (
            ("RandomState.randn", "numpy-legacy", legacy.randn),
            ("torch.randn float32", "torch-cpu", torch.randn),
        ):
            subject = functools.partial(streams.open(stream, seed=93).normal, size)
            theirs = functools.partial(instead, size)
            report(str(compare(f"{name}, with numba, {size:,} values", subject, theirs, repeats=31, target=1.0)))
    streams.accelerate(False)


def run(report: Callable[[str], object]) -> None:
    """Measure two sizes of the bit-exact streams, seeding, and the import."""
    torch.set_num_threads(1)
    for size in (16_384, 1_048_576):
        for name, subject, instead, target in _calls():
            ours, theirs = functools.partial(subject, size), functools.partial(instead, size)
            report(str(compare(f"{name}, {size:,} values", ours, theirs, repeats=31, target=target)))
    _compiled(report)
    seeded = compare(
        "seeding and torch.randn float32, 16,384 values",
        lambda: streams.open("torch-cpu", seed=93).normal(16_384),
        lambda: torch.randn(16_384, generator=torch.Generator().manual_seed(93)),
    )
    report(str(seeded))
    importing = compare(
        "import parity.streams, against import numpy",
        lambda: subprocess.run([sys.executable, "-c", "import parity.streams"], check=True),
        lambda: subprocess.run([sys.executable, "-c", "import numpy"], check=True),
        repeats=7,
    )
    report(str(importing))
