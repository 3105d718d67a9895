"""Runs of machines and workers become one, or are refused with what differs and where."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from parity import cli
from parity.errors import UsageError
from parity.runs import folder, ledger
from parity.runs.merge import merge
from parity.runs.result import result
from tests.commands.printed import checked
from tests.runs.records import QUESTION, plan, planned, record, write

MACHINES = ("Apple M1", "Apple M2", "Apple M4")


@pytest.fixture
def nights(tmp_path: Path) -> list[Path]:
    """Three machines with three cells each; the second one lost an answer, on the third one a cell fails."""
    told = ["pass", "pass", "fail"]
    folders = []
    for place, machine in enumerate(MACHINES):
        records = [record(number, told[number] if place == 2 else "pass") for number in range(3)]
        folders.append(write(tmp_path / machine[-2:], records[: 2 if place == 1 else 3], plan(3, machine)))
    return folders


def test_three_machines_are_one_report(
    nights: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    assert cli.main(["merge", *map(str, nights), "-o", str(tmp_path / "all")]) == 0
    said = capsys.readouterr().out
    assert "8 cells of 3 runs on Apple M1, Apple M2, Apple M4" in said
    assert "1 planned cells have no answer and are unknown" in said
    assert cli.main(["merge", *map(str, nights), "-o", str(tmp_path / "again"), "--json"]) == 0
    told = checked(capsys.readouterr().out, "merge")
    assert (told["answers"], told["twice"], told["missing"]) == (8, 0, 1)
    assert (told["machines"], told["verdicts"]) == (list(MACHINES), {"pass": 7, "fail": 1, "unknown": 1})
    found = result(ledger.read(tmp_path / "all"))
    verdicts = [(record["machine"], record["verdict"]) for record in found.records]
    assert verdicts.count(("Apple M2", "unknown")) == 1
    assert verdicts.count(("Apple M4", "fail")) == 1
    out, summary = tmp_path / "page", tmp_path / "summary.md"
    assert cli.main(["report", str(tmp_path / "all"), "-o", str(out), "--summary", str(summary)]) == 1
    captured = capsys.readouterr()
    assert "7 pass, 1 fail, 1 unknown" in captured.out
    assert "missing: 1 of 9 planned cells have no answer" in captured.err
    page = (out / "index.html").read_text()
    assert all(f"tiny-sd draws case-0, on {machine}" in page for machine in MACHINES)
    document = json.loads((out / "report.json").read_text())
    assert set(document["environment"]) == set(MACHINES)
    assert document["conclusion"]["exit_code"] == 1
    text = summary.read_text()
    assert text.startswith("## parity: 1 fail, 1 unknown, 7 pass\n")
    assert "| Apple M2 | 2 | 0 | 1 | 1 |" in text
    assert "| case-2 | reference runtime (declared), Apple M4 | image image_psnr |" in text
    assert "- 1 x not asked: planned on Apple M2" in text


def test_names_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Brackets are no styles, colons no pictures, signs no tags and no columns."""
    names = ["[/b]", ":smile:", "<i>|"]
    folders = [write(tmp_path / str(place), [record(0)], plan(1, name)) for place, name in enumerate(names)]
    merge(folders, tmp_path / "all")
    summary = tmp_path / "summary.md"
    assert cli.main(["report", str(tmp_path / "all"), "-o", str(tmp_path / "page"), "--summary", str(summary)]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in names)
    assert "<i>" not in (tmp_path / "page" / "index.html").read_text()
    assert "| &lt;i>\\| | 1 | 0 | 0 | 0 |" in summary.read_text()


