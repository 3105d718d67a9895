"""What changed since an earlier run."""

from __future__ import annotations

import base64
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from parity import cli
from parity.runs import ledger
from parity.runs.since import changes
from tests.runs.records import QUESTION, picture, plan, record, write


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    return write(tmp_path / "earlier", [record(number) for number in range(3)], plan(3))


def test_nothing_changed(tmp_path: Path, earlier: Path) -> None:
    now = write(tmp_path / "now", [record(number) for number in range(3)], plan(3))
    assert changes(ledger.read(earlier), ledger.read(now)) == []


def test_verdicts_margins_pictures_and_times_of_a_cell_are_one_change(tmp_path: Path, earlier: Path) -> None:
    slower = {"candidate": 1.4, "reference": 0.5}
    pictures = {"reference": picture(100), "candidate": picture(77)}
    records = [record(0, "fail", -2.0, seconds=slower, pictures=pictures), record(1, margin=5.6), record(2, margin=5.4)]
    found = changes(ledger.read(earlier), ledger.read(write(tmp_path / "now", records, plan(3))))
    assert [(change.cell, change.worse) for change in found] == [(records[0]["id"], True), (records[1]["id"], False)]
    assert found[0].text == (
        "pass -> fail (image); image image_psnr: margin 5.00 dB -> -2.00 dB; the candidate draws another picture; "
        "candidate took 1.40 s, 1.00 s before"
    )


def test_versions_new_cells_and_lost_ones(tmp_path: Path, earlier: Path) -> None:
    wanted = plan(3, question={**QUESTION, "weights unet": "eeee"}, first=1)
    now = ledger.read(write(tmp_path / "now", [record(number) for number in range(1, 4)], wanted))
    found = {change.sentence: change.worse for change in changes(ledger.read(earlier), now)}
    assert found == {
        "candidate/case-0/coreml:reference on Apple M2: has no answer any more": True,
        "candidate/case-3/coreml:reference on Apple M2: is new": False,
        "Apple M2: weights unet aaaa -> eeee": False,
    }


def test_another_name_of_the_only_machine_is_no_other_machine(tmp_path: Path, earlier: Path) -> None:
    now = write(tmp_path / "now", [record(number) for number in range(3)], plan(3, "renamed"))
    assert changes(ledger.read(earlier), ledger.read(now)) == []


def test_one_cell_of_several_machines_is_compared_with_its_own(tmp_path: Path) -> None:
    from parity.runs.merge import merge

    for night, margin in (("a", 5.0), ("b", 3.0)):
        one = write(tmp_path / f"{night}1", [record(0, margin=5.0)], plan(1, "M1"))
        other = write(tmp_path / f"{night}2", [record(0, margin=margin)], plan(1, "M2"))
        merge([one, other], tmp_path / night)
    (change,) = changes(ledger.read(tmp_path / "a"), ledger.read(tmp_path / "b"))
    assert (change.machine, change.worse) == ("M2", True)


def test_it_is_said_on_the_terminal_the_page_and_in_the_summary(
    tmp_path: Path, earlier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [record(0, "fail", -2.0), record(1), record(2)]
    now = write(tmp_path / "now", records, plan(3))
    page, summary = tmp_path / "page", tmp_path / "summary.md"
    arguments = ["report", now, "--since", earlier, "-o", page, "--summary", summary]
    assert cli.main(list(map(str, arguments))) == 1
    assert f"since {earlier}" in capsys.readouterr().out
    said = "pass -> fail (image); image image_psnr: margin 5.00 dB -> -2.00 dB"
    assert f"- candidate/case-0/coreml:reference on Apple M2: {said}" in summary.read_text()
    assert said.replace(">", "&gt;") in (page / "index.html").read_text()
    assert cli.main(["report", str(now), "--since", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_a_change_is_said_with_its_cell() -> None:
    from parity.runs.since import Change

    change = Change("x", True, "cell", "M1")
    assert change.sentence == "cell on M1: x"
    assert dataclasses.replace(change, cell="").sentence == "x"


def test_one_level_of_one_pixel_is_seen(tmp_path: Path, earlier: Path) -> None:
    """Beside margins that hold: the picture is not the one of yesterday."""
    pixels = np.full((4, 4, 3), 100, np.uint8)
    pixels[2, 1, 0] += 1
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    other = {**record(1)["pictures"], "reference": base64.b64encode(buffer.getvalue()).decode()}
    records = [record(0), record(1, pictures=other), record(2)]
    (change,) = changes(ledger.read(earlier), ledger.read(write(tmp_path / "now", records, plan(3))))
    assert change.cell == records[1]["id"]
    assert change.text == "the reference draws another picture"
