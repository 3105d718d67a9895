"""How long does somebody wait who works on this project? Wall and processor seconds of its checks, in two processes.

The first run of the suite begins with an empty cache: it converts every model. A loaded machine shows in the wall
seconds; processor seconds are of all processes together.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
SUITE = ("-p", "no:hypothesispytest", "-m", "parity", "-n", "2", "-q", "parity/suite")
TESTS = ("-n", "2", "--dist", "worksteal", "-q", "tests")


def run(report: Callable[[object], None]) -> None:
    """Report a table, a line a check."""
    report(f"{'':<46}{'wall':>9}{'processor':>11}")
    with tempfile.TemporaryDirectory(prefix="parity-checks-") as cache:
        checks: tuple[tuple[str, tuple[str, ...], int | None], ...] = (
            ("pytest -m parity --collect-only", ("pytest", "-m", "parity", "--collect-only", "-q"), 3),
            ("the suite, everything converted anew", ("pytest", *SUITE), 75),
            ("the suite again", ("pytest", *SUITE), 40),
            ("the tests of make test", ("pytest", *TESTS), 300),
            ("the tests of make long", ("pytest", *TESTS, "-m", "long and not slow"), None),
        )
        for name, words, target in checks:
            wall, processor, code = _timed([sys.executable, "-m", *words], cache)
            ended = "" if code == 0 else f", exit code {code}"
            wanted = f"  (wall target below {target} s{ended})" if target else ended
            report(f"{name:<46}{wall:>7.1f} s{processor:>9.1f} s{wanted}")


def _timed(command: list[str], cache: str) -> tuple[float, float, int]:
    variables = {**os.environ, "PARITY_CACHE": cache, "OMP_NUM_THREADS": "1"}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, check=False)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - start
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, spent, done.returncode