def test_a_run_is_reported_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "run", [record(0), record(1)], plan(2))
    assert cli.main(["report", str(path), "-o", str(tmp_path / "page")]) == 0
    assert "2 pass, 0 fail, 0 unknown" in capsys.readouterr().out
    document = json.loads((tmp_path / "page" / "report.json").read_text())
    digests = [
        {role: hashlib.sha256(base64.b64decode(text)).hexdigest() for role, text in record(number)["pictures"].items()}
        for number in (0, 1)
    ]
    expected = [{**record(number), "machine": "Apple M2", "pictures": digests[number]} for number in (0, 1)]
    assert document["records"] == expected
    assert document["environment"]["chip"]


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (plan(2, question={**QUESTION, "weights unet": "dddd"}), "weights unet aaaa in .*/a, dddd in .*/b"),
        (plan(2, question={**QUESTION, "model": "other"}), "model tiny-sd in .*/a, other in .*/b"),
        (plan(2, question={**QUESTION, "package unet.mlpackage": "x"}), "package unet.mlpackage bbbb in .*, x in "),
        (folder.Plan(QUESTION, [planned(0, digest="z")], "m"), "candidate/case-0/coreml:reference has other settings"),
    ],
)
def test_other_digests_and_suites_are_refused_with_both_names(tmp_path: Path, other: folder.Plan, says: str) -> None:
    folders = [write(tmp_path / "a", [record(0)], plan(2)), write(tmp_path / "b", [record(0)], other)]
    with pytest.raises(UsageError, match=f"/a and .*/b cannot be merged: .*{says}"):
        merge(folders, tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_another_version_of_the_project_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write(tmp_path / "a", [record(0)], plan(1))
    monkeypatch.setattr(folder, "__version__", "7.0")
    second = write(tmp_path / "b", [record(0)], plan(1))
    with pytest.raises(UsageError, match=r"parity \S+ in .*/a, 7.0 in .*/b"):
        merge([first, second], tmp_path / "all")


def test_of_two_answers_for_one_machine_the_worse_is_kept(tmp_path: Path) -> None:
    folders = [
        write(tmp_path / "a", [record(0, "pass"), record(1, "fail")], plan(2)),
        write(tmp_path / "b", [record(0, "fail"), record(1, "pass")], plan(2)),
    ]
    merged = merge(folders, tmp_path / "all")
    assert merged.twice == 2
    assert [entry.record["verdict"] for entry in ledger.read(tmp_path / "all").entries] == ["fail", "fail"]


def test_workers_that_shared_the_cells_and_a_merge_of_merges(tmp_path: Path) -> None:
    folders = [
        write(tmp_path / str(first), [record(first), record(first + 1)], plan(2, first=first)) for first in (0, 2, 4, 6)
    ]
    merge(folders[:2], tmp_path / "left")
    merge(folders[2:], tmp_path / "right")
    merge([tmp_path / "left", tmp_path / "right"], tmp_path / "tree")
    merge(folders, tmp_path / "flat")
    tree, flat = (result(ledger.read(tmp_path / name)).records for name in ("tree", "flat"))
    assert tree == flat
    assert [entry["case"] for entry in flat] == [f"case-{number}" for number in range(8)]
    assert all(entry["pictures"] for entry in flat)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["merge", "a", "-o", "all"], "a alone: two runs or more are needed"),
        (["merge", "a", "none", "-o", "all"], "none: no such folder"),
        (["merge", "a", "empty", "-o", "all"], "empty: no ledger.jsonl in it"),
        (["merge", "a", "a", "-o", "empty"], "-o empty: it exists; name a new folder"),
        (["merge", "a", "a", "-o", "a/ledger.jsonl/x"], "-o a/ledger.jsonl/x: cannot be written"),
        (["report", "none"], "none: no such folder"),
        (["report"], "a run's folder is needed"),
    ],
)
def test_bad_input(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("a"), [record(0)], plan(1))
    Path("empty").mkdir()
    assert cli.main(arguments) == 2
    assert says in capsys.readouterr().err


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", "--schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert set(schema["$defs"]) >= {"Session", "Cell", "Record", "Check", "Planned", "Provenance"}


def test_a_thousand_records_of_three_machines_merge_in_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda file: None)
    folders = [
        write(tmp_path / machine, [record(number) for number in range(334)], plan(334, machine)) for machine in MACHINES
    ]
    monkeypatch.undo()
    begun = time.process_time()
    merge(folders, tmp_path / "all")
    assert time.process_time() - begun < 2  # 0.5 s on a quiet machine
    assert len(ledger.read(tmp_path / "all").entries) == 1002
