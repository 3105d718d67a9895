"""A run on disk: nothing finished is lost, nothing is taken for the answer to another question."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from parity.errors import FormatError, MissingError, ParityError, UnsupportedError, UsageError
from parity.runs import folder, ledger, schema
from parity.runs.folder import Plan
from tests.runs.records import QUESTION, SETTINGS, plan, planned, record, write

CHILD = """
import sys, time
from pathlib import Path
from parity.runs import folder
from tests.runs.records import plan, record
with folder.open_run(Path(sys.argv[1]), plan(40), resume=True) as run:
    for number in range(40):
        entry = record(number)
        if entry["id"] in run.held:
            continue
        run.add(entry)
        print(entry["id"], flush=True)
        time.sleep(0.002)
"""


@pytest.mark.long
@pytest.mark.parametrize("kills", [12, pytest.param(50, marks=pytest.mark.slow)])
def test_kills_at_random_moments_lose_nothing_and_repeat_nothing(tmp_path: Path, kills: int) -> None:
    path, said = tmp_path / "night", Counter[str]()
    chance = random.Random(93)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", CHILD, str(path)]
    for kill in range(kills):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
            assert child.stdout is not None
            if kill % 4:  # some are killed before they have said anything, most in the middle of their work
                said.update([child.stdout.readline().strip()])
            time.sleep(chance.uniform(0, 0.02))
            child.send_signal(signal.SIGKILL)
            said.update(line.strip() for line in child.stdout if line.endswith("\n"))
        assert set(said) - {""} <= {entry.record["id"] for entry in _entries(path)}
    assert subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL).returncode == 0
    found = ledger.read(path)
    assert Counter(entry.record["id"] for entry in found.entries) == Counter(cell["id"] for cell in plan(40).cells)
    assert [entry.sequence for entry in found.entries] == list(range(1, 41))
    assert len({session.run for session in found.sessions}) == 1


def _entries(path: Path) -> tuple[ledger.Entry, ...]:
    try:
        return ledger.scan(path).entries
    except MissingError:
        return ()


def test_what_is_written_is_what_is_read_and_pictures_are_stored_once(tmp_path: Path) -> None:
    records = [record(number) for number in (1, 1, 2)]
    records[1]["id"] = planned(2)["id"]
    path = write(tmp_path / "run", records, plan(3))
    found = ledger.read(path)
    assert [folder.filled(path, entry) for entry in found.entries] == records
    assert len(list((path / "pictures").iterdir())) == 3  # the grey reference, and two candidates
    assert found.sessions[0].provenance.packages["numpy"]
    assert found.sessions[0].machine == "Apple M2"


def test_lines_follow_the_exported_schema(tmp_path: Path) -> None:
    path = write(tmp_path / "run", [record(0), record(1, "fail", float("-3"))], plan(2))
    validator = jsonschema.Draft202012Validator(schema.json_schema())
    lines = [json.loads(line) for line in (path / ledger.NAME).read_text().splitlines()]
    assert [line["line"] for line in lines] == ["session", "cell", "cell"]
    for line in lines:
        validator.validate(line)
    damages: list[dict[str, Any]] = [{"verdict": "green"}, {"pictures": {"reference": "../../x"}}, {"checks": []}]
    for damage in damages:
        with pytest.raises(jsonschema.ValidationError):
            validator.validate({**lines[1], "record": {**lines[1]["record"], **damage}})


def test_every_field_of_a_record_is_in_the_schema() -> None:
    from parity.suite import plan as suite_plan
    from parity.suite.options import Options
    from parity.suite.question import planned as planned_cells
    from parity.suite.run import not_asked

    options = Options(model_version="tiny-sd", coreml_runtime="reference")
    cell = suite_plan.cells(options)[0]
    made = not_asked(cell, options)
    assert set(made) == set(schema.Record.__struct_fields__)
    assert set(made["checks"][0]) == set(schema.Check.__struct_fields__)
    assert set(planned_cells([cell], options)[0]) == set(schema.Planned.__struct_fields__)


def test_fields_of_a_later_release_are_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "run", [record(0, memory_peak=5)], plan(1))
    (entry,) = ledger.read(path).entries
    assert entry.record["memory_peak"] == 5


def test_texts_and_numbers_of_any_kind(tmp_path: Path) -> None:
    told = record(0, "fail", float("-inf"), remarks=["Ring, gelb: 黄色い輪", "a\udcff.png", "line\nbreak"])
    told["seconds"] = {"candidate": np.float64(1.5)}
    path = write(tmp_path / "run", [told], plan(1))
    (entry,) = ledger.read(path).entries
    assert folder.filled(path, entry) == told
    with pytest.raises(ValueError, match="Out of range float values"):
        write(tmp_path / "other", [record(0, seconds={"candidate": float("nan")})], plan(1))


def test_a_half_written_line_is_named_skipped_counted_and_asked_again(tmp_path: Path) -> None:
    path = write(tmp_path / "run", [record(0), record(1)], plan(3))
    file = path / ledger.NAME
    file.write_bytes(file.read_bytes()[:-200])
    assert ledger.read(path).skipped == (f"{file}: line 3 is half-written, skipped",)
    with folder.open_run(path, plan(3), resume=True) as run:
        assert list(run.held) == [planned(0)["id"]]
        assert len(run.skipped) == 1
        run.add(record(1))
        run.add(record(2))
    found = ledger.read(path)
    assert [entry.record["case"] for entry in found.entries] == ["case-0", "case-1", "case-2"]
    assert len(found.skipped) == 1  # still there, and still not readable


def test_a_ledger_that_was_killed_at_its_first_line_is_an_empty_one(tmp_path: Path) -> None:
    path = write(tmp_path / "run", [], plan(1))
    file = path / ledger.NAME
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(FormatError, match=r"no line of it says what was run: .*line 1 is half-written"):
        ledger.read(path)
    write(path, [record(0)], plan(1))
    assert len(ledger.read(path).entries) == 1


@pytest.mark.parametrize("line", [b"{}", b"[1]", b"nonsense", b'{"line":"cell"}', b"\xff\xfe", b"[" * 100_000])
def test_lines_that_are_no_lines(tmp_path: Path, line: bytes) -> None:
    path = write(tmp_path / "run", [record(0)], plan(1))
    with (path / ledger.NAME).open("ab") as stream:
        stream.write(line + b"\n")
    found = ledger.read(path)
    assert (len(found.entries), len(found.skipped)) == (1, 1)
    assert "line 3 is not readable" in found.skipped[0]


def test_a_newer_schema_is_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "run", [record(0)], plan(1))
    file = path / ledger.NAME
    file.write_text(file.read_text().replace('"schema":1', '"schema":2', 1).replace('"parity":"', '"parity":"9.', 1))
    with pytest.raises(UnsupportedError, match=r"ledger.jsonl: schema 2, written by parity 9\..*: update parity"):
        ledger.read(path)
    with pytest.raises(UnsupportedError, match="schema 2"):
        write(path, [], plan(1), resume=True)


def test_order_is_by_sequence_and_not_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([f"2026-01-0{day}T00:00:00+00:00" for day in (9, 8, 7, 6)])
    monkeypatch.setattr(folder, "_now", lambda: next(times))
    path = write(tmp_path / "run", [record(0, "fail"), record(0, "pass"), record(1)], plan(2))
    found = ledger.read(path)
    assert [entry.finished[9] for entry in found.entries] == ["8", "7", "6"]
    assert found.latest()["Apple M2", planned(0)["id"]].record["verdict"] == "pass"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"question": {**QUESTION, "weights unet": "dddd"}}, "weights unet aaaa there, dddd here"),
        ({"question": {**QUESTION, "picture": "eeee"}}, "picture none there, eeee here"),
        ({"question": {"model": "tiny-sd"}}, "package unet.mlpackage bbbb there, none here"),
        ({"machine": "Apple M4"}, "machine Apple M2 there, Apple M4 here"),
        (
            {"cells": [planned(0, digest="other", settings={**SETTINGS, "seed": 7})]},
            "candidate/case-0/coreml:reference: seed 0 there, 7 here",
        ),
        ({"cells": [planned(0, digest="other")]}, "a picture of another content"),
    ],
)
def test_another_question_is_refused_with_what_differs(tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    path = write(tmp_path / "run", [record(0)], plan(1))
    before = (path / ledger.NAME).read_bytes()
    other = Plan(**{"question": QUESTION, "cells": plan(1).cells, "machine": "Apple M2", **changed})
    with pytest.raises(UsageError, match=f"answers another question: .*{says}.*Begin a new folder"):
        write(path, [], other, resume=True)
    assert (path / ledger.NAME).read_bytes() == before


def test_other_versions_are_another_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "run", [record(0)], plan(1))
    monkeypatch.setattr(folder, "__version__", "7.0")
    with pytest.raises(UsageError, match=r"parity \S+ there, 7.0 here"):
        write(path, [], plan(1), resume=True)


def test_what_was_not_known_yet_differs_from_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "run", [record(0)], plan(1, question={"model": "a/b", "weights": ""}))
    with folder.open_run(path, plan(1, question={"model": "a/b", "weights": "revision 1"}), resume=True) as run:
        assert len(run.held) == 1


def test_a_run_is_not_written_over_and_more_cells_may_be_asked_of_it(tmp_path: Path) -> None:
    path = write(tmp_path / "run", [record(0)], plan(1))
    with pytest.raises(UsageError, match="it holds a run of 1 finished cells; go on with it by --resume"):
        write(path, [], plan(1))
    write(path, [record(1)], plan(2), resume=True)
    assert len(ledger.read(path).entries) == 2


def test_bad_input_is_asked_again_and_what_was_not_asked_is_not_written(tmp_path: Path) -> None:
    bad = record(0, "unknown", bad_input=["x.png: no such picture"])
    path = write(tmp_path / "run", [bad, record(1, "unknown", asked=False), record(2)], plan(3))
    assert len(ledger.read(path).entries) == 2
    with folder.open_run(path, plan(3), resume=True) as run:
        assert list(run.held) == [planned(2)["id"]]


def test_two_runs_in_one_folder(tmp_path: Path) -> None:
    with folder.open_run(tmp_path, plan(1)), pytest.raises(UsageError, match=f"process {os.getpid()} writes it now"):
        write(tmp_path, [], plan(1), resume=True)
    write(tmp_path, [record(0)], plan(1), resume=True)


@pytest.mark.parametrize("place", ["/proc/night", "file/night"])
def test_a_folder_that_cannot_be_written_is_said_before_the_run(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"--run-dir .*night: cannot be written: .*; name another folder"):
        write(tmp_path / place, [], plan(1))


def test_too_little_room_is_said_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: _Usage)
    with pytest.raises(UsageError, match="1 MiB are free on its disk, 5 cells may take 12 MiB"):
        write(tmp_path / "run", [], plan(5))


class _Usage:
    free = 1 << 20


FULL = """
import resource, sys
from pathlib import Path
from parity.errors import ParityError
from parity.runs import folder, ledger
from tests.runs.records import plan, record
with folder.open_run(Path(sys.argv[1]), plan(9)) as run:
    run.add(record(0))
    size = (Path(sys.argv[1]) / ledger.NAME).stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, size + 100))  # the next line fits by a part
    try:
        run.add(record(1))
    except ParityError as error:
        print(error)
"""


def test_a_disk_that_fills_up_leaves_no_half_line_and_one_message(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", FULL, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert "cannot be written: File too large; 1 finished cells are kept in it; make room" in done.stdout
    assert done.stderr == ""
    found = ledger.read(tmp_path / "run")
    assert (len(found.entries), found.skipped) == (1, ())


def test_no_space_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with folder.open_run(tmp_path, plan(2)) as run:
        run.add(record(0))
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(ParityError, match="No space left on device; 1 finished cells are kept"):
            run.add(record(1))
    assert len(ledger.read(tmp_path).entries) == 1


def test_damaged_and_missing_pictures(tmp_path: Path) -> None:
    path = write(tmp_path, [record(0)], plan(1))
    (entry,) = ledger.read(path).entries
    digests = entry.record["pictures"]
    (path / "pictures" / f"{digests['candidate']}.png").unlink()
    found = folder.filled(path, entry)
    assert set(found["pictures"]) == {"reference"}
    assert found["remarks"] == ["its picture (candidate) is no longer in the run's folder"]
    (path / "pictures" / f"{digests['reference']}.png").write_bytes(b"other")
    with pytest.raises(FormatError, match="its content is not what its name says"):
        folder.filled(path, entry)
