"""A cell that ends its process, or never ends, costs itself alone; the others keep their models."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from parity.suite import options as suite_options
from parity.suite import plan
from parity.suite.isolated import IsolatedRun, encoded
from parity.suite.options import Options
from parity.suite.run import Record, conclude

WORKER = """
import ctypes, os, signal, sys, time
from parity.errors import MissingError
from parity.suite import worker
from parity.suite.comparison import Check
from parity.suite.evaluate import Evaluator
from parity.suite.outcome import Outcome
from parity.suite.verdict import Verdict

asked = 0

def evaluate(self, cell):
    global asked
    asked += 1
    name = cell.case.name
    print(f"words of a library about {name}", flush=True)
    self.progress(f"drawing {name}")
    if name == "segv":
        ctypes.string_at(0)
    if name == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "exit":
        os._exit(7)
    if name == "hang":
        time.sleep(60)
    if name == "bad":
        raise MissingError("none.png: no such picture")
    check = Check("image", f"{os.getpid()} {asked}", "", float("nan"), float("nan"), Verdict.PASS, "")
    return Outcome(cell, (check,), {}, "")

Evaluator.evaluate = evaluate
sys.exit(worker.main())
"""
SCHEDULERS = ("euler", "ddim", "pndm", "dpm++")


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., list[Record]]:
    """Return ``ask(*names, **options)``: records of cases to which happens what their names say."""

    def asked(*names: str, **given: object) -> list[Record]:
        entry = '[[case]]\nname = "{}"\ntask = "txt2img"\nprompt = "a ring"\nscheduler = "{}"\nsteps = 2\n'
        cases = tmp_path / "cases.toml"
        cases.write_text("".join(entry.format(*pair) for pair in zip(names, SCHEDULERS, strict=False)))
        options = Options("tiny-sd", cases=cases, coreml_runtime="reference", compatibility="none", **given)  # type: ignore[arg-type]
        (tmp_path / "worker.py").write_text(WORKER)
        said: list[str] = []
        run = IsolatedRun(options, said.append, worker=(sys.executable, str(tmp_path / "worker.py")))
        records = run.ask_all(plan.cells(options))
        run.close()
        assert said == [f"drawing {name}" for name in names]
        assert conclude(records, options).code == int(any(record["verdict"] == "fail" for record in records)) or (
            "bad" in names
        )
        return records

    return asked


@pytest.mark.long
def test_a_signal_is_a_record_with_the_last_lines_and_the_rest_goes_on(ask: Callable[..., list[Record]]) -> None:
    records = ask("first", "segv", "kill", "last")
    assert [record["verdict"] for record in records] == ["pass", "fail", "fail", "pass"]
    assert [record["checks"][0]["where"] for record in records[1:3]] == ["SIGSEGV", "SIGKILL"]
    text = records[1]["explanation"]
    assert "its process ended (SIGSEGV) after" in text
    assert "| Fatal Python error: Segmentation fault" in text
    assert "| words of a library about kill" in records[2]["explanation"]
    assert "reproduce: parity run" in text
    first, last = (record["checks"][0]["where"].split()[0] for record in (records[0], records[3]))
    assert first != last != str(os.getpid())


@pytest.mark.long
def test_a_time_limit_is_a_record_and_the_rest_goes_on(ask: Callable[..., list[Record]]) -> None:
    records = ask("first", "hang", "exit", "bad", cell_timeout=3)
    assert [record["verdict"] for record in records] == ["pass", "fail", "fail", "unknown"]
    assert "out of time" in records[1]["checks"][0]["where"]
    assert "it did not finish in 3 s; its process was ended" in records[1]["explanation"]
    assert records[2]["checks"][0]["where"] == "exit code 7"
    assert records[3]["bad_input"] == ["not compared: none.png: no such picture"]


@pytest.mark.long
@pytest.mark.parametrize(("each", "processes"), [(None, [1, 1, 1]), (2, [1, 1, 2])])
def test_a_process_serves_as_many_cells_as_it_may(
    ask: Callable[..., list[Record]], each: int | None, processes: list[int]
) -> None:
    where = [record["checks"][0]["where"].split()[0] for record in ask("a", "b", "c", cells_per_process=each)]
    seen = list(dict.fromkeys(where))
    assert [seen.index(process) + 1 for process in where] == processes


def test_a_process_that_cannot_begin_fails_its_cells_with_the_reason() -> None:
    options = Options("tiny-sd", coreml_runtime="reference")
    run = IsolatedRun(options, worker=(sys.executable, "-c", "import a_package_that_is_not_there"))
    record = run.ask(plan.cells(options)[0])
    assert record["verdict"] == "fail"
    assert "| ModuleNotFoundError: No module named 'a_package_that_is_not_there'" in record["explanation"]


def test_options_reach_the_other_process_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "t.toml").touch()
    given = Options(
        "tiny-sd",
        tolerances=tmp_path / "t.toml",
        backend=("coreml:reference",),
        seed=5,
        parity_strict=True,
        isolate=True,
    )
    assert suite_options.read(encoded(given)) == given
