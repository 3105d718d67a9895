"""Run coremltools' own tests: ``python -m parity.coreml.conformance [GROUP …] [-n WORKERS] [-- PYTEST OPTIONS]``."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from parity import tables
from parity.errors import MissingError, ParityError, UsageError

_HERE = Path(__file__).parent


def groups() -> dict[str, dict[str, list[str]]]:
    """Return the groups of ``groups.toml``: name to ``tests`` and ``without``."""
    return tables.read(_HERE / "groups.toml")["groups"]


def root() -> Path:
    """Return the folder of coremltools.

    Raises
    ------
    MissingError
        coremltools is not installed.
    """
    spec = importlib.util.find_spec("coremltools")
    if spec is None or not spec.submodule_search_locations:
        raise MissingError("coremltools is not installed; its wheel holds the tests: pip install coremltools")
    return Path(spec.submodule_search_locations[0])


def selection(names: Sequence[str]) -> list[str]:
    """Return pytest arguments (absolute paths or node ids) for the named groups, in order and without repetition.

    Raises
    ------
    UsageError
        A group is unknown.
    MissingError
        One of the files is not in this coremltools.
    """
    known = groups()
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"unknown group {unknown[0]!r}; known groups: {', '.join(known)}")
    chosen = dict.fromkeys(test for name in names for test in known[name]["tests"])
    tests = [str(root() / test) for test in chosen if "::" not in test or test.partition("::")[0] not in chosen]
    for test in tests:
        if not Path(test.partition("::")[0]).exists():
            raise MissingError(f"{test}: not in this coremltools; groups.toml was written for coremltools 9.0")
    return tests


def left_out(names: Sequence[str]) -> list[str]:
    """Return prefixes of node ids that a group leaves out and no other of the named groups runs."""
    known = groups()
    run = {test for name in names for test in known[name]["tests"]}
    return [each for name in names for each in known[name].get("without", ()) if each not in run]


def main(argv: Sequence[str]) -> int:
    """Run pytest on the chosen groups and return its exit code."""
    cut = list(argv).index("--") if "--" in argv else len(argv)
    extra = list(argv[cut + 1 :])
    parser = argparse.ArgumentParser(prog="python -m parity.coreml.conformance", description=__doc__)
    parser.add_argument("groups", nargs="*", help="groups of groups.toml; all but 'quick' by default")
    parser.add_argument("-n", "--workers", type=int, default=0, help="processes (needs pytest-xdist); 0: this one")
    parser.add_argument("--sample", type=int, default=1, metavar="N", help="run one test of N, chosen by its name")
    parser.add_argument("--part", type=int, default=0, metavar="K", help="which of the N samples, 0 to N - 1")
    parser.add_argument("--totals", type=Path, help="write the counts by file as JSON")
    options = parser.parse_args(argv[:cut])
    if not 0 <= options.part < options.sample:
        raise UsageError(f"--part {options.part}: with --sample {options.sample} parts are 0 to {options.sample - 1}")
    chosen = options.groups or [name for name in groups() if name != "quick"]
    tests = selection(chosen)
    covered = [
        test
        for name in chosen
        if name != "quick" and not extra and options.sample == 1
        for test in groups()[name]["tests"]
    ]
    import pytest

    return int(
        pytest.main(
            [
                *("-c", str(_HERE / "pytest.ini"), "--rootdir", str(root().parent)),
                *("-p", "parity.coreml.conformance.plugin", "-p", "no:parity", "-p", "no:cacheprovider"),
                *("-q", "--no-header", "--tb=short"),
                *(("-n", str(options.workers)) if options.workers else ()),
                *(f"--covered={each}" for each in covered),
                f"--sample={options.sample}",
                f"--part={options.part}",
                *(("--totals", str(options.totals)) if options.totals else ()),
                *(f"--deselect=coremltools/{each}" for each in left_out(chosen)),
                *tests,
                *extra,
            ]
        )
    )


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except ParityError as error:
        raise SystemExit(f"parity: {error}") from None
