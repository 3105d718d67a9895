"""The process that measures one thing for :mod:`parity.bench.measure`: a job as JSON on standard input, an answer as
JSON on standard output.

A job is a component on inputs that a run recorded, or whole pictures, which record those inputs.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from parity import quiet
from parity.bench.protocol import Protocol, median
from parity.networks.backend import Backend
from parity.pipelines.trace import Trace
from parity.suite import options as suite_options
from parity.suite import plan
from parity.suite.plan import Cell
from parity.suite.stage import Stage


def main() -> int:
    """Answer one job."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    job = json.load(sys.stdin)
    with quiet.libraries():
        answer = (_component if job["component"] else _pictures)(job)
    answers.write(json.dumps(answer) + "\n")
    answers.close()
    return 0


def peak() -> int:
    """Return this process's own peak of resident memory in bytes; Linux's ``ru_maxrss`` may be that of its parent."""
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s*(\d+)", status.read_text(encoding="ascii"))):
        return int(found[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def begin_peak() -> int:
    """Let the peak begin anew where the system can do that (Linux), and return it in bytes.

    What importing libraries took for a moment would otherwise hide as much of what is measured.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return peak()


def _open(job: dict[str, Any]) -> tuple[Stage, Cell, Backend]:
    """Open a candidate without loading any of its networks."""
    options = suite_options.read(job["options"])
    stage = Stage(options)
    protocol = Protocol(**job["protocol"])
    cell = next(cell for cell in plan.cells(options) if cell.id == job["cell"])
    request = replace(
        cell.case.request,
        steps=protocol.steps,
        guidance_scale=protocol.guidance_scale,
        scheduler=protocol.scheduler,
    )
    case = replace(cell.case, request=request)
    backend = stage.reference if job["reference"] else stage.candidate(cell)
    _import_libraries(stage, backend)
    return stage, replace(cell, case=case), case.who.networks(backend)


def _import_libraries(stage: Stage, backend: Backend) -> None:
    """Import what loading would import: that is no part of a load."""
    import diffusers  # noqa: F401
    import torch  # noqa: F401
    import transformers  # noqa: F401

    stage.model.check_tasks()
    if backend.name == "coreml":
        from parity.coreml import shim

        quiet.coremltools()
        if stage.options.coreml_runtime != "native" and sys.platform != "darwin":
            shim.install()
            from parity.mil import Session  # noqa: F401


def _pictures(job: dict[str, Any]) -> dict[str, Any]:
    stage, cell, backend = _open(job)
    case = cell.case
    pictures, steps = [], []
    for turn in range(1 + job["protocol"]["repeats"]):
        trace = Trace()
        times: list[float] = []

        def observe(point: str, value: np.ndarray, trace: Trace = trace, times: list[float] = times) -> None:
            trace(point, value)
            if point.startswith("latents/"):
                times.append(time.perf_counter())

        if turn == 0:
            for name in job["names"]:
                backend.component(name)
        start = time.perf_counter()
        case.who.draw(case.request, stage.model, backend, seed=case.seed, rng=case.rng, observe=observe)
        if turn:
            pictures.append(time.perf_counter() - start)
            steps += np.diff(times).tolist()
    inputs = {
        f"{name}/{label}/{tensor}": value
        for name in job["names"]
        for label, call in list(trace.calls(name).items())[:1]
        for tensor, value in call.items()
    }
    Trace(inputs).save(Path(job["trace"]))
    return {"pictures": pictures, "step": median(steps), "memory": peak(), "numerics": backend.numerics}


def _component(job: dict[str, Any]) -> dict[str, Any]:
    name = job["component"]
    ((_, inputs),) = _calls(Trace.load(Path(job["trace"])), name)
    _, _, backend = _open(job)
    before = begin_peak()
    start = time.perf_counter()
    component = backend.component(name)
    first = time.perf_counter() - start
    calls = []
    for _ in range(1 + job["protocol"]["repeats"]):
        start = time.perf_counter()
        component(inputs)
        calls.append(time.perf_counter() - start)
    memory = peak() - before  # before another load, which would count twice
    _, _, other = _open(job)
    start = time.perf_counter()
    other.component(name)
    again = time.perf_counter() - start
    return {"first": first, "again": again, "calls": calls[1:], "memory": memory}


def _calls(trace: Trace, name: str) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    yield from trace.calls(name).items()


if __name__ == "__main__":
    raise SystemExit(main())
