"""Many changes are told in few lines, and nothing that changed is left out without being counted."""

from __future__ import annotations

from parity.runs.since import Change
from parity.runs.telling import brief, counted, grouped, sentences

BEGAN = "since run 14; the last before is run 13; between them changed torch 2.12 -> 2.13"


def told(*changes: Change, most: int = 20) -> list[str]:
    return list(sentences(grouped(changes), most=most))


def test_what_may_be_the_cause_of_all_else_stands_first() -> None:
    changes = [Change("is new", False, "d", "M1"), Change("is unknown", True, "a", "M1"), Change("M1: torch", False)]
    assert told(*changes) == ["M1: torch", "a on M1: is unknown", "d on M1: is new"]
    assert [group.worse for group in grouped(changes)] == [False, True, False]


def test_runs_and_what_differs_between_them_are_said_once() -> None:
    changes = [Change("fails", True, cell, "M1", BEGAN) for cell in "abc"]
    changes += [Change("its margin fell", True, "a", "M1", BEGAN), Change("fails", True, "a", "M2", BEGAN)]
    assert told(*changes) == [
        f"on M1 {BEGAN}:",
        "  a: fails",
        "  b: fails",
        "  c: fails",
        "  a: its margin fell",
        f"a on M2: fails {BEGAN}",
    ]
    first = grouped(changes)[0]
    assert [(line.text, line.cells) for line in first.lines] == [
        ("fails", ("a", "b", "c")),
        ("its margin fell", ("a",)),
    ]


def test_what_is_beyond_is_counted() -> None:
    several = [Change("fails", True, str(number), "M1", BEGAN) for number in range(5)]
    assert told(*several, most=3)[-2:] == ["  2: fails", "  and 2 more"]
    alone = [Change("is flaky", True, str(number), "M1") for number in range(5)]
    assert told(*alone, most=3)[-2:] == ["2 on M1: is flaky", "and 2 more"]
    assert told() == []


def test_a_list_says_the_beginning_of_a_long_change() -> None:
    assert brief("a; b; c; d") == "a; b; and 2 more"
    assert brief("a; b; c") == "a; b; c"
    assert [counted(number, "run") for number in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]
