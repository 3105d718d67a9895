"""Draw from the installed torch and print one run of ``fixtures/streams/torch_releases.json``.

``python tests/streams/record_torch.py KERNEL`` needs torch alone, so that an emulator can run it with a wheel for
another processor: ``qemu-aarch64 -L ROOT ROOT/usr/bin/python3.11 tests/streams/record_torch.py libm``.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Iterator
from typing import Any

import torch

SEEDS = (93, 2**63 + 93)
SHAPE = (2, 4, 6, 5)
CALLS: tuple[tuple[str, int, float, float], ...] = (
    ("normal", 16384, 0.0, 1.0),
    ("normal", 1003, 0.0, 1.0),
    ("normal", 15, 0.0, 1.0),
    ("normal", 1003, 0.3, 2.7),
    ("normal", 7, 0.3, 2.7),
    ("channels-last", 240, 0.3, 2.7),
    ("uniform", 1003, 0.0, 1.0),
)
RANGES = (10, 2**28 - 1, 2**28, 2**30, 2**32, 2**33)


def _drawn(kind: str, size: int, dtype: torch.dtype, scale: tuple[float, float], generator: torch.Generator) -> Any:
    if kind == "uniform":
        return torch.rand(size, dtype=dtype, generator=generator)
    tensor = torch.empty(SHAPE if kind == "channels-last" else (size,), dtype=dtype)
    if kind == "channels-last":
        tensor = tensor.to(memory_format=torch.channels_last)
    return tensor.normal_(*scale, generator=generator).contiguous()


def _digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(bytes(tensor.contiguous().view(torch.uint8).reshape(-1).tolist())).hexdigest()


def cases() -> Iterator[dict[str, Any]]:
    """Draw all calls, each from a generator of its own."""
    for seed in SEEDS:
        for name in ("float32", "float64", "float16", "bfloat16"):
            for kind, size, mean, std in CALLS:
                generator = torch.Generator().manual_seed(seed)
                values = _drawn(kind, size, getattr(torch, name), (mean, std), generator)
                following = torch.rand(1, dtype=torch.float64, generator=generator).item()
                yield {
                    **{"seed": seed, "dtype": name, "kind": kind, "size": size, "mean": mean, "std": std},
                    **{"sha256": _digest(values), "next_double": following.hex()},
                }
        for high in RANGES:
            values = torch.randint(0, high, (100,), generator=torch.Generator().manual_seed(seed))
            yield {"seed": seed, "kind": "integers", "size": 100, "high": high, "sha256": _digest(values)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    lines = ",\n".join(f"   {json.dumps(case)}" for case in cases())
    head = json.dumps({"torch": torch.__version__.split("+")[0], "machine": platform.machine(), "kernel": sys.argv[1]})
    print(f'  {head[:-1]}, "cases": [\n{lines}]}}')
