"""A run on a Dask cluster of this machine: nothing lost, nothing twice, whatever dies meanwhile."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parity import __version__, cli
from parity.errors import UsageError
from parity.fleet import client as fleets
from parity.fleet import workers
from parity.fleet.client import Fleet, connected
from parity.fleet.workers import needs
from parity.runs import ledger
from parity.suite import plan
from parity.suite.options import Options
from tests.commands.printed import checked
from tests.fleet.clusters import CASE, Cluster, cluster, job, run, staged

pytest.importorskip("distributed", reason="the extra fleet is not installed: pip install distributed")

pytestmark = pytest.mark.filterwarnings("ignore")  # distributed's own, about sockets of processes that were killed


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


def test_every_cell_is_asked_once_while_workers_die(
    tmp_path: Path, options: Options, local: Cluster, client: Any
) -> None:
    chosen = random.Random(7)
    killed: list[bool] = []
    watched: list[str] = []
    with run(tmp_path / "run", options) as (folder, cells):
        own = job(folder, options)
        fleet = Fleet(client, own, options, watch=lambda seen: watched.extend(one.asks(own.run) for one in seen))

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
    assert set(watched) - {""} <= set(entries)
    assert set(watched) - {""}
    assert not list(local.notes.parent.glob("cache/fleet/*/*.json"))


@pytest.mark.long
def test_a_real_cell_is_asked_in_a_worker(tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the command does it, with models: the only cell here that is no stand-in's."""
    (tmp_path / "cases.toml").write_text(CASE.format("real"), encoding="utf-8")
    with cluster(tmp_path, 1, 0, environment={"PARITY_CACHE": os.environ["PARITY_CACHE"]}) as own:
        words = ["--model-version", "tiny-sd", "--compatibility", "none", "--backend", "torch:cpu"]
        words += ["--cases", str(tmp_path / "cases.toml"), "--run-dir", str(tmp_path / "run"), "--json"]
        code = cli.main(["fleet", "run", "--scheduler", own.address, *words])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    (record,) = checked(captured.out, "run")["records"]
    assert record["verdict"] == "pass"
    (entry,) = ledger.read(tmp_path / "run").entries
    assert entry.record["verdict"] == "pass"
    assert entry.record["worker"].startswith("0 (")
    assert entry.record["pictures"]


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
        monkeypatch.setattr(workers, "JOINING", 0.5)
        with pytest.raises(UsageError, match=r"refused: worker .* the client 0.0.7.*; no other worker is there"):
            fleet.ask_all(cells, folder.add)
    assert not ledger.read(tmp_path / "run").entries


def test_a_scheduler_that_goes_away_costs_no_finished_cell(
    tmp_path: Path, options: Options, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.ExitStack() as stack:
        folder, cells = stack.enter_context(run(tmp_path / "run", options))
        leaving = stack.enter_context(cluster(tmp_path, 1, 0.2))
        other = stack.enter_context(connected(leaving.address))

        monkeypatch.setattr(fleets, "PATIENCE", 2.0)

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


def test_a_connection_that_dask_gives_up_is_made_anew(
    tmp_path: Path, options: Options, local: Cluster, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its client does on a loaded machine: what it read first was not what it asserted."""

    async def broken() -> None:
        raise AssertionError

    monkeypatch.setattr(fleets, "PATIENCE", 5.0)
    monkeypatch.setattr(client, "_reconnect", broken)
    said: list[str] = []
    with run(tmp_path / "run", options) as (folder, cells):
        fleet = Fleet(client, job(folder, options), options, say=said.append)

        def finished(record: dict[str, Any]) -> None:
            folder.add(record)
            if record["id"] == cells[1].id:
                client.loop.add_callback(client.scheduler_comm.comm.abort)

        with contextlib.closing(fleet):
            found = fleet.ask_all(cells, finished)
    assert [found[cell.id]["verdict"] for cell in cells] == ["pass"] * 8
    assert len(ledger.read(tmp_path / "run").entries) == 8
    assert said.count("the connection to the scheduler broke, and was made anew") == 1
    assert local.noted("ended") == Counter(cell.id for cell in cells)


def test_cells_go_to_workers_that_declare_what_they_need(
    tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "JOINING", 1.0)
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
    monkeypatch.setattr(fleets, "PATIENCE", 0.3)
    arguments = ["fleet", "run", "--scheduler", "tcp://127.0.0.1:1", "--model-version", "tiny-sd"]
    assert cli.main(arguments) == 2
    assert "needs --run-dir DIR" in capsys.readouterr().err
    assert cli.main([*arguments, "--run-dir", str(tmp_path / "run")]) == 2
    assert "--scheduler tcp://127.0.0.1:1: no scheduler answers" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert cli.main([*arguments, "--run-dir", str(tmp_path / "run"), "--require", "m2=many"]) == 2
    assert "--require m2=many: NAME=COUNT" in capsys.readouterr().err
