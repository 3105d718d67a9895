"""``parity calibrate -o TABLE``: measure how a model's own figures spread, and write bounds with their false alarms."""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from parity.commands import documents
from parity.errors import ParityError, UsageError
from parity.files import require_writable
from parity.suite import options as suite_options

if TYPE_CHECKING:
    from parity.commands.records_of_runs import Calibrated
    from parity.suite.calibration import Sample, Spread
    from parity.suite.options import Options

LEAST = 4  # figures for a bound, as parity.suite.calibration.LEAST; that imports NumPy and the suite
KERNELS = ("default", "avx2", "avx512")
_OPTIONS = ("model_version", "models", "compute_unit", "coreml_runtime", "backend", "device", "cases", "rng")
_RATE = 0.01


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options of a run that decide figures, and those of the calibration."""
    for option in suite_options.OPTIONS:
        if option.key in _OPTIONS:
            parser.add_argument(f"--{option.name}", dest=option.key, **option.arguments())
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, required=True, help="the table to be written")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="seeds of each case, from 1 on; default: 5")
    parser.add_argument("--repeats", type=int, default=1, metavar="N", help="how often each is asked; default: 1")
    parser.add_argument(
        "--kernels",
        action="append",
        default=[],
        metavar="NAME",
        help=f"repeatable: torch's kernels ({', '.join(KERNELS)}), each in a process of its own",
    )
    parser.add_argument("--false-alarms", type=float, default=_RATE, metavar="RATE", help="of one check; default: 0.01")
    parser.add_argument("--samples", metavar="FILE", type=Path, help="also keep the figures, a line of JSON each")
    documents.declare(parser, "the bounds")


def main(arguments: argparse.Namespace) -> int:
    """Measure and write the table; 0, or 2 for bad input."""
    given = {key: value for key, value in vars(arguments).items() if key in _OPTIONS}
    options = suite_options.read(given)
    _check(arguments)
    for option, file in (("-o", arguments.output), ("--samples", arguments.samples)):
        if file is not None:
            require_writable(file.parent, option)
    found: list[Sample] = []
    for kernels in arguments.kernels or [""]:
        for _ in range(arguments.repeats):
            found += _elsewhere(arguments, kernels) if kernels else _here(options, arguments.seeds)
    from parity.files import replacing
    from parity.suite import calibration

    spreads = calibration.spreads(found, arguments.false_alarms)
    if arguments.samples is not None:
        with replacing(arguments.samples) as scratch:
            scratch.write_text("".join(f"{calibration.line(sample)}\n" for sample in found), encoding="utf-8")
    with replacing(arguments.output) as scratch:
        scratch.write_text(_table(spreads, arguments, options.model_version), encoding="utf-8")
    if arguments.json:
        documents.write(_record(spreads, arguments, len(found)))
        return 0
    _print(spreads)
    print(f"table: {arguments.output}; use it with --tolerances {arguments.output}")
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if arguments.seeds < LEAST:
        raise UsageError(f"--seeds {arguments.seeds}: at least {LEAST} are needed for a bound")
    if arguments.repeats < 1:
        raise UsageError(f"--repeats {arguments.repeats}: at least 1 is needed")
    if not 0 < arguments.false_alarms < 0.5:
        raise UsageError(f"--false-alarms {arguments.false_alarms:g}: a rate between 0 and 0.5 is needed, e.g. 0.01")
    if unknown := [name for name in arguments.kernels if name not in KERNELS]:
        raise UsageError(f"--kernels {unknown[0]}: there are {', '.join(KERNELS)}")


def _here(options: Options, seeds: int) -> list[Sample]:
    from parity.suite.calibration import samples

    def progress(text: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{text}")

    try:
        return list(samples(options, range(1, seeds + 1), progress, absolute=True))
    finally:
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")


def _elsewhere(arguments: argparse.Namespace, kernels: str) -> list[Sample]:
    """Ask in another process, in which torch has other kernels: it chooses them once, when it is loaded."""
    from parity.suite.calibration import read

    with tempfile.TemporaryDirectory(prefix="parity-calibrate-") as folder:
        kept = Path(folder) / "samples"
        words = [sys.executable, "-m", "parity", "calibrate", "-o", str(Path(folder) / "table.toml")]
        words += ["--samples", str(kept), "--seeds", str(arguments.seeds), *_repeated(arguments)]
        run = subprocess.run(words, env={**os.environ, "ATEN_CPU_CAPABILITY": kernels}, capture_output=True, text=True)
        if run.returncode:
            raise ParityError(f"with kernels {kernels}: {run.stderr.strip() or f'exit code {run.returncode}'}")
        return read(kept)


def _repeated(arguments: argparse.Namespace) -> Sequence[str]:
    words: list[str] = []
    for option in suite_options.OPTIONS:
        value = getattr(arguments, option.key, None) if option.key in _OPTIONS else None
        for entry in value if isinstance(value, list) else [] if value is None else [value]:
            words += [f"--{option.name}", str(entry)]
    return words


def _table(spreads: Sequence[Spread], arguments: argparse.Namespace, model: str) -> str:
    """Return the table as TOML: the rows, and what could not be bounded as comments."""
    kernels = f", kernels {' and '.join(arguments.kernels)}" if arguments.kernels else ""
    lines = [
        f"# Written by parity calibrate: {Path(model).name}, {arguments.seeds} seeds x {arguments.repeats}{kernels}.",
        f"# Each bound is the one that the next figure fails with a rate of {arguments.false_alarms:g}.",
    ]
    for spread in spreads:
        if not math.isfinite(spread.bound):
            lines.append(f"\n# {spread.point}, {spread.metric}: no bound, {_why(spread)}")
            continue
        lines += [
            "",
            "[[tolerance]]",
            f'point = "{spread.point}"',
            f'metric = "{spread.metric}"',
            f'numerics = "{spread.numerics}"',
            f"bound = {spread.bound:.6g}",
            f'measured = "{_measured(spread)}"',
        ]
    return "\n".join(lines) + "\n"


def _why(spread: Spread) -> str:
    return f"{spread.count} figures, {LEAST} are needed" if spread.count < LEAST else "a figure is not finite"


def _measured(spread: Spread) -> str:
    ratio = "" if math.isnan(spread.rms) else f", at most {spread.rms:.2f} times half precision's error"
    return (
        f"{spread.worst:.6g} to {spread.best:.6g}, {spread.count} figures{ratio}; "
        f"{spread.left_out} of them fail the bound that the other seeds give"
    )


def _record(spreads: Sequence[Spread], arguments: argparse.Namespace, figures: int) -> Calibrated:
    from parity.commands.records_of_runs import Bound, Calibrated

    return Calibrated(
        str(arguments.output),
        None if arguments.samples is None else str(arguments.samples),
        arguments.seeds,
        arguments.repeats,
        tuple(arguments.kernels),
        arguments.false_alarms,
        figures,
        tuple(Bound(**asdict(spread)) for spread in spreads),
    )


def _print(spreads: Sequence[Spread]) -> None:
    print(f"{'point':<18}{'metric':<18}{'n':>4}{'worst':>12}{'best':>12}{'bound':>12}{'left out':>10}{'x half':>8}")
    for spread in spreads:
        ratio = "-" if math.isnan(spread.rms) else f"{spread.rms:.2f}"
        alarms = f"{spread.left_out}/{spread.count}"
        print(
            f"{spread.point:<18}{spread.metric:<18}{spread.count:>4}{spread.worst:>12.4g}{spread.best:>12.4g}"
            f"{spread.bound:>12.4g}{alarms:>10}{ratio:>8}"
        )
