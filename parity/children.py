"""How is a child process started with this very project, ended, and what can be said of its end?"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO


def search_path() -> str:
    """Return a ``PYTHONPATH`` by which a child imports this project as this process does."""
    import parity

    own = str(Path(parity.__file__).resolve().parents[1])
    return os.pathsep.join([own, *filter(None, [os.environ.get("PYTHONPATH")])])


def death(child: subprocess.Popen[bytes]) -> str:
    """Say how a process ended that no longer answers: a signal's name, or its exit code."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(10)
    code = child.returncode
    if code is None:
        return "it no longer answers"
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def said(noise: IO[bytes]) -> list[str]:
    """Return the lines, without empty ones, that a process wrote to a file."""
    noise.seek(0)
    return [line for line in noise.read().decode(errors="replace").splitlines() if line.strip()]


def end(child: subprocess.Popen[bytes], others: Sequence[IO[bytes]] = ()) -> None:
    """Kill a process, wait for its end, and close its pipes and what else belongs to it."""
    if child.poll() is None:
        child.kill()
    child.wait()
    for stream in (child.stdin, child.stdout, *others):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
