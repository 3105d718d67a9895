"""Which of coremltools' tests are expected to fail or judged otherwise, and why? Read from ``expected.toml``.

An entry names tests by a pattern over their id below ``coremltools/``, for example
``converters/mil/mil/ops/tests/iOS14/test_random.py::TestRandomNormal::*``. ``*`` and ``?`` mean what they mean in file
names; brackets stand for themselves, since ids of parametrised tests contain them.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

from parity import tables
from parity.errors import FormatError

KINDS = {
    "runtime": "an ML Program that the reference runtime computes differently",
    "scope": "not an ML Program: neural networks, other model types, pipelines",
    "platform": "needs macOS, Xcode or a device; or asserts how Apple's compiler prints or refuses something",
    "stack": "fails before anything is predicted: this release of coremltools with this torch, NumPy or scikit-learn",
    "half": "expects what half precision or unrounded operands gave, within float32 tolerance; judged within HALF else",
}
"""Kinds of entries. Only ``runtime`` ones count as failed ML Program cases; ``half`` ones have to pass."""

HALF = 4e-3
"""Relative and absolute tolerance of tests of kind ``half``: four units in the last place of float16 near 1.

For programs in float16 coremltools itself allows rtol 0.05 and atol 0.5.

These tests expect what NumPy or PyTorch computed in half precision, which rounds in other places than a program that
computes in float32 and rounds once; or what float32 gave for operands before they were rounded to float16, which the
program never sees. coremltools leaves these cases out unless INCLUDE_MIL_FP32_UNIT_TESTS is set.
"""


@dataclass(frozen=True, slots=True)
class Expectation:
    """One entry of ``expected.toml``.

    Attributes
    ----------
    tests : str
        Pattern over test ids.
    kind : str
        Key of :data:`KINDS`.
    reason : str
        Why the tests fail.
    skip : bool
        Do not even run them (they hang or take the process with them).
    strict : bool
        Every one of them fails: one that passes is reported as a failure, so that the list cannot go stale. False where
        a test's outcome depends on what the machine or its drawn numbers are; the reason says so.
    """

    tests: str
    kind: str
    reason: str
    skip: bool = False
    strict: bool = True


@dataclass(frozen=True)
class Expected:
    """All entries; :meth:`match` finds the first that applies to a test."""

    entries: tuple[Expectation, ...]

    @functools.cached_property
    def _patterns(self) -> tuple[re.Pattern[str], ...]:
        return tuple(
            re.compile(re.escape(e.tests).replace(r"\*", ".*").replace(r"\?", "."), re.DOTALL) for e in self.entries
        )

    def match(self, nodeid: str) -> Expectation | None:
        """Return the first entry whose pattern matches a pytest node id, or None."""
        path, colons, name = nodeid.partition("::")
        test = path.rpartition("coremltools/")[2] + colons + name
        for entry, pattern in zip(self.entries, self._patterns, strict=True):
            if pattern.fullmatch(test):
                return entry
        return None


@functools.cache
def load_expected() -> Expected:
    """Return the package's list of expected failures.

    Raises
    ------
    FormatError
        The list lacks a field, or names an unknown kind.
    """
    table = tables.read(Path(__file__).with_name("expected.toml"))
    entries = []
    for number, row in enumerate(table.get("case", []), 1):
        try:
            entry = Expectation(**row)
        except TypeError as error:
            raise FormatError(f"expected.toml: entry {number} needs tests, kind and reason ({error})") from error
        if entry.kind not in KINDS:
            raise FormatError(f"expected.toml: entry {number} has kind {entry.kind!r}; known are {', '.join(KINDS)}")
        entries.append(entry)
    return Expected(tuple(entries))
