"""What became of a cell: a lost record is no answer, who is killed did not crash, nothing goes on for ever."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from parity.fleet import spool, workers
from parity.fleet.fetching import Fetching, brought
from parity.fleet.task import PatientRun
from parity.fleet.workers import Roll, Worker
from parity.suite import plan
from parity.suite.isolated import encoded
from tests.fleet.clusters import STAGED, staged


class Future:
    """What Dask's future says of itself, and of its result."""

    def __init__(self, status: str, result: Any = None, later: str = "") -> None:
        self.status, self._result, self._later = status, result, later or status

    def result(self, timeout: float) -> Any:
        self.status = self._later
        if isinstance(self._result, BaseException):
            raise self._result
        return self._result

    def exception(self, timeout: float) -> Any:
        return self._result


def test_a_record_whose_worker_died_is_lost_and_not_an_answer() -> None:
    """Dask runs its task again in its own time; on a loaded machine that was taken for the task's failure."""
    assert brought(Future("finished", {"id": "a"})) == {"id": "a"}
    assert brought(Future("finished", TimeoutError(), later="pending")) is None
    assert brought(Future("finished", OSError("closed"))) is None
    assert brought(Future("cancelled", RuntimeError("the scheduler went away"))) is None
    for future in (Future("error", KeyError("x")), Future("finished", KeyError("x"), later="error")):
        assert isinstance(brought(future), KeyError)


def test_one_record_that_is_lost_does_not_hold_up_the_others() -> None:
    class Slow(Future):
        def result(self, timeout: float) -> Any:
            time.sleep(0.3)
            raise TimeoutError

    told: list[Any] = []
    fetching = Fetching()
    fetching.fetch(Slow("finished"), told.append)
    fetching.fetch(Future("finished", {"id": "a"}), told.append)
    end = time.monotonic() + 5
    while len(told) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    assert told == [{"id": "a"}, None]
    fetching.close()
    fetching.fetch(Future("finished", {}), told.append)  # nothing more, and no error in Dask's thread
    assert len(told) == 2


def test_the_spool_gives_what_another_process_finished_and_counts_those_that_ended(tmp_path: Path) -> None:
    asked: list[str] = []

    def ask(cell: str) -> dict[str, Any]:
        asked.append(cell)
        if cell == "deadly":
            raise SystemExit
        return {"id": cell}

    def given_up(cell: str) -> dict[str, Any]:
        return {"given up": cell}

    assert [spool.kept(tmp_path, cell, ask, given_up)["id"] for cell in ("a", "b", "a")] == ["a", "b", "a"]
    assert asked == ["a", "b"]
    for _ in range(spool.TOGETHER):
        with pytest.raises(SystemExit):
            spool.kept(tmp_path, "deadly", ask, given_up)
    assert spool.kept(tmp_path, "deadly", ask, given_up) == {"given up": "deadly"}
    assert asked[2:] == ["deadly"] * spool.TOGETHER
    assert spool.kept(tmp_path, "deadly", ask, given_up) == {"given up": "deadly"}  # kept like any other
    assert not list(tmp_path.glob("*.begun"))
    assert spool.folder("0" * 32).name == "0" * 20


@pytest.mark.long
def test_a_process_that_is_killed_is_asked_again_and_one_that_crashes_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the worker lives: the system's signal is tried three times, a crash of the cell's own once."""
    options = staged(tmp_path, ["die", "killed", "killed-once", "quiet"])
    (tmp_path / "notes").mkdir()
    monkeypatch.setenv("PARITY_STAGED", str(tmp_path / "notes"))
    monkeypatch.setenv("PARITY_STAGED_SECONDS", "0")
    cells = plan.cells(options)
    run = PatientRun(options, worker=(*STAGED, str(tmp_path / "spool")))
    try:
        records = [run.ask(cell) for cell in cells]
    finally:
        run.close()
    assert [record["verdict"] for record in records] == ["fail", "fail", "pass", "pass"]
    assert "SIGSEGV" in records[0]["explanation"]
    assert "its process ended (SIGKILL)" in records[1]["explanation"]
    assert "as 2 others did before" in records[1]["explanation"]
    begun = (tmp_path / "notes" / "begun").read_text().split("\n")[:-1]
    assert [begun.count(cell.id) for cell in cells] == [1, 3, 2, 1]


def test_an_orphan_ends_with_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell that never ends would hold its lock for ever once its worker was killed, and nobody could ask it."""
    options = staged(tmp_path, ["long"], cell_timeout="1")
    (tmp_path / "notes").mkdir()
    own = {"PARITY_STAGED": str(tmp_path / "notes"), "PARITY_STAGED_SECONDS": "60"}
    (cell,) = plan.cells(options)
    words = "".join(json.dumps(line) + "\n" for line in (encoded(options), {"cell": cell.id}))
    environment = {**os.environ, **own, "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run(
        (*STAGED, str(tmp_path / "spool")), input=words.encode(), env=environment, timeout=50, capture_output=True
    )
    assert ended.returncode == -signal.SIGALRM
    assert (tmp_path / "notes" / "begun").exists()


def test_who_declares_nothing_may_still_join_and_who_left_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    there: list[tuple[Worker, ...]] = [()]
    clock = [0.0]
    monkeypatch.setattr(workers, "seen", lambda client: there[0])
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    roll = Roll(None)

    def lacking(seconds: float, *present: Worker) -> str:
        there[0] = present
        clock[0] += seconds
        roll.look()
        return roll.lacking({"m2": 1.0})

    m1, m2 = Worker("a:1", "one", {"m1": 1.0}), Worker("b:1", "two", {"m2": 1.0})
    assert not lacking(0, m1)
    assert not lacking(workers.JOINING - 1, m1)
    assert lacking(2, m1) == "no worker of the fleet declares m2"
    assert not lacking(1, m1, m2)
    assert not lacking(workers.RETURNING - 1, m1)
    assert lacking(2, m1)
    assert not lacking(1, m2)
    roll.refuse("b:1", "another version")
    assert not roll.willing
    assert not lacking(0, m2)
    assert not lacking(workers.JOINING - 1, m2)  # another one may join
    assert lacking(2, m2)
    assert roll.lacking({}) == ""
    clock[0] += workers.JOINING + 1
    assert roll.lacking({}) == "no worker of the fleet is there any more"


def test_a_worker_says_which_cell_of_a_run_it_asks() -> None:
    run, other = "a" * 32, "b" * 32
    tasks = (workers.key(other, "01234567", "x"), workers.key(run, "01234567", "golden/a-b"), "inc-1")
    assert Worker("a:1", "one", {}, tasks).asks(run) == "golden/a-b"
    assert Worker("a:1", "one", {}, tasks[2:]).asks(run) == ""
