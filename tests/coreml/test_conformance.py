"""The harness for coremltools' own tests, and the selection of them that always runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from parity.coreml.conformance.__main__ import groups, left_out, main, selection
from parity.coreml.conformance.expected import KINDS, Expectation, Expected, load_expected
from parity.coreml.conformance.tally import NEEDED, PREDICTIONS, Tally, share
from parity.errors import MissingError, UsageError


@pytest.mark.long
@pytest.mark.parametrize(
    ("options", "predicting"), [(["--sample", "5"], 25), pytest.param([], 150, marks=pytest.mark.slow)]
)
def test_a_selection_of_coremltools_tests_passes(tmp_path, options, predicting):
    totals = tmp_path / "totals.json"
    result = subprocess.run(
        [sys.executable, "-m", "parity.coreml.conformance", "quick", *options, "--totals", str(totals)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stdout[-3000:]
    counts = json.loads(totals.read_text())["total"]
    assert counts["predicting"] >= predicting
    assert counts.get("failed", 0) == 0
    assert counts.get("runtime", 0) == 0


class TestExpected:
    def test_the_shipped_list_is_well_formed_and_specific(self):
        entries = load_expected().entries
        assert len({entry.tests for entry in entries}) == len(entries)
        for entry in entries:
            path, _, name = entry.tests.partition("::")
            assert path.endswith(".py"), entry.tests
            assert name, entry.tests
            assert entry.kind in KINDS
            assert len(entry.reason) > 20, entry.tests

    def test_patterns_match_ids_with_brackets(self):
        expected = Expected((Expectation("a/test_b.py::TestC::test_d[*-fp16-?]", "runtime", "because"),))
        assert expected.match("lib/coremltools/a/test_b.py::TestC::test_d[x-fp16-2]")
        assert not expected.match("lib/coremltools/a/test_b.py::TestC::test_d[x-fp32-2]")
        assert not expected.match("lib/coremltools/a/test_b.py::TestC::test_dd")


def _report(
    name: str, outcome: str, *, when: str = "call", xfail: bool = False, needed: float = 0.0
) -> pytest.TestReport:
    report = pytest.TestReport(f"coremltools/{name}", ("", 0, ""), {}, outcome, None, when)
    report.user_properties = [(PREDICTIONS, 1), (NEEDED, needed)]
    if xfail:
        report.wasxfail = "reason"
    return report


class TestTally:
    ENTRIES = (
        Expectation("a.py::one", "runtime", "…"),
        Expectation("a.py::two", "scope", "…"),
        Expectation("b.py::three", "runtime", "…"),
        Expectation("a.py::four", "half", "…"),
        Expectation("a.py::nine", "half", "…"),
    )

    def tally(self) -> Tally:
        tally = Tally(Expected(self.ENTRIES), covered=["a.py"])
        for report in (
            _report("a.py::one", "skipped", xfail=True),
            _report("a.py::two", "passed", xfail=True),
            _report("a.py::four", "passed", needed=1e-3),
            _report("a.py::nine", "passed"),
            _report("a.py::five", "failed"),
            _report("a.py::six", "skipped"),
            _report("a.py::seven", "skipped", xfail=True),
            _report("a.py::eight", "failed", when="setup"),
        ):
            tally.pytest_runtest_logreport(report)
        return tally

    def test_counts_outcomes_by_file(self):
        counts = self.tally().by_file()["a.py"]
        assert counts == Counter(passed=3, predicting=3, half=1, failed=2, runtime=1, skipped=1, upstream=1)
        assert share(counts) == pytest.approx(3 / 6)
        assert share(Counter()) == 0

    def test_reports_entries_that_no_longer_fail_where_everything_ran(self):
        assert [entry.tests for entry in self.tally().stale()] == ["a.py::two", "a.py::nine"]  # b.py was not covered

    def test_a_failing_teardown_outweighs_a_passed_call(self):
        tally = Tally(Expected(()))
        for report in (_report("a.py::one", "passed"), _report("a.py::one", "failed", when="teardown")):
            tally.pytest_runtest_logreport(report)
        assert tally.by_file()["a.py"]["failed"] == 1


class TestSelection:
    def test_every_group_names_existing_tests(self):
        for name in groups():
            assert selection([name])

    def test_what_one_group_leaves_out_another_runs(self):
        assert left_out(["torch"]) == groups()["transforms"]["tests"]
        assert left_out(["torch", "transforms"]) == []
        assert selection(["torch", "transforms"]) == selection(["torch"])

    def test_unknown_group(self):
        with pytest.raises(UsageError, match="unknown group 'all'; known groups: quick, operators"):
            main(["all"])

    def test_missing_file(self, monkeypatch):
        monkeypatch.setattr(
            "parity.coreml.conformance.__main__.groups", lambda: {"one": {"tests": ["no/such_test.py"]}}
        )
        with pytest.raises(MissingError, match="written for coremltools"):
            selection(["one"])
