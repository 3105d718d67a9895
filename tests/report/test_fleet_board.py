"""The table of a fleet: who asks what, for how long; on narrow and short terminals, and without one."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from parity.fleet.workers import Worker, key
from parity.report import fleet
from parity.report.fleet import Board

RUN = "a" * 32


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def workers(**asking: str) -> list[Worker]:
    """Return workers by name, with the cell that each asks; empty for none."""
    return [
        Worker(f"tcp://host:{number}", name, {}, (key(RUN, "01234567", cell),) if cell else ())
        for number, (name, cell) in enumerate(asking.items())
    ]


def drawn(board: Board, width: int = 80, height: int = 24) -> list[str]:
    """Return the lines that a terminal shows."""
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    console.print(board)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_longest_at_its_cell_comes_first_and_records_are_counted_by_worker(clock: list[float]) -> None:
    board = Board(RUN, 200)
    board.seen(workers(m1="golden/a", m2="golden/b", m4=""))
    clock[0] += 65
    board.seen(workers(m1="golden/a", m2="golden/c", m4=""))
    board.finished({"verdict": "pass", "worker": "m2 (Apple M2 (8 GB))"})
    board.finished({"verdict": "fail", "worker": "m2 (Apple M2 (8 GB))"})
    board.finished({"verdict": "unknown"})
    clock[0] += 3600
    rows = [(row.worker, row.cell, row.seconds, row.done) for row in board.rows()]
    assert rows == [("m1", "golden/a", 3665.0, 0), ("m2", "golden/c", 3600.0, 2), ("m4", "", 3665.0, 0)]
    assert board.line() == "3 workers; 1 fail, 1 unknown; longest golden/a on m1 for 1:01:05"
    lines = drawn(board)
    assert lines[0].startswith("3 of 200 cells, 1:01:05")
    assert lines[0].endswith("1 fail, 1 unknown")
    assert [line.split() for line in lines[1:]] == [
        ["worker", "cell", "for", "done"],
        ["m1", "golden/a", "1:01:05", "0"],
        ["m2", "golden/c", "1:00:00", "2"],
        ["m4", "waits", "0"],
    ]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_it_fits_any_terminal_and_says_what_it_leaves_out(clock: list[float], width: int) -> None:
    board = Board(RUN, 10)
    board.say("a worker of another version refused: " + "many words " * 20)
    board.seen(
        workers(**{f"worker-with-a-long-name-{n:02d}": "candidate/a-long-name/coreml:CPU_AND_NE" for n in range(30)})
    )
    lines = drawn(board, width, 20)
    assert len(lines) <= 19
    assert max(map(len, lines)) <= width
    assert lines[-1] == "and 15 more"
    assert all(line.split()[-2:] == ["0:00", "0"] for line in lines[2:-1])


def test_a_worker_that_comes_back_begins_anew(clock: list[float]) -> None:
    board = Board(RUN, 2)
    board.seen(workers(m1="golden/a"))
    clock[0] += 10
    board.seen([])
    assert board.line() == "0 workers"
    board.seen(workers(m1="golden/a"))
    assert board.rows()[0].seconds == 0


def test_without_a_terminal_a_line_now_and_then(capfd: pytest.CaptureFixture[str]) -> None:
    board = Board(RUN, 4)
    with fleet.shown(board, every=0.05):
        board.seen(workers(m1="golden/a"))
        board.finished({"verdict": "pass", "worker": "m1 (x86-64)"})
        time.sleep(0.3)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines()[-1] == "1 of 4 cells after 0:00: 1 worker; longest golden/a on m1 for 0:00"
