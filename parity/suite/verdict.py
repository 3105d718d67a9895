"""Three values, because what was not compared is neither right nor wrong."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum


class Verdict(str, Enum):
    """What a comparison found.

    ``UNKNOWN`` stands for everything that was not compared: skipped, not available here, nothing to compare with. It is
    always counted and printed with its reason, and fails a strict run.
    """

    PASS = "pass"
    FAIL = "fail"
    UNKNOWN = "unknown"

    def __str__(self) -> str:
        return self.value


def combine(verdicts: Iterable[Verdict]) -> Verdict:
    """Return *fail* if anything failed, else *unknown* if anything is unknown or nothing was compared, else *pass*.

    >>> str(combine([Verdict.PASS, Verdict.UNKNOWN])), str(combine([]))
    ('unknown', 'unknown')
    """
    found = set(verdicts)
    if Verdict.FAIL in found:
        return Verdict.FAIL
    return Verdict.PASS if found == {Verdict.PASS} else Verdict.UNKNOWN
