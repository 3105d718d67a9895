"""Nothing is green by absence."""

from __future__ import annotations

import pytest

from parity.suite.verdict import Verdict, combine

P, F, U = Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [([], U), ([P], P), ([P, P], P), ([P, U], U), ([U], U), ([P, F], F), ([U, F], F), ([F, F], F)],
)
def test_combination(verdicts: list[Verdict], expected: Verdict) -> None:
    assert combine(verdicts) is expected
    assert combine(reversed(verdicts)) is expected
