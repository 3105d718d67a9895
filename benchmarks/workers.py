"""How much sooner does the suite end in two processes than in one? Models are converted before anything is timed.

What is not shared is the start of each process, the first load of the models that both need, and the report. On the
shipped cases alone that is a quarter of the time; the more is asked, the less of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORKLOADS = {
    "the suite as make parity runs it": (),
    "7 cases by three backends, of them two of half precision": (
        *("--model-version", "tiny-sd", "--backend", "coreml:reference"),
        *("--backend", "torch:cpu:float16", "--backend", "torch:cpu:bfloat16"),
    ),
}
ROUNDS = 3


def run(report: Callable[[object], None]) -> None:
    """Report a line a workload: the best of three rounds in one process and in two, and their ratio."""
    for name, words in WORKLOADS.items():
        _seconds(2, words)
        rounds = [(_seconds(1, words), _seconds(2, words)) for _ in range(ROUNDS)]
        one, two = (min(times) for times in zip(*rounds, strict=True))
        report(f"{name:<58}{one:>7.1f} s /{two:>6.1f} s = {one / two:4.2f}  (target at least 1.7)")


def _seconds(processes: int, words: tuple[str, ...]) -> float:
    command = [sys.executable, "-m", "pytest", "-p", "no:hypothesispytest", "-q", "-m", "parity"]
    begin = time.perf_counter()
    done = subprocess.run(
        [*command, "-n", str(processes), "parity/suite", *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1):  # 1: a comparison fails, as tiny-sd's do by design
        raise SystemExit(f"the suite stopped with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.perf_counter() - begin
