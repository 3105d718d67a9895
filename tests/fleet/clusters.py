"""Clusters of this machine for tests of fleets: cells that sleep, workers that can be killed."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from parity import __version__
from parity.fleet.task import Job
from parity.runs.folder import Plan, RunFolder, open_run
from parity.suite import options as suite_options
from parity.suite import plan
from parity.suite.isolated import encoded
from parity.suite.options import Options
from parity.suite.question import planned, question

CASE = '[[case]]\nname = "{0}"\ntask = "txt2img"\nprompt = "a ring"\nscheduler = "ddim"\nsteps = 2\n'
STAGED = (sys.executable, str(Path(__file__).with_name("staged.py")))


@dataclasses.dataclass
class Cluster:
    """Workers of this machine, and how to kill one."""

    local: Any
    notes: Path

    @property
    def address(self) -> str:
        return str(self.local.scheduler_address)

    def kill(self, chosen: random.Random) -> bool:
        """Kill the process of a worker; its nanny starts another one, and gives up where it was starting."""
        joined = set(self.local.scheduler.workers)
        alive = [one.process for one in self.local.workers.values() if one.status.name == "running" and one.process]
        pids = [held.process.pid for held in alive if held.worker_address in joined and held.process is not None]
        with contextlib.suppress(ProcessLookupError, IndexError):
            os.kill(chosen.choice(pids), signal.SIGKILL)
            return True
        return False

    def noted(self, name: str) -> Counter[str]:
        path = self.notes / name
        return Counter(path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else [])


@contextlib.contextmanager
def cluster(
    tmp_path: Path, workers: int, seconds: float, *, environment: Mapping[str, str] | None = None, **resources: float
) -> Iterator[Cluster]:
    """Give workers with a process each that may be killed, whose cells take so many seconds.

    They have a cache of their own below ``tmp_path``, unless the environment names one.
    """
    import distributed

    notes = tmp_path / "notes"
    notes.mkdir(exist_ok=True)
    root = str(Path(__file__).parents[2])
    changed = {
        "PARITY_STAGED": str(notes),
        "PARITY_STAGED_SECONDS": str(seconds),
        "PARITY_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]),
        **(environment or {}),
    }
    with _forked():
        local = distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            dashboard_address=None,
            resources=resources,
            silence_logs=60,
            env=changed,
            death_timeout=600,  # after which a nanny gives up; a loaded machine starts eight workers in a minute
        )
        try:
            yield Cluster(local, notes)
        finally:
            local.close(timeout=60)


@contextlib.contextmanager
def _forked() -> Iterator[None]:
    """Have nannies fork workers from a process that has imported all: what is tested is not how long that takes."""
    import multiprocessing

    import dask
    from distributed.utils import get_mp_context

    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        get_mp_context()  # before it names what it would preload
        multiprocessing.get_context("forkserver").set_forkserver_preload(["distributed", "parity.fleet.task"])
        yield


def staged(tmp_path: Path, names: list[str], **others: Any) -> Options:
    """Return the options of a run of cells with these names, of a model of one byte: nobody loads it."""
    (tmp_path / "cases.toml").write_text("".join(map(CASE.format, names)), encoding="utf-8")
    (tmp_path / "model" / "unet").mkdir(parents=True, exist_ok=True)
    (tmp_path / "model" / "unet" / "weights").write_bytes(b".")
    given = {"cases": tmp_path / "cases.toml", "model_version": str(tmp_path / "model"), **others}
    return suite_options.read({"coreml_runtime": "reference", **given})


def job(folder: RunFolder, options: Options, **changes: Any) -> Job:
    made = Job(folder.session.run, __version__, encoded(options), question(options), STAGED)
    return dataclasses.replace(made, **changes)


@contextlib.contextmanager
def run(path: Path, options: Options, *, resume: bool = False) -> Iterator[tuple[RunFolder, list[plan.Cell]]]:
    cells = plan.cells(options)
    with open_run(path, Plan(question(options), planned(cells, options), "fleet"), resume=resume) as folder:
        yield folder, cells
