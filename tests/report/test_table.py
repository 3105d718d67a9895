"""The table: at 80 columns, in a pipe, with and without colours."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest

from parity.report import table
from tests.runs.records import SETTINGS, record

LONG = "a-case-with-a-rather-long-name-of-more-than-forty-letters"


def cell(number: int, verdict: str = "pass", **changes: Any) -> dict[str, Any]:
    return record(number, verdict, settings={**SETTINGS, "seed": 93}, **changes)


def test_in_80_columns_each_cell_has_what_decides_in_one_line() -> None:
    records = [cell(0, "fail", margin=-3.0), cell(1, case=LONG, producer="swift==1.1.0")]
    lines = table.render(records, width=80).splitlines()
    assert lines[:3] == [
        "verdict  case                                      value       bound      margin",
        "fail     case-0                                 38.00 dB    41.00 dB    -3.00 dB",
        "         torch-cpu, 93; reference runtime (declared); image image_psnr",
    ]
    assert max(map(len, lines)) <= 80
    assert not any("\x1b" in line for line in lines)
    assert LONG in "".join(line.split("46.00")[0].strip() for line in lines[3:5])


def test_what_is_no_terminal_gets_one_line_a_cell_however_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    records = [cell(0), cell(1, case=LONG, backend="a backend with a name " * 8)]
    lines = table.render(records, width=table.columns()).splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [["verdict", "case"], ["pass", "case-0"], ["pass", LONG]]
    assert lines[2].endswith("5.00 dB")
    monkeypatch.setenv("COLUMNS", "100")
    assert table.columns() == 100


def test_what_a_later_release_says_of_a_check_moves_no_column() -> None:
    later = cell(0)
    later["checks"][0]["shown"]["half"] = "0.98 x"
    assert table.render([later], width=80) == table.render([cell(0)], width=80)
    assert table.render([later], width=200) == table.render([cell(0)], width=200)


def test_goldens_that_hold_are_one_line_whoever_accepted_them() -> None:
    times = ("2026-11-26T03:35:02Z", "2026-11-30T10:00:00Z", "2026-11-28T00:00:00Z")
    rest = {"author": "Ada", "reason": "looks right", "count": 1, "sentence": "compared with golden g"}
    about = [{"id": f"g/{number}", "time": time, **rest} for number, time in enumerate(times)]
    records = [cell(number, kind="golden", golden=golden) for number, golden in enumerate(about)]
    lines = table.render(records, width=200).splitlines()
    said = [line for line in lines if "golden" in line and "case-" not in line]
    assert said == [
        "goldens: 3 as Ada accepted, 2026-11-26 to 2026-11-30; the report (--parity-report DIR) says which and why"
    ]
    assert not any(line.startswith("note") for line in lines)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("variables", "colours"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"NO_COLOR": ""}, True)],
)
def test_colours_are_for_terminals_that_want_them(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], colours: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert not table.colored()  # what pytest captures is no terminal
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert table.colored() is colours
    assert ("\x1b" in table.render([cell(0)], width=80, color=table.colored())) is colours
