"""Peak memory of a whole run at full size: Stable Diffusion 1.5's architecture, random weights, two steps of 512 x 512.

``python -m benchmarks memory`` writes the checkpoint and converts it into a temporary folder (9 GiB of disk, minutes),
then asks one case, PyTorch against the reference runtime and half precision by itself, once with ``--reduce-memory``
and once without. Each run is a process of its own. What it draws is noise: only seconds and memory are measured.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

_LIMIT: Final = 6  # GiB, with --reduce-memory
_NEEDED: Final = 14 << 30  # bytes of free disk
_CASE: Final = (
    '[[case]]\nname = "full"\ntask = "txt2img"\nscheduler = "ddim"\nsteps = 2\nseed = 93\nprompt = "a red circle"\n'
)
_SIZES: Final[dict[str, dict[str, Any]]] = {
    "text_encoder": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "projection_dim": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu",
    },
    "unet": {"sample_size": 64, "cross_attention_dim": 768},  # all else as diffusers has it, which is SD 1's
    "vae": {
        "sample_size": 512,
        "latent_channels": 4,
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "scaling_factor": 0.18215,
    },
}
_WEIGHTS: Final = [
    {"match": r"norm\d*(_\w+)?\.weight$|group_norm\.weight$", "mean": 1.0, "std": 0.1},
    {"match": r"unet\.conv_out\.weight$", "gain": 0.25},
    {"match": r"embedding\.weight$", "std": 0.5},
    {"match": r"\.bias$", "std": 0.05},
    {"match": "", "gain": 1.0},
]


def run(report: Callable[[str], None]) -> None:
    """Measure both runs, or say that the disk is too small."""
    with tempfile.TemporaryDirectory(prefix="parity-bench-") as scratch:
        folder = Path(scratch)
        space = os.statvfs(folder)
        if space.f_bavail * space.f_frsize < _NEEDED:
            report(f"not measured: {folder.parent} has less than {_NEEDED >> 30} GiB of free space")
            return
        _child("benchmarks.memory", str(folder / "model"))
        packages = ["--components", "text_encoder,unet,vae_decoder", "--no-check"]
        _child("parity", "convert", str(folder / "model"), "-o", str(folder / "packages"), *packages)
        (folder / "cases.toml").write_text(_CASE)
        own = ["--model-version", str(folder / "model"), "--models", str(folder / "packages")]
        asked = ["run", *own, "--cases", str(folder / "cases.toml"), "--backend", "coreml:reference"]
        for options, limit in ((["--reduce-memory"], f"  (limit {_LIMIT} GiB)"), ([], "")):
            start = time.perf_counter()
            kept = folder / f"cache{len(options)}"  # half precision is computed in both
            peak = _child("parity", *asked, *options, "-o", str(folder / "report"), cache=kept)
            named = f"SD 1.5, text to image, two steps {' '.join(options)}"
            report(f"{named:<58}{time.perf_counter() - start:6.0f} s {peak:6.2f} GiB peak{limit}")


def _child(module: str, *arguments: str, cache: Path | None = None) -> float:
    """Run a module in a process of its own; return its peak of resident memory in GiB."""
    environment = {**os.environ, **({"PARITY_CACHE": str(cache)} if cache else {})}
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in ((0, 1) if "run" in arguments else (0,)):  # 1 is a verdict on random weights
        raise RuntimeError(f"python -m {module} {arguments[0]} ended with {process.returncode}")
    return used.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30


def _write(folder: Path) -> None:
    from parity.recipes.build import load, write

    small = load("tiny-sd")
    components = dict(small.table["components"])
    for name, config in _SIZES.items():
        components[name] = {**components[name], "config": config}
    write(replace(small, table={**small.table, "components": components, "weights": _WEIGHTS}), folder)


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
