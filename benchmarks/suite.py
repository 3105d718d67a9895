"""What the suite costs: pictures against diffusers and against their bare networks; time until something answers."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.timing import compare


def run(report: Callable[[object], None]) -> None:
    """Report the ratio of one text-to-image run, and start-up times."""
    for name, command, target in (
        ("import parity", [sys.executable, "-c", "import parity"], 0.3),
        ("parity --help", [sys.executable, "-m", "parity", "--help"], 0.3),
        ("parity run --help", [sys.executable, "-m", "parity", "run", "--help"], None),
    ):
        report(f"{name:<40}{_start(command):.3f} s" + (f"  (target below {target} s)" if target else ""))
    report(compare("tiny txt2img: reference runtime / diffusers", *_pictures(), repeats=10))
    for name in ("PyTorch", "reference runtime"):
        report(compare(f"shapes-sd, a recorded run / its calls alone, {name}", *_run(name), repeats=7, target=1.05))


def _start(command: list[str]) -> float:
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - begin)
    return sorted(times)[2]


def _pictures() -> tuple[Callable[[], Any], Callable[[], Any]]:
    import torch
    from diffusers import StableDiffusionPipeline

    from parity import convert, streams
    from parity.backends.coreml import CoreMLBackend
    from parity.models.model import Model
    from parity.pipelines import diffusers as tasks
    from parity.pipelines.request import TASK_COMPONENTS, Request
    from parity.pipelines.schedules import diffusers as schedulers

    model = Model("tiny-sd")
    request = Request("txt2img", "a photo of a red circle", "blurry", scheduler="ddim", steps=10)
    backend = CoreMLBackend(convert.cached(model.location), runtime="reference")
    pipeline = StableDiffusionPipeline.from_pretrained(model.location)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = schedulers.make(request.scheduler, model.scheduler_config)

    def ours() -> np.ndarray:
        stream = streams.open("torch-cpu", seed=93)
        components = backend.components(TASK_COMPONENTS["txt2img"])
        return tasks.run(request, model, components, stream.normal, observe=lambda point, value: None)

    def theirs() -> Any:
        return pipeline(
            request.prompt,
            negative_prompt=request.negative_prompt,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance_scale,
            generator=torch.Generator().manual_seed(93),
        ).images

    return ours, theirs


def _run(name: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return a shipped case as the suite runs it, every value recorded, and the same calls of its networks alone."""
    from parity.suite import plan
    from parity.suite.options import Options
    from parity.suite.stage import Stage

    options = Options(compatibility="none", cell=("candidate/txt2img-ddim/coreml:reference",))
    (cell,) = plan.cells(options)
    stage = Stage(options)
    backend = stage.reference if name == "PyTorch" else stage.candidate(cell)
    trace, _ = stage.run(backend, cell.case)
    networks = backend.components(("text_encoder", "unet", "vae_decoder"))
    calls = [(network, inputs) for part, network in networks.items() for inputs in trace.calls(part).values()]

    def alone() -> None:
        for network, inputs in calls:
            network(inputs)

    return lambda: stage.run(backend, cell.case), alone
