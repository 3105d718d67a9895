"""The reference runtime against PyTorch: a tiny UNet for the cost of interpreting, the full-size one for the rest.

Weights are random, configurations public, packages converted once and cached. Both sides compute the same step with the
same weights and threads, alternating. Peak memory is that of a fresh process each. ``torch.compile`` needs a C++
compiler and minutes; where it does not get there, its lines say so.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import compare, peak
from parity import cache, mil
from parity.mil.allocator import keeping_memory

_BASE: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 2,
    "sample_size": 64,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "sd15": _BASE,  # the published configuration of Stable Diffusion 1.5
    "tiny": _BASE
    | {
        "sample_size": 8,
        "layers_per_block": 1,
        "cross_attention_dim": 32,
        "norm_num_groups": 8,
        "block_out_channels": (32, 64),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    },
}
_PATIENCE = 900  # seconds for torch.compile, its measurement included
_NEEDED = 12 << 30  # bytes of free memory for the full-size measurements and its conversion


def _network(name: str) -> Any:
    import torch
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(**CONFIGURATIONS[name]).eval()


def _inputs(name: str) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    configuration = CONFIGURATIONS[name]
    size, width = configuration["sample_size"], configuration["cross_attention_dim"]
    return {
        "sample": random.standard_normal((2, 4, size, size)).astype(np.float32),
        "timestep": np.full(2, 500, np.float32),
        "encoder_hidden_states": random.standard_normal((2, 77, width)).astype(np.float32),
    }


def _package(name: str, report: Callable[[str], None]) -> Path:
    target = cache.folder("benchmarks", cache.key(configuration=CONFIGURATIONS[name])) / f"{name}.mlpackage"
    if not target.exists():
        report(f"converting the {name} UNet once …")
        call = [sys.executable, "-W", "ignore", "-m", __name__, "convert", name, str(target)]
        subprocess.run(call, check=True, capture_output=True)  # a process of its own gives its memory back
    return target


def _convert(name: str, target: Path) -> None:
    import coremltools as ct
    import torch

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unet = _network(name)

        def forward(self, sample: Any, timestep: Any, encoder_hidden_states: Any) -> Any:
            return self.unet(sample, timestep, encoder_hidden_states, return_dict=False)[0]

    inputs = _inputs(name)
    with torch.no_grad():
        traced = torch.jit.trace(Wrapped(), tuple(map(torch.from_numpy, inputs.values())))
    model = ct.convert(
        traced,
        inputs=[ct.TensorType(name=key, shape=value.shape, dtype=np.float32) for key, value in inputs.items()],
        outputs=[ct.TensorType(name="noise_pred", dtype=np.float32)],
        minimum_deployment_target=ct.target.iOS16,
        skip_model_load=True,
    )
    made = target.with_name(f"making-{target.name}")
    target.parent.mkdir(parents=True, exist_ok=True)
    model.save(str(made))
    made.rename(target)


def _torch_step(name: str, *, compiled: bool = False) -> Callable[[], Any]:
    import torch

    network = _network(name)
    arguments = [torch.from_numpy(value) for value in _inputs(name).values()]
    run = torch.compile(network) if compiled else network

    def step() -> Any:
        with torch.no_grad():
            return run(*arguments, return_dict=False)[0]

    return step


def _session_step(package: Path, name: str, profile: str) -> Callable[[], Any]:
    session = mil.Session(mil.load(package), profile)
    inputs = _inputs(name)
    return lambda: session.predict(inputs)["noise_pred"]


def _overhead(package: Path, profile: str, repeats: int = 50) -> tuple[float, int]:
    """Seconds per operation that a run takes beyond calling the operators' functions in a row, and their number."""
    session = mil.Session(mil.load(package), profile)
    inputs = _inputs("tiny")
    session.predict(inputs)
    plan = next(iter(session._plans.values()))
    calls: list[tuple[Any, Any, dict[str, Any]]] = []
    originals = [step.function for step in plan.steps]

    def recording(function: Any) -> Any:
        def call(context: Any, **kwargs: Any) -> Any:
            calls.append((function, context, dict(kwargs)))
            return function(context, **kwargs)

        return call

    for step in plan.steps:
        step.function = recording(step.function)
    session.predict(inputs)
    for step, function in zip(plan.steps, originals, strict=True):
        step.function = function
    import torch

    whole, bare = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        session.predict(inputs)
        whole.append(time.perf_counter() - start)
        with torch.inference_mode(), keeping_memory():
            start = time.perf_counter()
            for function, context, kwargs in calls:
                function(context, **kwargs)
            bare.append(time.perf_counter() - start)
    return (min(whole) - min(bare)) / len(calls), len(calls)  # minima: differences of medians drown in noise


def _peak(*arguments: str) -> float:
    """Peak memory in GiB of a fresh process that takes two steps."""
    call = [sys.executable, "-W", "ignore", "-m", __name__, "memory", *arguments]
    return float(json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout.splitlines()[-1]))


