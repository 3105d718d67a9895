"""Nine in ten, of all that was asked, in a run that ended: what `make mutants` demands."""

from __future__ import annotations

import pytest

from tests.mutants import count, table

ROOM = "parity"  # mutmut's names begin as modules do, and are none


def lines(**statuses: int) -> list[str]:
    words = [word for word, times in statuses.items() for _ in range(times)]
    return [f"    {ROOM}.suite.verdict.x_combine__mutmut_{i}: {word.replace('_', ' ')}" for i, word in enumerate(words)]


@pytest.mark.parametrize(
    ("statuses", "enough"),
    [
        ({"killed": 9, "survived": 1}, True),
        ({"killed": 8, "timeout": 1, "survived": 1}, True),
        ({"killed": 8, "survived": 2}, False),
        ({"killed": 9, "no_tests": 2}, False),
        ({"killed": 9, "suspicious": 2}, False),
        ({"killed": 9, "skipped": 5, "survived": 1}, True),
        ({"killed": 99, "not_checked": 1}, False),
        ({}, False),
    ],
)
def test_what_is_enough(statuses: dict[str, int], enough: bool) -> None:
    assert table(count(lines(**statuses)))[1] is enough


def test_methods_and_files_are_told_apart() -> None:
    found = [
        f"{ROOM}.metrics.metric.xǁMetricǁpasses__mutmut_1: killed",
        f"{ROOM}.metrics.snr.x_snr__mutmut_2: survived",
    ]
    rows, _ = table(count(["Legend", *found]))
    assert rows[2:] == [
        "| `metrics/metric` | 1 | 1 |",
        "| `metrics/snr` | 1 | 0 |",
        "| together | 2 | 1 (50.0%) |",
    ]
