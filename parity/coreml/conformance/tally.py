"""How many of coremltools' tests passed, by file, and is the list of expected failures still true?

The books are kept where pytest's reports arrive: in the only process, or in pytest-xdist's controller. Of the tests
that ran, four numbers matter: *passed*, *predicting* (those of the passed that executed a program; the others check
conversion only), *half* (those of kind "half" that passed within the tolerance of float16 alone) and the share of ML
Program cases that pass::

    passed / (passed + failed + expected failures of kind "runtime")

Expected failures of the other kinds are no ML Program cases or cannot pass off macOS for a stated reason, and failures
that coremltools itself marks as expected say nothing about this runtime.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from parity.coreml.conformance.expected import HALF, KINDS, Expectation, Expected
from parity.files import replacing

PREDICTIONS, NEEDED = "parity_predictions", "parity_needed"
"""User properties of a report: how many predictions a test made; the tolerance that a test of kind "half" needed, 0
where its own sufficed."""

PASSED, FAILED, SKIPPED, THEIRS = "passed", "failed", "skipped", "upstream"


def share(counts: Counter[str]) -> float:
    """Return the share of ML Program cases that pass, 0 to 1; 0 when there are none."""
    cases = counts[PASSED] + counts[FAILED] + counts["runtime"]
    return counts[PASSED] / cases if cases else 0.0


class Tally:
    """A pytest plugin that counts outcomes and prints them.

    Parameters
    ----------
    expected : Expected
        The list of expected failures.
    covered : list of str
        Paths or node ids of which all tests were selected: entries there without a failing test are an error.
    totals : path, optional
        Write the counts there as JSON.
    """

    def __init__(self, expected: Expected, *, covered: Sequence[str] = (), totals: str | None = None) -> None:
        self.expected = expected
        self.covered = tuple(covered)
        self.totals = totals
        self.outcomes: dict[str, tuple[str, int]] = {}  # test -> (outcome, predictions)
        self.confirmed: set[Expectation] = set()
        self.needed: dict[str, float] = {}  # test of kind "half" -> tolerance

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the outcome of a test; a failure in set-up or tear-down outweighs a passed call."""
        if report.when != "call" and report.outcome == "passed":
            return
        entry = self.expected.match(report.nodeid)
        expected_to_fail = hasattr(report, "wasxfail") and report.outcome == "skipped"
        if expected_to_fail:
            outcome = entry.kind if entry else THEIRS
        else:
            outcome = {"passed": PASSED, "failed": FAILED, "skipped": SKIPPED}[report.outcome]
        properties: dict[str, Any] = dict(report.user_properties)
        self.outcomes[report.nodeid] = (outcome, properties.get(PREDICTIONS, 0))
        if outcome == PASSED and properties.get(NEEDED):
            self.needed[report.nodeid] = properties[NEEDED]
        if entry and (outcome not in (PASSED, SKIPPED) or report.nodeid in self.needed):
            self.confirmed.add(entry)

    def stale(self) -> list[Expectation]:
        """Return the entries of the covered tests that no test confirmed."""
        return [
            entry
            for entry in self.expected.entries
            if entry not in self.confirmed and not entry.skip and entry.tests.startswith(self.covered)
        ]

    def by_file(self) -> dict[str, Counter[str]]:
        """Return the counts of each test file, path below ``coremltools/``."""
        files: dict[str, Counter[str]] = {}
        for nodeid, (outcome, predictions) in sorted(self.outcomes.items()):
            path = nodeid.partition("::")[0].rpartition("coremltools/")[2]
            counts = files.setdefault(path, Counter())
            counts[outcome] += 1
            counts["predicting"] += outcome == PASSED and predictions > 0
            counts["half"] += nodeid in self.needed
        return files

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a run whose list of expected failures is out of date."""
        if self.stale() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print counts by file, the share that passes, and entries that are out of date."""
        files = self.by_file()
        total: Counter[str] = sum(files.values(), Counter())
        columns = (PASSED, "predicting", FAILED, *KINDS, THEIRS, SKIPPED)
        terminalreporter.section("coremltools' own tests through the reference runtime")
        width = max((len(path) for path in files), default=4)
        terminalreporter.write_line(f"{'file':<{width}}" + "".join(f"{name:>11}" for name in columns))
        for path, counts in [*files.items(), ("total", total)]:
            terminalreporter.write_line(f"{path:<{width}}" + "".join(f"{counts[name] or '·':>11}" for name in columns))
        cases = total[PASSED] + total[FAILED] + total["runtime"]
        terminalreporter.write_line(
            f"{share(total):.2%} of ML Program cases pass ({total[PASSED]} of {cases}; "
            f"{total['predicting']} of the passed executed a program)"
        )
        if self.needed:
            terminalreporter.write_line(
                f"{len(self.needed)} of them within the tolerance of float16 only; "
                f"the largest that was needed is {max(self.needed.values()):.2e}, {HALF:g} are allowed"
            )
        for entry in self.stale():
            terminalreporter.write_line(f"expected.toml: no such test fails any more, or none exists: {entry.tests}")
        if self.totals:
            failed = sorted(name for name, (outcome, _) in self.outcomes.items() if outcome == FAILED)
            needed = {"tests": len(self.needed), "largest": max(self.needed.values(), default=0.0)}
            content = {"files": files, "total": total, "share": share(total), "failed": failed, "half": needed}
            with replacing(Path(self.totals)) as scratch:
                scratch.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