def _memory(name: str, what: str, package: str) -> None:
    step = _torch_step(name) if what == "torch" else _session_step(Path(package), name, what)
    step(), step()
    print(json.dumps(peak()))


def _size(name: str, report: Callable[[str], None], *, repeats: int, compiled: bool) -> None:
    package = _package(name, report)
    start = time.perf_counter()
    mil.Session(mil.load(package))
    report(f"{name} UNet: load and prepare {time.perf_counter() - start:.2f} s (target ≤ 2 for sd15)")
    eager = _torch_step(name)
    for profile, target in (("float32", 0.9), ("declared", 1.1)):
        step = _session_step(package, name, profile)
        aim = target if name == "sd15" else None
        report(str(compare(f"{name} UNet step, {profile} / eager", step, eager, repeats=repeats, target=aim)))
        del step
    if compiled and shutil.which("c++"):
        _against_compiled(name, package, report, repeats=repeats)
    elif compiled:
        report(f"{name} UNet: torch.compile not measured: it needs a C++ compiler")


def _against_compiled(name: str, package: Path, report: Callable[[str], None], *, repeats: int) -> None:
    """Compare with ``torch.compile`` in a process of its own, which may compile for as long as the limit says."""
    call = [sys.executable, "-W", "ignore", "-m", __name__, "compiled", name, str(package), str(repeats)]
    try:
        result = subprocess.run(call, check=True, capture_output=True, text=True, timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        report(f"{name} UNet: torch.compile not measured: it did not finish within {_PATIENCE // 60} minutes")
    else:
        report(result.stdout.splitlines()[-1])


def _compiled(name: str, package: str, repeats: str) -> None:
    step = _session_step(Path(package), name, "declared")
    fast = _torch_step(name, compiled=True)
    start = time.perf_counter()
    fast()
    seconds = time.perf_counter() - start
    ratio = compare(f"{name} UNet step, declared / torch.compile", step, fast, repeats=int(repeats))
    print(f"{ratio}  (its first call took {seconds:.0f} s)")


def _split_attention(report: Callable[[str], None]) -> None:
    """Attention as SPLIT_EINSUM writes it, at the size of SD 1.5's first level: fused against one by one."""
    import torch

    from parity.convert import workarounds
    from parity.convert.attention import split_einsum

    ct = workarounds.coremltools()

    class Heads(torch.nn.Module):
        def forward(self, q: Any, k: Any, v: Any) -> Any:
            return split_einsum(q, k, v, 8)

    example = torch.zeros(2, 320, 1, 4096)
    inputs = [ct.TensorType(name=name, shape=example.shape) for name in "qkv"]
    with workarounds.tracing(), workarounds.converting():
        traced = torch.jit.trace(Heads().eval(), (example,) * 3)
        model = ct.convert(
            traced,
            inputs=inputs,
            outputs=[ct.TensorType(name="attended")],
            minimum_deployment_target=ct.target.iOS16,
            skip_model_load=True,
        )
    random = np.random.default_rng(0)
    given = {name: random.standard_normal(example.shape).astype(np.float32) for name in "qkv"}
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/heads.mlpackage")
        for profile in ("float32", "declared"):
            steps = [
                partial(mil.Session(mil.load(f"{folder}/heads.mlpackage"), profile, fuse=fuse).predict, given)
                for fuse in (True, False)
            ]
            report(str(compare(f"split-einsum attention, {profile}, fused / one by one", *steps, repeats=5)))


def run(report: Callable[[str], None]) -> None:
    """Measure and report; the full size only where memory allows."""
    warnings.simplefilter("ignore")
    _size("tiny", report, repeats=20, compiled=True)
    for profile in ("float32", "declared"):
        seconds, count = _overhead(_package("tiny", report), profile)
        report(f"tiny UNet, {profile}: {seconds * 1e6:.1f} µs beyond each of {count} operators (target ≤ 15)")
    _split_attention(report)
    free = _available()
    if free < _NEEDED:
        report(f"full size skipped: {free / 2**30:.1f} GiB of memory are free, {_NEEDED >> 30} are needed")
        return
    _size("sd15", report, repeats=3, compiled=True)
    package = str(_package("sd15", report))
    peaks = {what: _peak("sd15", what, package) for what in ("torch", "float32", "declared")}
    for what, most in peaks.items():
        report(f"sd15 UNet, peak memory of a process, {what}: {most:.2f} GiB")


def _available() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 1 << 40  # no such file: not Linux; the user asked for the benchmark
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))


if __name__ == "__main__":
    if sys.argv[1] == "convert":
        _convert(sys.argv[2], Path(sys.argv[3]))
    elif sys.argv[1] == "compiled":
        _compiled(*sys.argv[2:5])
    else:
        _memory(*sys.argv[2:5])
