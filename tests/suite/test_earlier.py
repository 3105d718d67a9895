"""A check that passes with half of its earlier margin is a warning, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from parity.errors import FormatError, MissingError
from parity.suite import earlier


def record(margin: float | str, verdict: str = "pass", cell: str = "candidate/a/x") -> dict[str, Any]:
    check = {
        "point": "unet",
        "metric": "tensor_psnr",
        "margin": margin,
        "verdict": verdict,
        "shown": {"margin": f"{margin} dB"},
    }
    return {"id": cell, "checks": [check], "remarks": ["kept"], "warnings": []}


def margins(tmp_path: Path, *records: dict[str, Any]) -> earlier.Margins:
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"records": records}))
    return earlier.load(path)


@pytest.mark.parametrize(
    ("before", "now", "verdict", "warns"),
    [
        (8.0, 4.0, "pass", True),
        (8.0, 4.1, "pass", False),
        (8.0, 12.0, "pass", False),
        (8.0, -1.0, "fail", False),
        ("inf", 4.0, "pass", True),
        ("inf", "inf", "pass", False),
        (0.0, 0.0, "pass", False),
        ("nan", 4.0, "pass", False),
    ],
)
def test_what_warns(tmp_path: Path, before: float | str, now: float | str, verdict: str, warns: bool) -> None:
    found = earlier.warned(record(now, verdict), margins(tmp_path, record(before)))
    assert bool(found["warnings"]) is warns
    assert found["remarks"] == ["kept", *found["warnings"]]
    if warns:
        assert found["warnings"] == [
            (
                "warning: unet passes, and its margin has shrunk since the earlier run: "
                f"tensor_psnr {now} dB, was {before} dB"
            )
        ]


def test_other_cells_and_earlier_failures_are_no_measure(tmp_path: Path) -> None:
    other, failed = record(8.0, cell="candidate/b/x"), record(8.0, "fail")
    assert earlier.warned(record(1.0), margins(tmp_path, other, failed))["warnings"] == []
    assert earlier.load(None) == {}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"records": [{}]}'])
def test_what_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(FormatError, match=r"--earlier .*x\.json: the report\.json of a run is needed"):
        earlier.load(tmp_path / "x.json")
    with pytest.raises(MissingError, match="no such file"):
        earlier.load(tmp_path / "none.json")
