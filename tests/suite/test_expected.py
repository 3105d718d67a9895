"""Failures that are known: excused until their day, strictly, and only where they are expected."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from parity.errors import FormatError, MissingError
from parity.suite import expected
from parity.suite.expected import Expected
from parity.suite.options import Options
from parity.suite.run import Conclusion, conclude

DAY = date(2026, 11, 26)
ENTRY = Expected("candidate/ring/*", "ada@example.org", "overflows on this unit", date(2026, 12, 31))


def record(*points: tuple[str, str], name: str = "candidate/ring/coreml:reference") -> dict[str, Any]:
    """Return a cell's record with checks of the given points and verdicts."""
    verdicts = [verdict for _, verdict in points]
    verdict = "fail" if "fail" in verdicts else "unknown" if "unknown" in verdicts else "pass"
    return {
        "id": name,
        "kind": "candidate",
        "sentence": "it draws",
        "verdict": verdict,
        "asked": True,
        "bad_input": [],
        "expected": "",
        "decisive": 0,
        "checks": [{"point": point, "verdict": said} for point, said in points],
        "explanation": "" if verdict == "pass" else "it draws\nimage: too far\n  reproduce: parity run",
        "reproduce": "parity run",
        "remarks": [],
    }


FAILING, PASSING = record(("image", "fail"), ("unet", "pass")), record(("image", "pass"))


def test_an_expected_failure_stays_a_failure_and_fails_no_run() -> None:
    found = expected.applied(FAILING, [ENTRY], DAY)
    assert found["verdict"] == "fail"
    assert found["expected"] == "until 2026-12-31, ada@example.org: overflows on this unit"
    assert found["remarks"] == [f"expected to fail {found['expected']}"]
    assert conclude([found, PASSING], Options()) == Conclusion(0)
    assert conclude([FAILING, PASSING], Options()).code == 1


def test_what_passes_though_it_is_expected_to_fail_fails() -> None:
    found = expected.applied(PASSING, [ENTRY], DAY)
    assert (found["verdict"], found["expected"]) == ("fail", "")
    assert "take the entry 'candidate/ring/*' out of the list" in found["explanation"]
    assert found["explanation"].endswith("reproduce: parity run")
    assert found["checks"][found["decisive"]]["point"] == "expected"
    assert conclude([found], Options()).code == 1


@pytest.mark.parametrize(("day", "excused"), [(date(2026, 12, 31), True), (date(2027, 1, 1), False)])
def test_an_entry_excuses_until_the_end_of_its_day(day: date, excused: bool) -> None:
    found = expected.applied(FAILING, [ENTRY], day)
    assert expected.excused(found) is excused
    assert ("has expired" in found["explanation"]) is not excused


@pytest.mark.parametrize(
    ("points", "excused"), [((), True), (("image",), True), (("unet", "image"), True), (("unet",), False)]
)
def test_only_the_points_of_an_entry_may_fail(points: tuple[str, ...], excused: bool) -> None:
    entry = Expected(ENTRY.cell, ENTRY.owner, ENTRY.reason, ENTRY.until, points)
    found = expected.applied(FAILING, [entry], DAY)
    assert (found["verdict"], expected.excused(found)) == ("fail", excused)


def test_what_fails_beyond_the_points_of_an_entry_fails_and_entries_add_up() -> None:
    both = record(("image", "fail"), ("unet", "fail"))
    image, unet = (Expected("*", "ada", "known", DAY, (point,)) for point in ("image", "unet"))
    assert not expected.excused(expected.applied(both, [image], DAY))
    assert expected.excused(expected.applied(both, [image, unet], DAY))


def test_unknown_and_other_cells_are_let_be() -> None:
    unknown = record(("image", "unknown"))
    assert expected.applied(unknown, [ENTRY], DAY) is unknown
    other = record(("image", "fail"), name="candidate/star/coreml:reference")
    assert expected.applied(other, [ENTRY], DAY) is other
    assert expected.unmatched([ENTRY], [other["id"]]) == [
        f"expected failure '{ENTRY.cell}' is about no cell of this run ({ENTRY})"
    ]
    assert expected.unmatched([ENTRY], [other["id"], FAILING["id"]]) == []


GOOD = 'cell = "golden/ring"\nowner = "ada"\nreason = "known"\nuntil = 2026-12-31\n'


def test_a_list_is_read(tmp_path: Path) -> None:
    path = tmp_path / "expected.toml"
    path.write_text(f'[[expected]]\n{GOOD}points = ["image"]\n[[expected]]\n{GOOD}')
    one = Expected("golden/ring", "ada", "known", date(2026, 12, 31))
    assert expected.load(path) == (Expected(one.cell, one.owner, one.reason, one.until, ("image",)), one)
    assert expected.load(None) == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[expected]]\n", "cell and owner and reason and until must be given"),
        (f"[[expected]]\n{GOOD}untill = 2026-12-31\n", "unknown key 'untill'; did you mean until"),
        ("[[expected]]\n" + GOOD.replace("2026-12-31", '"2026-12-31"'), "without quotes"),
        ("[[expected]]\n" + GOOD.replace("2026-12-31", "2026-12-31T00:00:00Z"), "a date such as"),
        ("[[expected]]\n" + GOOD.replace('"ada"', '" "'), "owner must be a text"),
        ("[[expected]]\n" + GOOD.replace('"known"', "3"), "reason must be a text"),
        (f'[[expected]]\n{GOOD}points = "image"\n', "points must be a list"),
        (f"[[expected]]\n{GOOD}points = []\n", "points must be a list"),
        (f"[[expect]]\n{GOOD}", "unknown 'expect'; did you mean expected"),
        (f"[expected]\n{GOOD}", "entries are tables"),
        ("expected = [3]\n", "a table is needed"),
        ("[[", "not a readable TOML file"),
    ],
)
def test_a_damaged_list_is_refused_with_its_entry(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "expected.toml"
    path.write_text(text)
    with pytest.raises(FormatError, match=says) as caught:
        expected.load(path)
    assert str(path) in str(caught.value)
    with pytest.raises(MissingError):
        expected.load(tmp_path / "none.toml")
