"""A run on a Dask cluster of this machine: nothing lost, nothing twice, whatever dies meanwhile."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parity import __version__, cli
from parity.errors import UsageError
from parity.fleet import child
from parity.fleet import client as fleets
from parity.fleet.client import Fleet, connected, needs
from parity.fleet.task import Job
from parity.runs import ledger
from parity.runs.folder import Plan, RunFolder, open_run
from parity.suite import options as suite_options
from parity.suite import plan
from parity.suite.isolated import encoded
from parity.suite.options import Options
from parity.suite.question import planned, question

distributed = pytest.importorskip("distributed", reason="the extra fleet is not installed: pip install distributed")

pytestmark = pytest.mark.filterwarnings("ignore")  # distributed's own, about sockets of processes that were killed

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
        """Kill the process of a worker; its nanny starts another one."""
        alive = [nanny.process.process for nanny in self.local.workers.values() if nanny.process is not None]
        pids = [process.pid for process in alive if process is not None and process.pid]
        with contextlib.suppress(ProcessLookupError, IndexError):
            os.kill(chosen.choice(pids), signal.SIGKILL)
            return True
        return False

    def noted(self, name: str) -> Counter[str]:
        path = self.notes / name
        return Counter(path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else [])


@contextlib.contextmanager
def cluster(tmp_path: Path, workers: int, seconds: float, **resources: float) -> Iterator[Cluster]:
    notes = tmp_path / "notes"
    notes.mkdir(exist_ok=True)
    root = str(Path(__file__).parents[2])
    changed = {
        "PARITY_STAGED": str(notes),
        "PARITY_STAGED_SECONDS": str(seconds),
        "PARITY_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]),
    }
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    local = distributed.LocalCluster(
        n_workers=workers, threads_per_worker=1, dashboard_address=None, resources=resources, silence_logs=60
    )
    try:
        yield Cluster(local, notes)
    finally:
        local.close(timeout=20)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two workers that declare ``m2=1`` each, for all tests that leave the scheduler alone."""
    with cluster(tmp_path_factory.mktemp("fleet"), 2, 0.2, m2=1.0) as made:
        yield made


@pytest.fixture
def client(local: Cluster) -> Iterator[Any]:
    for path in local.notes.iterdir():
        path.unlink()
    with connected(local.address) as made:
        yield made


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return staged(tmp_path, [f"cell{number:03d}" for number in range(8)])


def staged(tmp_path: Path, names: list[str], **others: Any) -> Options:
    (tmp_path / "cases.toml").write_text("".join(map(CASE.format, names)), encoding="utf-8")
    given = {"cases": tmp_path / "cases.toml", "model_version": "tiny-sd", "compatibility": "none", **others}
    return suite_options.read({"coreml_runtime": "reference", **given})


def job(folder: RunFolder, options: Options, **changes: Any) -> Job:
    made = Job(folder.session.run, __version__, encoded(options), question(options), STAGED)
    return dataclasses.replace(made, **changes)


@contextlib.contextmanager
def run(path: Path, options: Options, *, resume: bool = False) -> Iterator[tuple[RunFolder, list[plan.Cell]]]:
    cells = plan.cells(options)
    with open_run(path, Plan(question(options), planned(cells, options), "fleet"), resume=resume) as folder:
        yield folder, cells


@pytest.mark.slow  # on a loaded machine it has ended with a cell that is unknown
def test_every_cell_is_asked_once_while_workers_die(
    tmp_path: Path, options: Options, local: Cluster, client: Any
) -> None:
    chosen = random.Random(7)
    killed: list[bool] = []
    with run(tmp_path / "run", options) as (folder, cells):
        fleet = Fleet(client, job(folder, options), options)

        def finished(record: dict[str, Any]) -> None:
            folder.add(record)
            if len(killed) < 2:
                killed.append(local.kill(chosen))

        found = fleet.ask_all(cells, finished)
        fleet.forget()
    assert killed == [True] * 2
    assert [found[cell.id]["verdict"] for cell in cells] == ["pass"] * 8
    assert all(record["worker"] for record in found.values())
    entries = [entry.record["id"] for entry in ledger.read(tmp_path / "run").entries]
    assert sorted(entries) == sorted(cell.id for cell in cells)
    assert local.noted("ended") == Counter(entries)  # computed once each, although workers died
    assert not list(local.notes.parent.glob("cache/fleet/*/*.json"))


def test_a_cell_that_kills_its_process_fails_alone(tmp_path: Path, client: Any) -> None:
    options = staged(tmp_path, ["one", "die", "two"])
    with run(tmp_path / "run", options) as (folder, cells):
        found = Fleet(client, job(folder, options), options).ask_all(cells, folder.add)
    assert [found[cell.id]["verdict"] for cell in cells] == ["pass", "fail", "pass"]
    assert "SIGSEGV" in found[cells[1].id]["explanation"]


def test_other_versions_and_other_questions_are_refused_by_name(
    tmp_path: Path, options: Options, local: Cluster, client: Any
) -> None:
    with run(tmp_path / "run", options) as (folder, cells):
        own = job(folder, options)
        for changes, says in (
            ({"version": "0.0.7"}, rf"worker \d \(tcp://.*\): it has parity {__version__}, the client 0.0.7"),
            ({"question": {**own.question, "tolerances": "x"}}, "question: tolerances .* there, x at the client"),
        ):
            with pytest.raises(UsageError, match=says):
                Fleet(client, dataclasses.replace(own, **changes), options).ask_all(cells, folder.add)
    assert local.noted("begun") == Counter()


