"""Drifts that are planted in run folders are found by the part that should, with the run in which they began."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parity import cli, convert, recipes
from parity.errors import FormatError, MissingError, UnsupportedError, UsageError
from parity.runs import folder, ledger, telling
from parity.runs.folder import Plan
from parity.runs.history.check import check
from parity.runs.history.store import Store
from parity.runs.merge import merge
from tests.runs.records import QUESTION, plan, planned, record, write
from tests.suite import planting

pytest.importorskip("ruptures", reason="change points are found by ruptures, an extra")
CELLS = [planned(number)["id"] for number in range(3)]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def nights(tmp_path: Path) -> Callable[..., Store]:
    """Return ``nights(count, change)``: a history; ``change`` gets night, cell and what a record is made of."""

    def kept(count: int, change: Callable[[int, int, dict[str, Any]], None], **question: str) -> Store:
        generator = np.random.default_rng(93)
        store = Store(tmp_path / "history.sqlite", create=True)
        for night in range(count):
            records = []
            for cell in range(3):
                told: dict[str, Any] = {"verdict": "pass", "margin": 8 + generator.normal(0, 0.3), "seconds": 2.0}
                change(night, cell, told)
                seconds = {"candidate": told.pop("seconds") * float(np.exp(generator.normal(0, 0.02)))}
                records.append(record(cell, **told, seconds=seconds, pictures={}))
            asked = Plan({**QUESTION, **question}, plan(3).cells, "Apple M2")
            store.add(write(tmp_path / f"night-{night:03}", records, asked))
        return store

    return kept


def nothing(night: int, cell: int, told: dict[str, Any]) -> None:
    """Change nothing."""


def test_stationary_nights_raise_no_alarm(nights: Callable[..., Store]) -> None:
    with nights(40, nothing) as store:
        assert check(store, recent=40) == []
        assert len(store.runs()) == 40


def test_half_a_decibel_a_night_over_two_weeks_is_found_while_every_night_passes(nights: Callable[..., Store]) -> None:
    def drift(night: int, cell: int, told: dict[str, Any]) -> None:
        if cell == 1 and night >= 20:
            told["margin"] -= 0.5 * (night - 20)

    with nights(34, drift) as store:
        found = check(store)
    assert {(finding.kind, finding.cell, finding.worse) for finding in found} == {("margin", CELLS[1], True)}
    assert all(finding.first is not None and finding.first.id > 20 for finding in found)
    assert "image image_psnr: its margin fell by" in found[0].text


def test_ten_percent_slower_is_found_with_the_night_in_which_it_began(nights: Callable[..., Store]) -> None:
    def slower(night: int, cell: int, told: dict[str, Any]) -> None:
        told["seconds"] *= 1.1 if cell == 2 and night >= 24 else 1

    with nights(30, slower) as store:
        (found,) = check(store)
    assert (found.kind, found.cell, found.worse) == ("seconds", CELLS[2], True)
    assert found.first is not None
    assert abs(found.first.id - 25) <= 1
    assert "slower (2" in found.text


def test_a_cell_that_fails_has_its_first_bad_run_and_what_changed(
    nights: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(night: int, cell: int, told: dict[str, Any]) -> None:
        if night == 3:
            monkeypatch.setattr(folder, "__version__", "7.0")
        if cell == 0 and night >= 3:
            told.update(verdict="fail", margin=-3.0)

    with nights(6, fails) as store:
        (found,) = check(store)
    assert (found.kind, found.cell, found.worse) == ("verdict", CELLS[0], True)
    assert found.first is not None
    assert found.last is not None
    assert (found.last.id, found.first.id) == (3, 4)
    assert "-> 7.0" in found.began


def test_what_became_unknown_is_worse_and_what_passes_again_is_told(nights: Callable[..., Store]) -> None:
    def turns(night: int, cell: int, told: dict[str, Any]) -> None:
        if night == 3:
            told["verdict"] = {0: "unknown", 1: "pass", 2: "pass"}[cell]
        if night == 2 and cell == 1:
            told["verdict"] = "fail"

    with nights(4, turns) as store:
        found = {(finding.cell, finding.kind): finding for finding in check(store)}
    assert found[CELLS[0], "verdict"].worse
    assert "is unknown since run 4" in found[CELLS[0], "verdict"].change.whole
    assert not found[CELLS[1], "verdict"].worse
    assert "passes again since run 4" in found[CELLS[1], "verdict"].change.whole
    assert found[CELLS[1], "flaky"].text == "is flaky: passed 3 and failed 1 of 4 times with the same versions"
    assert (CELLS[2], "verdict") not in found


def test_what_changed_once_is_not_flaky_and_what_turns_back_is(nights: Callable[..., Store]) -> None:
    rows = {0: "ppppff", 1: "pfp?fp", 2: "ffffpp"}

    def turns(night: int, cell: int, told: dict[str, Any]) -> None:
        told["verdict"] = {"p": "pass", "f": "fail", "?": "unknown"}[rows[cell][night]]

    with nights(6, turns) as store:
        assert store.flaky() == [("Apple M2", CELLS[1], 3, 2)]


def test_a_cell_that_changed_with_its_versions_is_not_flaky(
    nights: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(night: int, cell: int, told: dict[str, Any]) -> None:
        monkeypatch.setattr(folder, "__version__", f"{night // 2}.0")
        told["verdict"] = "fail" if night // 2 == 1 else "pass"

    with nights(6, fails) as store:
        assert store.flaky() == []


def test_a_history_is_the_same_when_it_is_made_again(nights: Callable[..., Store], tmp_path: Path) -> None:
    with nights(5, nothing) as store:
        first = (store.series(), store.verdicts(), [values.tolist() for values in store.values()])
        for night in range(5):
            assert store.add(tmp_path / f"night-{night:03}") == 3  # nothing is twice
        again = (store.series(), store.verdicts(), [values.tolist() for values in store.values()])
    with Store(tmp_path / "other.sqlite", create=True) as store:
        for night in range(5):
            store.add(tmp_path / f"night-{night:03}")
        anew = (store.series(), store.verdicts(), [values.tolist() for values in store.values()])
    assert first == again == anew


def test_a_merged_folder_has_a_trend_for_each_machine(tmp_path: Path) -> None:
    folders = [write(tmp_path / name, [record(0)], plan(1, name)) for name in ("M1", "M2")]
    merge(folders, tmp_path / "all")
    with Store(tmp_path / "h.sqlite", create=True) as store:
        store.add(tmp_path / "all")
        assert [run.machine for run in store.runs().values()] == ["M1", "M2"]
        assert {series.machine for series in store.series()} == {"M1", "M2"}


def test_jobs_of_one_machine_are_one_night(tmp_path: Path) -> None:
    """A job for each unit writes a folder; what fails in the first one is as new as what fails in the last one."""
    with Store(tmp_path / "h.sqlite", create=True) as store:
        for night, verdict in enumerate(["pass", "fail"]):
            folders = [
                write(tmp_path / f"{night}-{cell}", [record(cell, verdict)], plan(1, first=cell)) for cell in (0, 1)
            ]
            merge(folders, tmp_path / f"night-{night}")
            assert store.add(tmp_path / f"night-{night}") == store.add(tmp_path / f"night-{night}") == 2
        assert len(store.runs()) == 2
        found = [finding for finding in check(store) if finding.kind == "verdict"]
    assert [finding.cell for finding in found] == CELLS[:2]


def test_a_history_is_of_one_model(tmp_path: Path) -> None:
    other = write(tmp_path / "b", [record(0)], plan(1, question={**QUESTION, "model": "other"}))
    with Store(tmp_path / "h", create=True) as store:
        store.add(write(tmp_path / "a", [record(0)], plan(1)))
        with pytest.raises(UsageError, match=r"a run of other; .* is the history of tiny-sd: keep a file a model"):
            store.add(other)
        assert len(store.runs()) == 1


def test_an_infinite_margin_that_becomes_finite_is_a_change(nights: Callable[..., Store]) -> None:
    def exact(night: int, cell: int, told: dict[str, Any]) -> None:
        told["margin"] = 30.0 if cell == 1 and night >= 15 else float("inf")

    with nights(20, exact) as store:
        (found,) = check(store)
    assert (found.cell, found.kind) == (CELLS[1], "margin")


def test_the_command(nights: Callable[..., Store], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(night: int, cell: int, told: dict[str, Any]) -> None:
        if cell == 0 and night == 11:
            told.update(verdict="fail", margin=-3.0)

    nights(12, fails)
    base = tmp_path / "again.sqlite"
    folders = [str(tmp_path / f"night-{night:03}") for night in range(12)]
    assert cli.main(["history", "add", *folders, "--db", str(base)]) == 0
    assert f"{base}: 12 runs" in capsys.readouterr().out
    assert cli.main(["history", "check", "--db", str(base)]) == 1
    said = capsys.readouterr().out
    assert f"{CELLS[0]} on Apple M2: fails since run 12" in said
    assert "12 runs, 6 series:" in said
    assert cli.main(["history", "show", "--db", str(base)]) == 0
    assert f"{CELLS[0]} on Apple M2: fail, 12 runs  ...........F" in capsys.readouterr().out
    assert cli.main(["history", "show", CELLS[0], "--db", str(base)]) == 0
    said = capsys.readouterr().out
    assert "-3 dB  margin of image image_psnr" in said
    assert "seconds candidate" in said
    summary = tmp_path / "s.md"
    assert cli.main(["report", folders[-1], "--summary", str(summary), "--history", str(base)]) == 1
    assert f"- {CELLS[0]} on Apple M2: fails since run 12" in summary.read_text()
    assert cli.main(["history", "show", "candidate/case-9", "--db", str(base)]) == 2
    assert "did you mean" in capsys.readouterr().err
    assert cli.main(["history", "check", "--recent", "0", "--db", str(base)]) == 2


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no such history; 'parity history add DIR' makes one"):
        Store(tmp_path / "none")
    (tmp_path / "text").write_text("nothing of the kind, and long enough to be read as a page" * 30)
    with pytest.raises(FormatError, match="file is not a database; make it anew"):
        Store(tmp_path / "text")
    with sqlite3.connect(tmp_path / "other") as base:
        base.execute("CREATE TABLE x (y)")
    base.close()
    with pytest.raises(FormatError, match="an SQLite file, but no history"):
        Store(tmp_path / "other")
    Store(tmp_path / "newer", create=True)
    with sqlite3.connect(tmp_path / "newer") as base:
        base.execute("PRAGMA user_version = 9")
    base.close()
    with pytest.raises(UnsupportedError, match="schema 9"):
        Store(tmp_path / "newer")
    with pytest.raises(UsageError, match="unable to open database file"):
        Store(tmp_path / "no" / "folder", create=True)


def test_a_folder_that_cannot_be_read_leaves_the_history_as_it_was(tmp_path: Path) -> None:
    with Store(tmp_path / "h", create=True) as store, pytest.raises(MissingError):
        store.add(tmp_path / "none")
    with Store(tmp_path / "h") as store:
        assert store.runs() == {}


@pytest.mark.long
def test_a_weight_that_changed_overnight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = convert.cached(str(recipes.build("tiny-sd")))
    (tmp_path / "models").mkdir()
    for path in models.values():
        shutil.copytree(path, tmp_path / "models" / path.name)
    monkeypatch.chdir(tmp_path)
    case = '[[case]]\nname = "quick"\ntask = "txt2img"\nprompt = "a ring"\nscheduler = "euler"\nsteps = 1\n'
    Path("cases.toml").write_text(case)
    given = ["run", "--model-version", "tiny-sd", "--models", "models", "--cases", "cases.toml"]
    given += ["--coreml-runtime", "reference", "--machine", "mac mini"]
    assert cli.main([*given, "--run-dir", "first"]) == 0
    unet = models["unet"]
    shutil.rmtree(Path("models") / unet.name)
    planting.changed(unet, Path("models"), "conv_out_weight", 9.0, count=8)
    assert cli.main([*given, "--run-dir", "first", "--resume"]) == 2  # these are other packages
    assert cli.main([*given, "--run-dir", "second"]) == 1
    with Store(Path("h"), create=True) as store:
        for name in ("first", "second"):
            store.add(Path(name))
        (found,) = check(store)
    assert (found.kind, found.cell, found.machine) == ("verdict", "candidate/quick/coreml:reference", "mac mini")
    assert f"between them changed package {unet.name} " in found.began


@pytest.mark.long
def test_a_step_that_changed_overnight_for_both_is_found_by_the_golden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an upgrade of diffusers could change it: reference and candidate follow alike, what was accepted does not."""
    from diffusers import DDIMScheduler

    monkeypatch.chdir(tmp_path)
    case = '[[case]]\nname = "quick"\ntask = "txt2img"\nprompt = "a ring"\nscheduler = "ddim"\nsteps = 2\n'
    Path("cases.toml").write_text(case)
    given = ["run", "--model-version", "tiny-sd", "--cases", "cases.toml", "--backend", "torch:cpu"]
    given += ["--golden-dir", "golden", "--machine", "mac mini"]
    monkeypatch.setenv("PARITY_AUTHOR", "Ada")
    cli.main([*given, "--update-golden"])
    assert cli.main([*given, "--run-dir", "first"]) == 0
    own = DDIMScheduler.step

    def step(self: Any, noise: Any, timestep: Any, sample: Any, **others: Any) -> Any:
        return own(self, noise * (1.01 if timestep > 500 else 1.0), timestep, sample, **others)  # the first of two

    monkeypatch.setattr(DDIMScheduler, "step", step)
    assert cli.main([*given, "--run-dir", "second"]) == 1
    with Store(Path("h"), create=True) as store:
        for name in ("first", "second"):
            store.add(Path(name))
        found = check(store)
    assert [(finding.kind, finding.cell) for finding in found] == [("verdict", "golden/quick")]
    assert "no version and no digest differs" in found[0].began
    records = {entry.record["kind"]: entry.record for entry in ledger.read(Path("second")).entries}
    assert records["candidate"]["verdict"] == "pass"
    decisive = records["golden"]["checks"][records["golden"]["decisive"]]
    assert decisive["point"] == "golden/latents"


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Store]:
    """Thirty nights of ten thousand cells with a number each, one of them drifting."""
    values = np.random.default_rng(93).normal(8, 0.3, (10_000, 30))
    values[77, 20:] -= 6
    with Store(tmp_path / "large", create=True) as store:
        base = store._base
        with base:
            base.execute("INSERT INTO environment VALUES (1, '{}')")
            ids = np.arange(1, 10_001, dtype="<i4").tobytes()
            nights = [(n, str(n), ids, bytes(10_000), ids, values[:, n - 1].tobytes()) for n in range(1, 31)]
            base.executemany("INSERT INTO run VALUES (?, ?, 'M2', '2026', 1, ?, ?, ?, ?)", nights)
            numbers = range(1, 10_001)
            base.executemany("INSERT INTO cell VALUES (?, 'M2', ?, '')", [(n, f"cell {n}") for n in numbers])
            base.executemany(
                "INSERT INTO series VALUES (?, ?, 'image image_psnr', 'dB', 41)", [(n, n) for n in numbers]
            )
        yield store


def test_ten_thousand_cells_over_thirty_nights_load_and_check_in_two_seconds(large: Store) -> None:
    begun = time.process_time()
    found = check(large)
    took = time.process_time() - begun
    assert [finding.cell for finding in found] == ["cell 78"]
    assert took < 4  # docs/runs.md says what it takes on a quiet machine
    assert len(telling.grouped([finding.change for finding in found])) == 1
