"""What do the shipped cases measure today at each point for which the table of tolerances has an absolute bound?

``python -m benchmarks.bounds NAME… --backends NAME… -o FILE`` asks the shipped cases of a model, or of another set
below, with seed 93, judges each candidate by absolute bounds alone, and appends a line of JSON a cell to a file;
``--table FILE`` prints what each row of ``parity/suite/tolerances.toml`` saw, and what it would fail.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from parity import convert
from parity.errors import ParityError
from parity.metrics import registry
from parity.suite import plan
from parity.suite.evaluate import Evaluator
from parity.suite.options import Options

SETS: Final[Mapping[str, Callable[[], Options]]] = {
    "controlnet": lambda: Options("tiny-sd", controlnet=("tiny-controlnet", "tiny-controlnet-2")),
    "noising": lambda: Options("tiny-sd", models=_released("tiny-sd", "0.3.0"), producers=("swift==0.3.0",)),
    "refined": lambda: Options("tiny-sdxl", refiner="tiny-sdxl-refiner"),
}
"""What needs more than a model's name; other names are models."""


def _released(model: str, contract: str) -> Path:
    """Return a folder with a model's packages as a converter release wrote them, made on first use."""
    from parity import cache, recipes

    folder = cache.root() / "benchmarks" / f"{model}-{contract}"
    if not folder.is_dir():
        convert.convert(str(recipes.build(model)), folder, contract=contract, check=False)
    return folder


def measure(name: str, backends: Iterable[str], known: set[tuple[str, ...]]) -> Iterator[str]:
    """Ask the cases of a set; give a line of JSON for each cell that is not known.

    Parameters
    ----------
    name : str
        A key of :data:`SETS`, or a model.
    backends : iterable of str
        As ``--backend`` takes them.
    known : set of tuple
        Set, backend and case of those that were measured before.
    """
    options = SETS[name]() if name in SETS else Options(name)
    options = replace(options, backend=tuple(backends), compatibility="none")
    evaluator = Evaluator(options)
    evaluator.factors = []  # bounds in decibels alone
    for cell in plan.cells(options):
        key = (name, cell.backend, cell.case.name)
        if cell.kind != "candidate" or key in known:
            continue
        entry: dict[str, Any] = {"set": name, "backend": cell.backend, "case": cell.case.name, "checks": []}
        try:
            found = evaluator.evaluate(cell)
        except ParityError as error:
            entry["error"] = str(error)[:300]
        else:
            entry["checks"] = [
                [check.point, check.metric, cell.numerics, check.where, check.value, check.bound, str(check.verdict)]
                for check in found.checks
            ]
        yield json.dumps(entry)


def table(entries: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Give a line for each point, metric and numerics: of each set the worst and the best, and the bound."""
    rows: dict[tuple[str, ...], dict[str, list[float]]] = {}
    bounds: dict[tuple[str, ...], float] = {}
    for entry in entries:
        if "error" in entry:
            yield f"{entry['set']} {entry['backend']} {entry['case']}: {entry['error']}"
        for point, metric, numerics, _, value, bound, _ in entry["checks"]:
            if metric and not math.isnan(value):
                rows.setdefault((numerics, point, metric), {}).setdefault(entry["set"], []).append(value)
                bounds[numerics, point, metric] = bound
    for key, sets in sorted(rows.items()):
        told = registry.get(key[2])
        up = told.higher_is_better
        seen = [f"{told.format(min(v))} to {told.format(max(v))} on {name} (n {len(v)})" for name, v in sets.items()]
        values = [value for found in sets.values() for value in found]
        failed = sum(not told.passes(value, bounds[key]) for value in values)
        worst = min(values) if up else max(values)
        margin = worst - bounds[key] if up else bounds[key] - worst
        judged = f"bound {bounds[key]:g}, margin {margin:.3g}, {failed} fail"
        yield f"{key[0]}: {key[1]} {key[2]} {judged}: {'; '.join(seen)}"


def _read(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines]


def main() -> None:
    """Measure, or print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.bounds")
    parser.add_argument("sets", nargs="*", help=f"a model, or {', '.join(SETS)}")
    parser.add_argument("--backends", nargs="+", default=["coreml:reference"])
    parser.add_argument("-o", "--output", type=Path, default=Path("bounds.jsonl"))
    parser.add_argument("--table", type=Path, help="print the table of this file")
    arguments = parser.parse_args()
    if arguments.table:
        print("\n".join(table(_read(arguments.table))))
        return
    known: set[tuple[str, ...]] = {(entry["set"], entry["backend"], entry["case"]) for entry in _read(arguments.output)}
    for name in arguments.sets:
        with arguments.output.open("a", encoding="utf-8") as file:
            for line in measure(name, arguments.backends, known):
                file.write(line + "\n")
                file.flush()


if __name__ == "__main__":
    main()