def test_a_worker_that_joins_later_with_another_version_gets_no_cell(
    tmp_path: Path, options: Options, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its task says so; nothing of it is written, and where nobody else is there the run ends with its name."""
    monkeypatch.setattr(Fleet, "_refuse", lambda self: None)  # it was not there yet
    with run(tmp_path / "run", options) as (folder, cells):
        fleet = Fleet(client, job(folder, options, version="0.0.7"), options)
        with pytest.raises(UsageError, match=r"refused: worker .* the client 0.0.7.*; no other worker is there"):
            fleet.ask_all(cells, folder.add)
    assert not ledger.read(tmp_path / "run").entries


def test_a_scheduler_that_goes_away_costs_no_finished_cell(tmp_path: Path, options: Options, client: Any) -> None:
    with contextlib.ExitStack() as stack:
        folder, cells = stack.enter_context(run(tmp_path / "run", options))
        leaving = stack.enter_context(cluster(tmp_path, 1, 0.2))
        other = stack.enter_context(connected(leaving.address))

        def finished(record: dict[str, Any]) -> None:
            folder.add(record)
            if record["case"] == cells[1].case.name:
                threading.Thread(target=leaving.local.close, daemon=True).start()

        with pytest.raises(UsageError, match=r"the scheduler went away: \d of 8 cells have an answer; start it again"):
            Fleet(other, job(folder, options), options).ask_all(cells, finished)
    held = len(ledger.read(tmp_path / "run").entries)
    assert 2 <= held < 8
    with run(tmp_path / "run", options, resume=True) as (folder, cells):
        left = [cell for cell in cells if cell.id not in folder.held]
        assert len(left) == 8 - held
        Fleet(client, job(folder, options), options).ask_all(left, folder.add)
    assert len(ledger.read(tmp_path / "run").entries) == 8


def test_cells_go_to_workers_that_declare_what_they_need(tmp_path: Path, client: Any) -> None:
    options = staged(tmp_path, ["one"], backend=("coreml:reference", "coreml:CPU_AND_NE"))
    cells = plan.cells(options)
    wanted = {cell.backend: needs(cell, options) for cell in cells}
    assert wanted == {"coreml:reference": {}, "coreml:CPU_AND_NE": {"CPU_AND_NE": 1.0}}
    assert needs(cells[0], dataclasses.replace(options, device="cuda"), {"m2": 1.0}) == {"cuda": 1.0, "m2": 1.0}
    with run(tmp_path / "run", options) as (folder, _):
        found = Fleet(client, job(folder, options), options, {"m2": 1.0}).ask_all(cells, folder.add)
    assert [found[cell.id]["verdict"] for cell in cells] == ["pass", "unknown"]
    assert "no worker of the fleet declares m2, CPU_AND_NE" in found[cells[1].id]["explanation"]
    assert len(ledger.read(tmp_path / "run").entries) == 1  # the other one is asked when it is resumed


def test_bad_input_is_said_before_anything_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleets, "PATIENCE", 1.0)
    arguments = ["fleet", "run", "--scheduler", "tcp://127.0.0.1:1", "--model-version", "tiny-sd"]
    assert cli.main(arguments) == 2
    assert "needs --run-dir DIR" in capsys.readouterr().err
    assert cli.main([*arguments, "--run-dir", str(tmp_path / "run")]) == 2
    assert "--scheduler tcp://127.0.0.1:1: no scheduler answers" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert cli.main([*arguments, "--run-dir", str(tmp_path / "run"), "--require", "m2=many"]) == 2
    assert "--require m2=many: NAME=COUNT" in capsys.readouterr().err


def test_the_worker_finds_what_another_process_finished(tmp_path: Path) -> None:
    asked: list[str] = []

    def ask(cell: str) -> dict[str, Any]:
        asked.append(cell)
        return {"id": cell}

    assert [child.kept(tmp_path, cell, ask)["id"] for cell in ("a", "b", "a")] == ["a", "b", "a"]
    assert asked == ["a", "b"]
    assert child.spool_of("0" * 32).name == "0" * 20


@pytest.mark.slow
def test_two_hundred_cells_eight_workers_fifty_kills(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = staged(tmp_path, [f"cell{number:03d}" for number in range(200)])
    chosen, finished, killed = random.Random(3), [0], [0]
    with (
        cluster(tmp_path, 8, 1.0) as local,
        connected(local.address) as client,
        run(tmp_path / "run", options) as (folder, cells),
    ):

        def kill() -> None:
            killed[0] += local.kill(chosen)

        def add(record: dict[str, Any]) -> None:
            folder.add(record)
            finished[0] += 1
            if finished[0] % 4 == 0:  # at some moment of the cells that others are asking
                threading.Timer(chosen.uniform(0, 0.5), kill).start()

        fleet = Fleet(client, job(folder, options), options)
        started = time.monotonic()
        found = fleet.ask_all(cells, add)
        seconds = time.monotonic() - started
    entries = Counter(entry.record["id"] for entry in ledger.read(tmp_path / "run").entries)
    again = sum(local.noted("begun").values()) - 200
    with capsys.disabled():
        print(f"\n{len(found)} cells, {killed[0]} kills, {again} executed again, {seconds:.0f} s")
    assert entries == Counter(cell.id for cell in cells)
    assert {record["verdict"] for record in found.values()} == {"pass"}
    assert killed[0] >= 48  # the last ones find nobody
    assert again < 4
