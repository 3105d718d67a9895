"""What nights cost and how soon they tell: merging machines, checking a history, and nights until a drift is found.

Seconds are processor seconds of this process, so other work on the machine shows less. Nights are those of a single
series that was still for thirty nights before: after how many is the new level found, and does a still series raise
alarms?
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from parity.runs.history import changes, check
from parity.runs.history.store import Store
from parity.runs.merge import merge
from tests.runs.records import plan, record, write

_MACHINES = ("Apple M1", "Apple M2", "Apple M4")
_DRIFTS = (  # what, unit's noise, change a night: at once or each night
    ("margin falls by 2 dB", 0.4, lambda night: -2.0),
    ("margin falls by 0.8 dB", 0.4, lambda night: -0.8),
    ("margin falls by 0.5 dB a night", 0.4, lambda night: -0.5 * (night + 1)),
    ("10 % slower", 0.02, lambda night: np.log(1.1)),
    ("10 % slower", 0.04, lambda night: np.log(1.1)),
)


def run(report: Callable[[str], None]) -> None:
    """Report seconds, then nights."""
    with tempfile.TemporaryDirectory(prefix="parity-bench-") as scratch:
        _merge(Path(scratch), report)
        begun = time.process_time()
        changes.find([np.arange(changes.SHORTEST, dtype=float)], [0.05])
        report(f"{'importing ruptures':<61}{time.process_time() - begun:.2f} s")
        for nights in (30, 60):
            _history(Path(scratch) / f"{nights}.sqlite", nights, report)
    for what, sigma, drift in _DRIFTS:
        found = sorted(_found_after(what, sigma, drift, number) for number in range(100))
        report(f"{what:<32} noise {sigma:<5} found after {found[49]} nights in the median, {found[89]} in 9 of 10")
    alarms = [_alarms(nights) for nights in (8, 10, 14, 30, 60)]
    report(f"nothing, 500 series of 8 to 60 nights each: alarms in {min(alarms):.1%} to {max(alarms):.1%}")


def _merge(folder: Path, report: Callable[[str], None]) -> None:
    folders = [write(folder / name, [record(n) for n in range(334)], plan(334, name)) for name in _MACHINES]
    wall, begun = time.perf_counter(), time.process_time()
    merged = merge(folders, folder / "all")
    took = f"{time.process_time() - begun:.2f} s ({time.perf_counter() - wall:.2f} s on the clock)"
    report(f"{'merge, three machines':<46}{len(merged.ledger.entries):>7} records {took}  (limit 1 s)")


def _history(path: Path, nights: int, report: Callable[[str], None]) -> None:
    values = np.random.default_rng(93).normal(8, 0.3, (10_000, nights))
    values[77, nights - 10 :] -= 6
    with Store(path, create=True) as store:
        _filled(store, values)
    wall, begun = time.perf_counter(), time.process_time()
    with Store(path) as store:
        found = check.check(store)
    assert [finding.cell for finding in found] == ["cell 78"]
    took = f"{time.process_time() - begun:.2f} s ({time.perf_counter() - wall:.2f} s on the clock)"
    report(f"{f'history of {nights} nights, opened and checked':<46}{10_000:>7} cells   {took}  (limit 2 s)")


def _filled(store: Store, values: np.ndarray) -> None:
    """Lay a number a cell and night into a history, without folders that hold them."""
    cells, nights = values.shape
    numbers = range(1, cells + 1)
    ids = np.arange(1, cells + 1, dtype="<i4").tobytes()
    base = store._base
    with base:
        base.execute("INSERT INTO environment VALUES (1, '{}')")
        rows = [(n, str(n), ids, bytes(cells), ids, values[:, n - 1].tobytes()) for n in range(1, nights + 1)]
        base.executemany("INSERT INTO run VALUES (?, ?, 'M2', '2026', 1, ?, ?, ?, ?)", rows)
        base.executemany("INSERT INTO cell VALUES (?, 'M2', ?, '')", [(n, f"cell {n}") for n in numbers])
        base.executemany("INSERT INTO series VALUES (?, ?, 'image image_psnr', 'dB', 41)", [(n, n) for n in numbers])


def _found_after(what: str, sigma: float, drift: Callable[[int], float], number: int) -> int:
    """Return the first night at which a change in the right direction is found; 99 where none of thirty is."""
    generator = np.random.default_rng(number)
    row = generator.normal(0, sigma, 60)
    row[30:] += [drift(night) for night in range(30)]
    floor = 0.01 if "slower" in what else 0.05
    for night in range(1, 31):
        if any((hit.after - hit.before) * drift(0) > 0 for hit in changes.find([row[: 30 + night]], [floor])):
            return night
    return 99


def _alarms(nights: int) -> float:
    generator = np.random.default_rng(nights)
    return float(np.mean([bool(changes.find([generator.normal(8, 0.4, nights)], [0.05])) for _ in range(500)]))
