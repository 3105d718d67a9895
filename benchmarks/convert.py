"""Time and peak memory of converting full-size UNets with random weights, each in a process of its own.

``python -m benchmarks convert`` converts the UNet of Stable Diffusion 1.5 (860 million parameters; limits 8 GiB and 2
minutes on 2 cores). ``PARITY_BENCH_SDXL=1`` adds SDXL's (2.6 billion; limit 20 GiB), which needs about 31 GiB of disk.
The model's weights are written once into the temporary folder; writing them is not measured.

Two peaks are reported: all resident memory, and the anonymous part of it, which only this process can give back (Linux;
pages of mapped files, which the system can take at any time, are not in it).
"""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks import timing

_SD15: Final[dict[str, Any]] = {"sample_size": 64, "cross_attention_dim": 768}
_SDXL: Final[dict[str, Any]] = {
    "sample_size": 128,
    "cross_attention_dim": 2048,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


def run(report: Callable[[str], None]) -> None:
    """Convert and report seconds and GiB."""
    models = {"SD 1.5": (_SD15, "8 GiB, 120 s")}
    if os.environ.get("PARITY_BENCH_SDXL"):
        models["SDXL"] = (_SDXL, "20 GiB")
    for name, (config, limit) in models.items():
        with tempfile.TemporaryDirectory(prefix="parity-bench-") as scratch:
            folder = Path(scratch) / "model"
            _child("write", folder, config)
            seconds, cpu, peak, anonymous = _child("convert", folder, config)
            label = f"{name} UNet, float16, SPLIT_EINSUM"
            report(
                f"{label:<40}{seconds:6.1f} s ({cpu:.0f} s of CPU) {peak:6.2f} GiB peak, "
                f"{anonymous:.2f} of it at once anonymous  (limit {limit})"
            )


def _child(task: str, folder: Path, config: dict[str, Any]) -> list[float]:
    command = [sys.executable, "-m", "benchmarks.convert", task, str(folder), json.dumps(config)]
    out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    return [float(value) for value in out[-4:]]


class _Anonymous(threading.Thread):
    """Peak of this process's anonymous memory in GiB, looked at every 20 milliseconds; nan away from Linux."""

    peak = math.nan

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.status = Path("/proc/self/status")

    def run(self) -> None:
        while self.status.exists():
            (line,) = [row for row in self.status.read_text().splitlines() if row.startswith("RssAnon")]
            self.peak = max(int(line.split()[1]) / 2**20, 0.0 if math.isnan(self.peak) else self.peak)
            time.sleep(0.02)


def _write(folder: Path, config: dict[str, Any]) -> None:
    import diffusers
    import torch

    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(**config)
    unet = unet.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(93)
    for name, parameter in unet.named_parameters():
        fan_in = max(parameter[0].numel(), 1) if parameter.ndim > 1 else 1
        values = torch.empty(parameter.shape, dtype=torch.float32)
        if parameter.ndim > 1:
            values.uniform_(-((3 / fan_in) ** 0.5), (3 / fan_in) ** 0.5, generator=generator)
        else:
            values.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        parameter.data = values.half()  # 16 bits, as weights are published
    unet.save_pretrained(folder / "unet")
    diffusers.PNDMScheduler().save_pretrained(folder / "scheduler")
    xl = "addition_embed_type" in config
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "scheduler": ["diffusers", "PNDMScheduler"],
    }
    texts = {"text_encoder": (768, 768), "text_encoder_2": (1280, 1280)} if xl else {}
    for part, (hidden, projection) in texts.items():
        (folder / part).mkdir()
        text = {"hidden_size": hidden, "projection_dim": projection, "max_position_embeddings": 77}
        (folder / part / "config.json").write_text(json.dumps(text))
        index[part] = ["transformers", "CLIPTextModel"]
    (folder / "model_index.json").write_text(json.dumps(index))


def _main(task: str, folder: Path, config: dict[str, Any]) -> None:
    start, anonymous = time.perf_counter(), _Anonymous()
    anonymous.start()
    if task == "write":
        _write(folder, config)
    else:
        from parity import convert

        convert.convert(folder, folder.parent / "out", components=["unet"], check=bool(os.environ.get("PARITY_CHECK")))
    seconds, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    print(seconds, used.ru_utime + used.ru_stime, timing.peak(), anonymous.peak)


if __name__ == "__main__":
    _main(
        sys.argv[1],
        Path(sys.argv[2]),
        {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(sys.argv[3]).items()},
    )
