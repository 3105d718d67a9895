"""Draw from the installed torch and write the bytes; run as a process, whose environment picks the kernel."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import torch

DTYPES = ("float32", "float64", "float16", "bfloat16")
SIZES = (1, 16, 5, 17, 16384, 15, 8193, 100)
SCALES = ((0.0, 1.0), (0.3, 2.7), (0.0, 14.6146))


def cases() -> Iterator[tuple[str, float, float, int]]:
    """All combinations, in the order of drawing."""
    for dtype in DTYPES:
        for mean, std in SCALES:
            for size in SIZES:
                yield dtype, mean, std, size


def main(path: str, seed: str) -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(int(seed))
    with Path(path).open("wb") as file:
        for dtype, mean, std, size in cases():
            values = torch.empty(size, dtype=getattr(torch, dtype)).normal_(mean, std, generator=generator)
            file.write(values.view(torch.uint8).numpy().tobytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
