"""``parity mil show | profile | compare | operators``: what is in a program, and what float16 does."""

from __future__ import annotations

import argparse
import statistics as stats
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity.commands import documents
from parity.errors import UsageError

if TYPE_CHECKING:
    from parity.mil.departure import Value


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser("show", help="print a program readably")
    show.add_argument("path", type=Path, metavar="PATH", help=".mlpackage, .mlmodelc or .mlmodel")
    show.add_argument("--function", help="only this function")
    show.add_argument("--op", metavar="NAME", help="everything about one operation or value")
    show.add_argument(
        "--stats", action="store_true", help="counts of operations, dtypes and weights instead of a listing"
    )
    profile = actions.add_parser("profile", help="time each operation on seeded random inputs")
    profile.add_argument("path", type=Path, metavar="PATH", help=".mlpackage or .mlmodelc")
    profile.add_argument("--function", help="which function; default: the model's")
    profile.add_argument(
        "--numerics", default="declared", help="declared, float32, float16-accumulate or float16-sequential"
    )
    profile.add_argument("--no-fusion", action="store_true", help="run every operation by itself")
    profile.add_argument("--repeats", type=int, default=3, metavar="N", help="predictions to time; default: 3")
    profile.add_argument("--top", type=int, default=15, metavar="N", help="slowest operations to list; default: 15")
    profile.add_argument("--seed", type=int, default=0, metavar="N", help="of the random inputs; default: 0")
    compare = actions.add_parser(
        "compare", help="name the first operation that leaves float16's range, or departs from its float32 value"
    )
    compare.add_argument("path", type=Path, metavar="PATH", help=".mlpackage or .mlmodelc")
    compare.add_argument(
        "--inputs", type=Path, required=True, metavar="FILE", help=".npz with an array for each input of the model"
    )
    compare.add_argument("--function", help="which function; default: the model's")
    compare.add_argument(
        "--numerics",
        default="declared",
        help="what is compared with float32: declared (default), float16-accumulate, …",
    )
    compare.add_argument("--top", type=int, default=5, metavar="N", help="results with the largest gain; default: 5")
    listed = actions.add_parser("operators", help="list the operators that run, with their opsets")
    for action in (show, profile, compare, listed):
        documents.declare(action)


def main(arguments: argparse.Namespace) -> int:
    """Run the chosen action."""
    if arguments.action == "show":
        return _show(arguments)
    if arguments.action == "profile":
        return _profile(arguments)
    if arguments.action == "compare":
        return _compare(arguments)
    return _operators(as_json=arguments.json)


def _show(arguments: argparse.Namespace) -> int:
    if arguments.path.suffix == ".aimodel":
        return _show_core_ai(arguments)
    from parity.mil import describe, load

    model = load(arguments.path)
    if arguments.json:
        from parity.mil.listed import program

        documents.write(program(model, arguments.function, only=arguments.op or "", counts=arguments.stats))
        return 0
    if arguments.op:
        lines = describe.operation(model, arguments.op, arguments.function)
    else:
        for line in describe.header(model):
            print(line)
        chosen = describe.statistics if arguments.stats else describe.operations
        lines = chosen(model, arguments.function)
    for line in lines:
        print(line)
    return 0


def _show_core_ai(arguments: argparse.Namespace) -> int:
    """Print the program of a Core AI file, which is no ML Program, as its own library prints it."""
    from parity.coreai import asset

    if arguments.op or arguments.function:
        raise UsageError(f"{arguments.path}: a Core AI model; --op and --function speak of ML Programs only")
    if arguments.json:
        raise UsageError(f"{arguments.path}: a Core AI model; 'parity inspect {arguments.path} --json' describes it")
    print("\n".join(asset.lines(asset.describe(arguments.path))) if arguments.stats else asset.program(arguments.path))
    return 0


def _inputs(features: Any, seed: int) -> dict[str, Any]:
    import numpy as np

    from parity.mil.dtypes import BY_NAME

    random = np.random.default_rng(seed)
    made: dict[str, Any] = {}
    for feature in features:
        if feature.kind == "image":
            size = feature.shape if feature.channels == 1 else (*feature.shape, feature.channels)
            made[feature.name] = random.integers(0, 256, size).astype(np.uint8)
        elif feature.kind != "array":
            raise UsageError(
                f"input {feature.name!r} is of kind {feature.kind}; profiling makes arrays and images only"
            )
        elif feature.dtype.startswith("fp"):
            made[feature.name] = random.standard_normal(feature.shape).astype(BY_NAME[feature.dtype].numpy)
        else:
            made[feature.name] = random.integers(0, 2, feature.shape).astype(BY_NAME[feature.dtype].numpy)
    return made


