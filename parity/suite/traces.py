"""Where does a run keep the traces of its cells, for those who ask later which tensor differed?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from parity.errors import UsageError
from parity.pipelines.trace import Trace
from parity.suite.options import Options
from parity.suite.plan import Cell


def path_of(run: Path, cell: str, role: str) -> Path:
    """Return the file of a cell's trace.

    >>> path_of(Path("night"), "candidate/ring/coreml:reference", "reference").as_posix()
    'night/traces/candidate-ring-coreml-reference.reference.npz'
    """
    return run / "traces" / f"{re.sub(r'[^A-Za-z0-9_.+-]+', '-', cell)}.{role}.npz"


def keep(options: Options, cell: Cell, traces: Mapping[str, Trace | None]) -> None:
    """Write the traces of a cell by role, where the run is asked to.

    Raises
    ------
    UsageError
        They cannot be written.
    """
    if not options.traces or options.run_dir is None:
        return
    for role, trace in traces.items():
        if trace is None:
            continue
        path = path_of(options.run_dir, cell.id, role)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            trace.save(path)
        except OSError as error:
            raise UsageError(f"--traces: {path} cannot be written: {error.strerror}") from None
