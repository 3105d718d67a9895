"""No cell is lost, whatever happens in it, and what follows from a run is said with its reason."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from parity.errors import FormatError, MissingError, ParityError, UnsupportedError
from parity.report import table
from parity.suite import comparison, plan
from parity.suite.evaluate import Evaluator
from parity.suite.once import once
from parity.suite.options import Options
from parity.suite.outcome import Outcome, reproduce
from parity.suite.plan import Cell
from parity.suite.run import Conclusion, Record, Run, conclude
from parity.suite.tolerance import Tolerance

OPTIONS = Options(coreml_runtime="reference", compatibility="none")
NAMES = ("txt2img-pndm", "txt2img-ddim", "txt2img-euler", "txt2img-dpm++")
CELLS = [cell for cell in plan.cells(OPTIONS) if cell.kind == "candidate" and cell.case.name in NAMES and cell.units]


def passed(cell: Cell) -> Outcome:
    zeros = np.zeros(4, np.float32)
    bound = Tolerance("image", "max_abs", 1.0, measured="a test")
    checks = comparison.judge("image", {"image": (zeros, zeros)}, [bound], names=("a", "b"))
    return Outcome(cell, checks, {}, reproduce(OPTIONS, cell))


def run_with(monkeypatch: pytest.MonkeyPatch, happens: dict[str, BaseException]) -> list[Record]:
    """Ask the cells; at some cases something happens, the others pass."""

    def evaluate(self: Evaluator, cell: Cell) -> Outcome:
        if cell.case.name in happens:
            raise happens[cell.case.name]
        return passed(cell)

    monkeypatch.setattr(Evaluator, "evaluate", evaluate)
    records = Run(OPTIONS).ask_all(CELLS)
    assert [record["id"] for record in records] == [cell.id for cell in CELLS]
    json.dumps(records, allow_nan=False)
    return records


@pytest.mark.parametrize("error", [MissingError("a.png: no such picture"), UnsupportedError("x: an SDXL model")])
def test_what_cannot_be_asked_is_unknown_and_bad_input_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, error: ParityError
) -> None:
    records = run_with(monkeypatch, {"txt2img-ddim": error})
    assert [record["verdict"] for record in records] == ["pass", "unknown", "pass", "pass"]
    assert records[1]["bad_input"] == [f"not compared: {error}"]
    assert records[1]["reproduce"].endswith("--cell candidate/txt2img-ddim/coreml:reference")
    assert conclude(records, OPTIONS).code == 2
    assert conclude(records, OPTIONS).messages == ("bad input: 1 of 4 cells could not be compared as asked",)
    assert f"bad input (1): not compared: {error}" in table.render(records)


def test_what_nobody_foresaw_fails_its_cell_with_type_message_and_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate(self: Evaluator, cell: Cell) -> Outcome:
        if cell.case.name == "txt2img-euler":
            np.zeros(3).reshape(2)
        return passed(cell)

    monkeypatch.setattr(Evaluator, "evaluate", evaluate)
    records = Run(OPTIONS).ask_all(CELLS)
    assert [record["verdict"] for record in records] == ["pass", "pass", "fail", "pass"]
    text = records[2]["explanation"]
    assert "stopped by ValueError: cannot reshape array of size 3 into shape (2,)" in text
    assert "test_one_loop.py:" in text
    assert "in evaluate: np.zeros(3).reshape(2)" in text
    assert "reproduce: parity run" in text
    assert conclude(records, OPTIONS) == Conclusion(1)
    assert "stopped by ValueError" in table.render(records)


def test_a_crash_inside_the_package_names_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Evaluator, "_candidate", lambda self, cell: self.nothing)
    (record, *_) = Run(OPTIONS).ask_all(CELLS)
    assert "at parity/suite/evaluate.py:" in record["explanation"]
    assert "in evaluate: return decide" in record["explanation"]


def test_a_result_that_cannot_be_recorded_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate(self: Evaluator, cell: Cell) -> Outcome:
        pictures = {"candidate": np.zeros((1, 2), object)} if cell is CELLS[0] else {}
        return Outcome(cell, passed(cell).checks, {}, "", pictures)

    monkeypatch.setattr(Evaluator, "evaluate", evaluate)
    records = Run(OPTIONS).ask_all(CELLS)
    assert [record["verdict"] for record in records] == ["fail", "pass", "pass", "pass"]


def test_after_an_interruption_what_is_finished_stands_and_the_rest_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records = run_with(monkeypatch, {"txt2img-euler": KeyboardInterrupt()})
    assert [record["verdict"] for record in records] == ["pass", "pass", "unknown", "unknown"]
    assert [record["asked"] for record in records] == [True, True, False, False]
    assert conclude(records, OPTIONS) == Conclusion(130, ("interrupted: 2 of 4 cells were not asked",))
    shown = table.render(records, width=80)
    assert "unknown (2): not asked: the run was interrupted" in shown
    assert shown.count("txt2img") == 2  # rows for what was asked


def fake(verdict: str, kind: str = "candidate", **others: Any) -> Record:
    return {"verdict": verdict, "kind": kind, "bad_input": [], "asked": True, **others}


BAD = fake("unknown", bad_input=["x: damaged"])


@pytest.mark.parametrize(
    ("records", "code", "says"),
    [
        ([fake("pass"), fake("unknown")], 0, ""),
        ([fake("pass"), fake("fail")], 1, ""),
        ([fake("pass"), BAD], 2, "bad input: 1 of 2"),
        ([fake("fail"), BAD], 1, "bad input: 1 of 2"),  # a failure weighs more, and the message is still there
        ([fake("unknown"), fake("pass", "golden")], 1, r"no candidate was compared, 1 unknown; .* \(golden\) says"),
        ([fake("unknown"), fake("pass", "compatibility")], 1, "no candidate was compared, 1 unknown"),
        ([fake("pass", "golden")], 0, ""),  # nothing else was asked
        ([fake("unknown", "golden")], 1, "nothing was compared, 1 unknown"),
        ([fake("pass", "compatibility"), fake("unknown", "compatibility")], 0, ""),
        ([fake("fail"), fake("unknown", asked=False)], 130, "interrupted: 1 of 2"),
    ],
)
def test_what_follows_from_a_run(records: list[Record], code: int, says: str) -> None:
    conclusion = conclude(records, OPTIONS)
    assert conclusion.code == code
    assert bool(conclusion.messages) == bool(says)
    assert re.search(says, "; ".join(conclusion.messages))


def test_a_strict_run_lets_nothing_unknown_pass_and_accepting_goldens_is_no_failure() -> None:
    records = [fake("pass"), fake("unknown")]
    strict = conclude(records, Options(parity_strict=True))
    assert strict == Conclusion(1, ("1 of 2 cells are unknown, and the run is strict",))
    accepting = [fake("unknown", "golden"), fake("unknown")]
    assert conclude(accepting, Options(update_golden=True)) == Conclusion(0)


def test_what_failed_once_is_not_tried_again() -> None:
    class Holder:
        tries = 0

        @once
        def fails(self) -> int:
            self.tries += 1
            raise FormatError("it is damaged")

        @once
        def works(self) -> int:
            self.tries += 1
            return 93

    holder = Holder()
    for _ in range(3):
        with pytest.raises(FormatError, match="it is damaged"):
            _ = holder.fails
    assert holder.tries == 1
    assert (holder.works, holder.works, holder.tries) == (93, 93, 2)


def test_a_narrow_table_cuts_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = table.render(run_with(monkeypatch, {"txt2img-ddim": RuntimeError("x")}), width=80)
    rows = [line.rstrip() for line in shown.splitlines()]
    assert max(map(len, rows)) <= 80
    for word in ("numpy-legacy, 93", "(declared)", "RuntimeError", "txt2img-euler", "max_abs"):
        assert any(word in row for row in rows)