def _profile(arguments: argparse.Namespace) -> int:
    import time

    from parity.mil import Event, Session, load

    if arguments.repeats < 1:
        raise UsageError("--repeats must be at least 1")
    session = Session(
        load(arguments.path), arguments.numerics, function=arguments.function, fuse=not arguments.no_fusion
    )
    inputs = _inputs(session.function.inputs, arguments.seed)
    state = session.new_state()
    start = time.perf_counter()
    session.predict(inputs, state=state)
    first = time.perf_counter() - start
    seconds: dict[str, list[float]] = defaultdict(list)
    kinds: dict[str, str] = {}

    def record(event: Event) -> None:
        seconds[event.name].append(event.seconds)
        kinds[event.name] = event.type

    totals = []
    for _ in range(arguments.repeats):
        start = time.perf_counter()
        session.predict(inputs, state=state, callback=record)
        totals.append(time.perf_counter() - start)
    medians = {name: stats.median(times) for name, times in seconds.items()}
    whole = sum(medians.values())
    slowest = sorted(medians.items(), key=lambda item: -item[1])
    if arguments.json:
        from parity.commands.records_of_models import Profile, Timed

        operations = tuple(Timed(name, kinds[name], median) for name, median in slowest)
        then = stats.median(totals)
        documents.write(Profile(str(arguments.path), str(session.profile), first, then, operations))
        return 0
    print(f"{arguments.path}: profile {session.profile}, first {first:.3f} s, then {stats.median(totals):.3f} s")
    by_kind: dict[str, list[float]] = defaultdict(list)
    for name, median in medians.items():
        by_kind[kinds[name]].append(median)
    print(f"\n{'seconds':>10}{'share':>8}{'count':>7}  operator")
    for kind, times in sorted(by_kind.items(), key=lambda item: -sum(item[1])):
        print(f"{sum(times):>10.4f}{sum(times) / whole:>8.1%}{len(times):>7}  {kind}")
    print(f"\n{'seconds':>10}{'share':>8}  slowest operations")
    for name, median in slowest[: max(arguments.top, 0)]:
        print(f"{median:>10.4f}{median / whole:>8.1%}  {kinds[name]} {name}")
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    """Compare a program with itself in float32: 0 if float16 carries every operation, 1 if not."""
    import math

    from parity.mil import departure, load

    model = load(arguments.path)
    if model.kind != "mlProgram":
        raise UsageError(f"{arguments.path}: no ML Program; only those say which operations are float16")
    read = _given(arguments.inputs, model.function(arguments.function).inputs, arguments.path)
    inputs = departure.given(model, read, arguments.function)
    found = list(departure.values(model, inputs, function=arguments.function, profile=arguments.numerics))
    if arguments.json:
        return _print_departures(arguments, found)
    leaving = [value for value in found if value.leaves]
    departing = [value for value in found if value.departs]
    print(f"{arguments.path}: {len(found)} results, {arguments.numerics} compared with float32")
    for title, values in (("leaves float16's range", leaving), ("departs", departing)):
        print(f"{title}: {f'{len(values)}, the first is' if values else 'none'}")
        if values:
            print(f"  {values[0].sentence}")
    print(f"\n{'error':>10}{'gain':>8}{'largest':>12}  result")
    finite = [value for value in found if math.isfinite(value.gain)]
    for value in sorted(finite, key=lambda each: -each.gain)[: max(arguments.top, 0)]:
        decibel = f"{-20 * math.log10(value.error):.1f} dB" if value.error else "none"
        print(f"{decibel:>10}{value.gain:>8.1f}{value.largest:>12.5g}  {value.place}")
    return int(bool(leaving or departing))


def _print_departures(arguments: argparse.Namespace, found: Sequence[Value]) -> int:
    from parity.commands.records_of_models import Departure, Departures

    results = []
    for value in found:
        wrong = value.leaves or value.departs
        text = value.sentence if wrong else ""
        figures = (value.error, value.gain, value.largest)
        results.append(Departure(value.place, *figures, leaves=value.leaves, departs=value.departs, text=text))
    documents.write(Departures(str(arguments.path), arguments.numerics, tuple(results)))
    return int(any(result.leaves or result.departs for result in results))


def _given(file: Path, features: Any, model: Path) -> dict[str, Any]:
    """Read a model's inputs from an archive, in the dtypes that it declares."""
    import zipfile

    import numpy as np

    from parity.errors import FormatError, MissingError
    from parity.files import refuse_pointer
    from parity.tables import nearest

    refuse_pointer(file)
    if file.is_file() and not zipfile.is_zipfile(file):
        raise FormatError(f"--inputs {file}: not an .npz archive; one with one array an input is needed")
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise MissingError(f"--inputs {file}: no such file") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise FormatError(f"--inputs {file}: an .npz with one array an input is needed: {error}") from None
    named = {feature.name: feature for feature in features}
    for name, array in arrays.items():
        if name not in named:
            raise UsageError(f"--inputs {file}: {model} has no input {name!r}{nearest(name, named)}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise UsageError(
                f"--inputs {file}: {name} holds values that are NaN or infinite; nothing follows from them"
            )
        if array.size == 0:
            raise UsageError(f"--inputs {file}: {name} is empty, with shape {array.shape}")
    if missing := [name for name, feature in named.items() if name not in arrays and not feature.optional]:
        raise UsageError(f"--inputs {file}: no array {missing[0]!r}; {model} needs {', '.join(named)}")
    return arrays


def _operators(*, as_json: bool) -> int:
    from parity.mil import operators

    if as_json:
        from parity.commands.records_of_models import Operators

        found = {kind: tuple(version.since for version in versions) for kind, versions in operators.versions().items()}
        documents.write(Operators(found))
        return 0
    for kind, versions in operators.versions().items():
        print(f"{kind:<42}{', '.join(version.since for version in versions)}")
    return 0
