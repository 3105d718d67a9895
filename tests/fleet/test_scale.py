"""Two hundred cells on eight workers of which fifty are killed; and what the bookkeeping costs."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from parity.fleet.client import Fleet, connected
from parity.runs import ledger
from tests.fleet.clusters import cluster, job, run, staged

pytest.importorskip("distributed", reason="the extra fleet is not installed: pip install distributed")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


CELLS, WORKERS, KILLS, SECONDS = 200, 8, 50, 2.0


def test_two_hundred_cells_eight_workers_fifty_kills(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Workers are killed while they ask cells: nothing is lost, nothing there twice, nothing finished asked again."""
    options = staged(tmp_path, [f"cell{number:03d}" for number in range(CELLS)])
    chosen, killed, arrived = random.Random(3), [0], [0]
    with (
        cluster(tmp_path, WORKERS, SECONDS) as local,
        connected(local.address) as client,
        run(tmp_path / "run", options) as (folder, cells),
    ):

        def kill() -> None:
            killed[0] += local.kill(chosen)

        def add(record: dict[str, Any]) -> None:
            folder.add(record)
            arrived[0] += 1
            if arrived[0] * KILLS % CELLS < KILLS:  # at any moment of the cells that others are asking
                threading.Timer(chosen.uniform(0, SECONDS / 2), kill).start()

        found = Fleet(client, job(folder, options), options).ask_all(cells, add)
    entries = Counter(entry.record["id"] for entry in ledger.read(tmp_path / "run").entries)
    again = sum(local.noted("ended").values()) - CELLS
    with capsys.disabled():
        print(f"\n{len(found)} cells, {killed[0]} kills, {again} finished cells asked again")
    assert entries == Counter(cell.id for cell in cells)
    assert {record["verdict"] for record in found.values()} == {"pass"}
    assert killed[0] >= 0.9 * KILLS  # some find nobody: on a loaded machine all are being started again
    assert again < 0.02 * CELLS


def test_the_bookkeeping_costs_less_than_a_twentieth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Against cells times seconds by workers, which have begun: opening the models once is no bookkeeping."""
    options = staged(tmp_path, [f"cell{number:03d}" for number in range(CELLS)])
    with (
        cluster(tmp_path, WORKERS, SECONDS) as local,
        connected(local.address) as client,
        run(tmp_path / "run", options) as (folder, cells),
    ):
        arrived: list[float] = []

        def add(record: dict[str, Any]) -> None:
            folder.add(record)
            arrived.append(time.monotonic())

        Fleet(client, job(folder, options), options).ask_all(cells, add)
    begun = 2 * WORKERS  # cells after which all workers have opened the run
    rounds = (CELLS - begun) / WORKERS
    overhead = (arrived[-1] - arrived[begun - 1]) / (rounds * SECONDS) - 1
    with capsys.disabled():
        print(f"\n{CELLS} cells of {SECONDS} s on {WORKERS} workers: {overhead:.1%} above their own time")
    assert overhead < 0.05


def test_a_cell_that_takes_its_worker_along_ends_as_a_record(tmp_path: Path) -> None:
    """As one does for which a machine has not the memory; the others are asked, in workers that came back."""
    options = staged(tmp_path, ["one", "deadly", "two"])
    environment = {"PARITY_STAGED_TOGETHER": "2"}
    with (
        cluster(tmp_path, 2, 0.1, environment=environment) as local,
        connected(local.address) as client,
        run(tmp_path / "run", options) as (folder, cells),
    ):
        found = Fleet(client, job(folder, options), options).ask_all(cells, folder.add)
    assert [found[cell.id]["verdict"] for cell in cells] == ["pass", "fail", "pass"]
    assert (
        "2 processes that asked it ended without an answer, each together with its worker"
        in (found[cells[1].id]["explanation"])
    )
    assert local.noted("begun")[cells[1].id] == 2
