"""How are candidates measured, each in processes of its own?

The Core ML framework can end a process; what then was to be measured has that as its result, and the rest goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from parity import children
from parity.bench.protocol import Component, Measured, Protocol, median
from parity.errors import FormatError, ParityError, UsageError
from parity.mil.memory import Estimate, estimate
from parity.pipelines.request import TASK_COMPONENTS
from parity.suite import plan
from parity.suite.isolated import encoded
from parity.suite.options import Options
from parity.suite.plan import Cell
from parity.suite.stage import Stage

CHILD: Final = (sys.executable, "-m", "parity.bench.child")
_LINES: Final = 3  # last lines that a process printed, where it failed


def measure(
    options: Options, protocol: Protocol, *, reference: bool = False, progress: Callable[[str], None] = print
) -> Iterator[Measured]:
    """Measure each candidate of a run's options, and the reference if it is wanted.

    Parameters
    ----------
    options : Options
        Model, packages, units, backends and cases: the first one from text to image is drawn.
    protocol : Protocol
        What is drawn, and how often.
    reference : bool
        Whether PyTorch is measured too.
    progress : callable
        Told what is being measured.

    Raises
    ------
    UsageError
        No candidate draws from text.
    ParityError
        The model cannot be opened, or is none of SD 1 or 2.
    """
    cells = _subjects(options)
    stage = Stage(options, progress)
    first = next(iter(cells.values()))
    stage.require(first.case)
    estimates = estimated(stage, options, known=True)  # converts what is not converted yet, so no child does
    with tempfile.TemporaryDirectory() as folder:
        job = {"options": encoded(options), "protocol": asdict(protocol), "trace": str(Path(folder) / "inputs.npz")}
        if reference:
            yield _subject({**job, "cell": first.id, "reference": True}, "PyTorch", {}, progress)
        for numerics, cell in cells.items():
            if cell.unavailable:
                yield Measured(numerics, problem=cell.unavailable)
                continue
            own = {} if cell.backend and not cell.backend.startswith("coreml") else estimates
            yield _subject({**job, "cell": cell.id, "reference": False}, numerics, own, progress)


def _subjects(options: Options) -> dict[str, Cell]:
    """Return a cell of each candidate, by its numerics: the first that draws from text."""
    found: dict[str, Cell] = {}
    for cell in plan.cells(options):
        if cell.kind == "candidate" and not cell.case.released and cell.case.request.task == "txt2img":
            found.setdefault(cell.numerics, cell)
    if not found:
        raise UsageError("no candidate draws from text here: name a --backend, or --cases with a case of task txt2img")
    return found


def estimated(stage: Stage, options: Options, *, known: bool = False) -> dict[str, Estimate]:
    """Return estimates of the Core ML packages by component; empty where no candidate reads any.

    Parameters
    ----------
    stage : Stage
        Whose packages.
    options : Options
        The run.
    known : bool
        Leave out what cannot be read, since that is said where it is loaded.

    Raises
    ------
    ParityError
        A package is damaged.
    """
    if options.backend and not any(name.startswith("coreml") for name in options.backend):
        return {}
    found = {}
    damaged = [part.problem for part in stage.packages.parts.values() if part.damaged]
    if damaged and not known:
        raise FormatError(stage.packages.say(damaged[0]))
    for name, paths in stage.packages.played.items():
        with contextlib.suppress(*[ParityError] if known else []):
            own = [estimate(path) for path in paths]
            for other in own[1:]:
                own[0] = own[0].beside(other)
            found[name] = own[0]
    return found


def _subject(
    job: dict[str, Any], numerics: str, estimates: dict[str, Estimate], progress: Callable[[str], None]
) -> Measured:
    names = TASK_COMPONENTS["txt2img"]
    progress(f"{numerics}: pictures")
    try:
        drawn = _answer({**job, "component": "", "names": names})
        components = []
        for name in names:
            progress(f"{numerics}: {name}")
            components.append(_named(name, _answer({**job, "component": name}), estimates.get(name)))
    except ParityError as error:
        return Measured(numerics, problem=str(error))
    return Measured(drawn["numerics"], tuple(components), tuple(drawn["pictures"]), drawn["step"], drawn["memory"])


def _named(name: str, found: dict[str, Any], own: Estimate | None) -> Component:
    calls = tuple(found["calls"])
    sizes = (own.stored, own.alive) if own else (0, 0)
    return Component(name, found["first"], found["again"], median(calls), calls, found["memory"], *sizes)


def _answer(job: dict[str, Any], command: Sequence[str] = CHILD) -> dict[str, Any]:
    """Have a process do a job.

    Raises
    ------
    ParityError
        It ended without an answer; with how, and its last lines.
    """
    environment = {**os.environ, "PYTHONPATH": children.search_path()}
    with tempfile.TemporaryFile() as noise:
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=noise, env=environment)
        try:
            out, _ = child.communicate(json.dumps(job).encode())
        finally:
            children.end(child)
        if child.returncode == 0 and out.strip():
            return dict(json.loads(out))
        last = "; ".join(children.said(noise)[-_LINES:])
    raise ParityError(f"its process ended ({children.death(child)}): {last or 'it printed nothing'}")
