"""Random streams in NumPy operations against the producers' own compiled loops, on one thread."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.timing import compare
from parity import streams

_SIZES = (16_384, 1_048_576)


def run(report: Callable[[str], object]) -> None:
    """Measure both sizes of the catalogue's bit-exact streams, seeding, and the import."""
    torch.set_num_threads(1)
    legacy, default = np.random.RandomState(93), np.random.default_rng(93)
    generator = torch.Generator().manual_seed(93)
    ours = {name: streams.open(name, seed=93) for name in ("numpy-legacy", "numpy-pcg64", "torch-cpu")}
    for size in _SIZES:
        rows: tuple[tuple[str, Callable[[], object], Callable[[], object], float | None], ...] = (
            ("RandomState.randn", lambda: ours["numpy-legacy"].normal(size), lambda: legacy.randn(size), 2.5),
            (
                "torch.randn float32",
                lambda: ours["torch-cpu"].normal(size),
                lambda: torch.randn(size, generator=generator),
                4.5,
            ),
            (
                "default_rng.standard_normal float64",
                lambda: ours["numpy-pcg64"].normal(size),
                lambda: default.standard_normal(size),
                3.5,
            ),
            (
                "default_rng.standard_normal float32",
                lambda: ours["numpy-pcg64"].normal(size, dtype="float32"),
                lambda: default.standard_normal(size, dtype=np.float32),
                None,
            ),
            (
                "torch.randn float64",
                lambda: ours["torch-cpu"].normal(size, dtype="float64"),
                lambda: torch.randn(size, generator=generator, dtype=torch.float64),
                None,
            ),
            (
                "torch.randn float16",
                lambda: ours["torch-cpu"].normal(size, dtype="float16"),
                lambda: torch.randn(size, generator=generator, dtype=torch.float16),
                None,
            ),
        )
        for name, subject, instead, target in rows:
            report(str(compare(f"{name}, {size:,} values", subject, instead, repeats=21, target=target)))
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
