"""``parity bench``: how long loading, a step and a picture take, and how much memory, beside what others published."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from parity.bench.protocol import NAMED, Protocol
from parity.commands import documents
from parity.errors import UsageError
from parity.suite import options as suite_options

if TYPE_CHECKING:
    from parity.bench.protocol import Measured
    from parity.mil.memory import Estimate

_COLUMN = 10  # columns of a number
_TAKEN = ("model-version", "models", "compute-unit", "coreml-runtime", "backend", "device", "cases")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options; those that name models and candidates are the ones of ``parity run``."""
    for option in suite_options.OPTIONS:
        if option.name in _TAKEN:
            parser.add_argument(f"--{option.name}", dest=option.key, **option.arguments())
    parser.add_argument("--protocol", choices=sorted(NAMED), help="steps and guidance as a published table has them")
    parser.add_argument("--steps", type=int, metavar="N", help="denoising steps; default: 20, or the protocol's")
    parser.add_argument("--repeats", type=int, metavar="N", help="runs of which the median counts; default: 3")
    parser.add_argument("--with-reference", action="store_true", help="measure PyTorch too")
    parser.add_argument(
        "--estimate", action="store_true", help="measure nothing: tell what memory programs and weights need"
    )
    parser.add_argument("--published", action="store_true", help="measure nothing: print what others published")
    documents.declare(parser, "all figures")


def main(arguments: argparse.Namespace) -> int:
    """Measure and print; 1 where a candidate could not be measured, 0 otherwise."""
    from parity.bench import published

    if arguments.published:
        if arguments.json:
            from parity.commands.records_of_runs import Published

            documents.write(Published(tuple(published.sources())))
        else:
            print("\n".join(published.lines()))
        return 0
    options = suite_options.read({name: value for name, value in vars(arguments).items() if name != "protocol"})
    if arguments.estimate:
        return _estimate(options, as_json=arguments.json)
    from parity.bench.measure import measure
    from parity.report import progress
    from parity.runs.machine import provenance

    protocol = _protocol(arguments)
    with progress.shown(0) as shown:
        found = list(measure(options, protocol, reference=arguments.with_reference, progress=shown.say))
    here = provenance()
    if arguments.json:
        from parity.commands.records_of_runs import Measured as Layout

        documents.write(Layout(protocol, here, tuple(one.record() for one in found)))
    else:
        print(
            f"{here.chip}, {here.system}; {protocol.steps} steps of {protocol.scheduler}, median of {protocol.repeats}"
        )
        for one in found:
            print("\n".join(_lines(one, protocol)))
        print("\n" + "\n".join(_baselines(arguments.protocol)))
    return int(any(one.problem for one in found))


def _baselines(protocol: str) -> list[str]:
    """Say what others published: all of a protocol that was asked for, otherwise where to find it."""
    from parity.bench import published

    if not protocol:
        return ["Of Apple hardware others published figures: parity bench --published"]
    return [
        *published.lines(protocol),
        "",
        "Compare like with like: the model, the size of the picture and the device decide.",
    ]


def _protocol(arguments: argparse.Namespace) -> Protocol:
    protocol = NAMED[arguments.protocol] if arguments.protocol else Protocol()
    for name in ("steps", "repeats"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name} {value}: at least 1 is needed")
        protocol = replace(protocol, **{name: value}) if value is not None else protocol
    return protocol


def _lines(one: Measured, protocol: Protocol) -> Iterator[str]:
    """Give a candidate's table, which fits 80 columns."""
    yield f"\n{one.numerics}"
    if one.problem:
        yield f"  not measured: {one.problem}"
        return
    titles = ("load", "again", "one call", "memory", "weights", "values")
    yield f"  {'component':<14}" + "".join(title.rjust(_COLUMN) for title in titles)
    for part in one.components:
        times = "".join(_seconds(value).rjust(_COLUMN) for value in (part.first, part.again, part.call))
        sizes = (part.memory, part.stored, part.alive)
        told = "".join((_bytes(size) if size else "-").rjust(_COLUMN) for size in sizes)
        yield f"  {part.name:<14}{times}{told}"
    spread = " to ".join(_seconds(value) for value in (min(one.pictures), max(one.pictures)))
    step, peak = _seconds(one.step), _bytes(one.memory)
    yield f"  a picture in {_seconds(one.picture)} ({spread}), a step in {step}, peak {peak}"


def _estimate(options: suite_options.Options, *, as_json: bool) -> int:
    from parity.bench.measure import estimated
    from parity.contracts.memory import LEFT_OUT, SUMS
    from parity.suite.stage import Stage

    found = estimated(Stage(options, lambda text: print(text, file=sys.stderr)), options)
    if as_json:
        from parity.commands.records_of_models import Size, Sizes

        documents.write(Sizes({name: Size(**asdict(own)) for name, own in found.items()}))
        return 0
    print(f"  {'component':<19}{'weights':>12}{'expanded':>12}{'values':>12}{'at least':>12}{'unpacked':>12}")
    for name, own in found.items():
        print(_row(name, own))
    if found:
        print(
            "  one at a time: "
            + " to ".join(_bytes(max(getattr(own, what) for own in found.values())) for what in ("least", "most"))
        )
        first, *others = found.values()
        for other in others:
            first = first.beside(other)
        print(f"  all together:  {_bytes(first.least)} to {_bytes(first.most)}")
    print(f"  {SUMS}")
    print(textwrap.fill(f"left out: {LEFT_OUT}", 79, initial_indent="  ", subsequent_indent="  "))
    return 0


def _row(name: str, own: Estimate) -> str:
    sizes = (own.stored, own.expanded, own.alive, own.least, own.most)
    return f"  {name:<19}" + "".join(f"{_bytes(size):>12}" for size in sizes) + ("  (flexible)" if own.flexible else "")


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.1f} ms"


def _bytes(value: float) -> str:
    if value >= 2**30:
        return f"{value / 2**30:.2f} GiB"
    return f"{value / 2**20:.{0 if value >= 100 * 2**20 else 1}f} MiB"
