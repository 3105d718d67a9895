"""How much sooner does the suite end in two processes than in one? Models are converted before anything is timed.

What is not shared is the start of each process and the first load of the models that both need; the more is asked, the
less that is of the whole.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHIPPED = "the suite as make parity runs it"
NIGHT = "a night: 6 cases x 8 seeds of the default model"
CASES = """
[[case]]
name = "night"
task = "txt2img"
prompt = "a red circle above a blue square"
scheduler = ["pndm", "ddim", "euler", "dpm++", "heun", "unipc"]
seed = [1, 2, 3, 4, 5, 6, 7, 8]
"""
ROUNDS = 3


def run(report: Callable[[object], None]) -> None:
    """Report a line a workload: the best of three rounds in one process and in two, and their ratio."""
    with tempfile.TemporaryDirectory(prefix="parity-workers-") as folder:
        cases = Path(folder) / "cases.toml"
        cases.write_text(CASES, encoding="utf-8")
        for name, words in ((SHIPPED, ()), (NIGHT, ("--cases", str(cases), "--compatibility", "none"))):
            _seconds(2, words)
            rounds = [(_seconds(1, words), _seconds(2, words)) for _ in range(ROUNDS)]
            one, two = (min(times) for times in zip(*rounds, strict=True))
            report(f"{name:<50}{one:>7.1f} s /{two:>6.1f} s = {one / two:4.2f}  (target at least 1.7)")


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
    if done.returncode not in (0, 1):  # 1: a comparison fails, which takes its time as well
        raise SystemExit(f"the suite stopped with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.perf_counter() - begin
