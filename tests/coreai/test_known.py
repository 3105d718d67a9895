"""Every known disagreement is still there: its reproducer prints what the table says."""

from __future__ import annotations

import contextlib
import io
import json
import re
import runpy

import numpy as np
import pytest

from parity.coreai.oracle import known

pytestmark = [pytest.mark.coreai, pytest.mark.filterwarnings("ignore")]


def _printed(entry, path):
    """Run a reproducer, coremltools' over the reference runtime, and return what it prints."""
    from parity.coreml import shim

    path.write_text(entry.script())
    aside = io.StringIO()
    if entry.fault == "coremltools":
        shim.install()
    try:
        with contextlib.redirect_stdout(aside), contextlib.redirect_stderr(io.StringIO()):
            runpy.run_path(str(path))
    finally:
        if entry.fault == "coremltools":
            shim.uninstall()
    lines = dict(re.findall(r"^(torch|got) (\[.*\])$", aside.getvalue(), re.M))
    read = {key: json.loads(text.replace("nan", "NaN").replace("inf", "Infinity")) for key, text in lines.items()}
    return np.array(read["torch"], float), np.array(read["got"], float)


@pytest.mark.parametrize("entry", known.table(), ids=lambda entry: entry.name)
def test_reproducer(entry, tmp_path):
    right, got = _printed(entry, tmp_path / "reproducer.py")
    np.testing.assert_allclose(right, entry.right, rtol=2e-3 if "half" in entry.name else 1e-6)
    np.testing.assert_allclose(got, entry.got, rtol=1e-6)


def test_a_reproducer_runs_without_this_project():
    for entry in known.table():
        assert "parity" not in entry.script()


def test_names_are_unique_and_faults_known():
    names = [entry.name for entry in known.table()]
    assert len(set(names)) == len(names)
    assert {entry.fault for entry in known.table()} == {"coreai-torch", "core-ai", "coremltools"}
