"""Where do right and wrong float16 candidates lie against half precision? The figures behind the factors.

``python -m benchmarks.judgement MODEL… --candidates NAME… --seeds N… -o FILE`` draws a case for each scheduler, and one
from a picture, with each seed, judges every candidate as `parity run` does, and appends a line of JSON a cell to a
file; what it has is not asked again. The reference draws once for all candidates of a model. ``--table FILE``
prints the tables of docs/judgement.md. ``make bench`` measures a few cells: the seconds that the yardstick takes,
when it is computed and when it is kept.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from benchmarks import judgement_table
from parity import convert
from parity.backends.pytorch import TorchBackend
from parity.errors import ParityError
from parity.files import link_or_copy
from parity.pipelines.schedules.diffusers import SCHEDULERS
from parity.pipelines.trace import Trace
from parity.recipes.build import load, write
from parity.suite import plan
from parity.suite.case import Case
from parity.suite.comparison import Check
from parity.suite.evaluate import Evaluator
from parity.suite.options import Options

_DRAWN: Final = "drawn-"  # drawn-SEED: tiny-sd with other weights
_PROMPTS: Final = (
    "a large red circle on a white background",
    "three green stars on a black background",
    "a yellow triangle on a teal background",
    "a purple square on the left of an orange ring on a gray background",
    "a small blue ring on a white background",
)
_STEPS: Final = (2, 3, 3, 2, 4)
"""Of seed 1, seed 2, …: two would give every schedule whole timesteps."""
_PACKAGES: Final[Mapping[str, Mapping[str, Any]]] = {
    "released": {},
    "embedding": {"float32": "timestep-embedding"},
    "float32": {"float32": "all"},
    "affine8": {"compression": "affine8", "float32": "timestep-embedding", "contract": "0.4.0"},
    "palette8": {"compression": "palette8", "float32": "timestep-embedding"},
    "palette6": {"compression": "palette6", "float32": "timestep-embedding"},
    "palette4": {"compression": "palette4", "float32": "timestep-embedding"},
}
"""Candidates by name, as options of the conversion; other names are taken for backends."""


def run(report: Callable[[str], None]) -> None:
    """Measure what the yardstick adds to a cell."""
    options = Options(compatibility="none", cell=("candidate/txt2img-ddim/coreml:reference",))
    (cell,) = plan.cells(options)
    with tempfile.TemporaryDirectory() as scratch:
        for kept in ("computed", "kept"):
            evaluator = Evaluator(options)
            known = evaluator.packages, evaluator.model.location  # opened before
            start = time.perf_counter()
            with _cache_of_yardsticks(Path(scratch)):
                evaluator.evaluate(cell)
            report(f"one cell of shapes-sd, yardstick {kept}: {time.perf_counter() - start:.1f} s")
            del known


class _cache_of_yardsticks:  # noqa: N801 - used like a function
    """Keep yardsticks elsewhere, so that they are computed anew; everything else stays where it is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        from parity import cache

        self._before = cache.folder
        cache.folder = lambda kind, name: self.folder / name if kind == "yardsticks" else self._before(kind, name)

    def __exit__(self, *_: object) -> None:
        from parity import cache

        cache.folder = self._before


class _Beside(Evaluator):
    """Judges another candidate of the same original, with the runs of the reference that the first one has."""

    def __init__(self, options: Options, first: Evaluator) -> None:
        super().__init__(options)
        self._first = first

    @property
    def reference(self) -> TorchBackend:
        """The first one's."""
        return self._first.reference

    def reference_run(self, case: Case) -> tuple[Trace, float]:  # type: ignore[override]
        """Return the first one's."""
        return self._first.reference_run(case)


def _model(name: str) -> str:
    """Return a shipped model's name, or the folder of tiny-sd with weights drawn from another seed."""
    if not name.startswith(_DRAWN):
        return name
    recipe = load("tiny-sd")
    other = replace(recipe, table={**recipe.table, "seed": int(name.removeprefix(_DRAWN))})
    folder = Path(tempfile.gettempdir()) / f"parity-{other.key}"
    if not folder.is_dir():
        write(other, folder)
    return str(folder)


def _cases(folder: Path, seeds: Sequence[int]) -> Path:
    """Write a case for each scheduler and seed, and one from a picture for each seed."""
    picture = (Path(__file__).parent.parent / "fixtures" / "pictures" / "start.png").resolve()
    lines = ["[defaults]\nguidance_scale = 5.0\n"]
    for seed in seeds:
        own = f'seed = {seed}\nsteps = {_STEPS[(seed - 1) % 5]}\nprompt = "{_PROMPTS[(seed - 1) % 5]}"\n'
        for name in SCHEDULERS:
            more = own.replace("steps = 2", "steps = 3") if name == "pndm" else own  # it takes no two, trailing
            lines.append(f'[[case]]\nname = "txt2img-{name}-{seed}"\ntask = "txt2img"\nscheduler = "{name}"\n{more}')
        start = f'scheduler = "dpm++"\nimage = "{picture}"\n{own}'
        lines.append(f'[[case]]\nname = "img2img-{seed}"\ntask = "img2img"\n{start}')
    path = folder / "cases.toml"
    path.write_text("\n".join(lines))
    return path


def _options(name: str, candidate: str, cases: Path) -> Options:
    options = Options(
        model_version=_model(name),
        cases=cases,
        compute_unit=("CPU_ONLY",),
        coreml_runtime="reference",
        compatibility="none",
    )
    if candidate not in _PACKAGES:
        return replace(options, backend=(candidate,), compute_unit=Options().compute_unit)
    packages = convert.cached(Evaluator(options).model.location, **_PACKAGES[candidate])
    folder = cases.parent / candidate
    for path in packages.values():  # a link to a package would lead out of the folder, and is not followed
        shutil.copytree(path, folder / path.name, copy_function=link_or_copy)
    return replace(options, models=folder)


def measure(name: str, candidates: Sequence[str], seeds: Sequence[int], known: set[tuple[str, ...]]) -> Iterator[str]:
    """Judge the candidates of a model; give a line of JSON for each cell that is not known.

    Parameters
    ----------
    name : str
        A shipped model, or ``drawn-SEED``.
    candidates : sequence of str
        Keys of the table of packages, or what ``--backend`` takes.
    seeds : sequence of int
        Of the cases.
    known : set of tuple
        Model, candidate and case of those that were judged before.
    """
    with tempfile.TemporaryDirectory() as scratch:
        cases = _cases(Path(scratch), seeds)
        all_options = {candidate: _options(name, candidate, cases) for candidate in candidates}
        first = Evaluator(next(iter(all_options.values())))
        evaluators = {candidate: _Beside(options, first) for candidate, options in all_options.items()}
        rows = {candidate: _cells(options) for candidate, options in all_options.items()}
        for case in rows[candidates[0]]:
            for candidate in candidates:
                if (name, candidate, case) not in known:
                    yield _line(name, candidate, rows[candidate][case], evaluators[candidate])


def _cells(options: Options) -> dict[str, plan.Cell]:
    return {cell.case.name: cell for cell in plan.cells(options) if cell.kind == "candidate"}


def _line(name: str, candidate: str, cell: plan.Cell, evaluator: Evaluator) -> str:
    start = time.process_time()
    entry: dict[str, Any] = {"model": name, "candidate": candidate, "case": cell.case.name, "seed": cell.case.seed}
    try:
        outcome = evaluator.evaluate(cell)
    except ParityError as error:
        entry |= {"verdict": "unknown", "error": str(error)[:300], "checks": []}
    else:
        entry |= {"verdict": str(outcome.verdict), "checks": [_figures(check) for check in outcome.checks]}
    return json.dumps(entry | {"seconds": round(time.process_time() - start, 2)})


def _figures(check: Check) -> dict[str, Any]:
    score = check.score
    found: dict[str, Any] = {
        "point": check.point,
        "where": check.where,
        "metric": check.metric,
        "value": check.value,
        "bound": check.bound,
        "verdict": str(check.verdict),
    }
    if score is not None:
        found |= {"half": score.half, "rms": score.rms, "largest": score.largest, "overlap": score.overlap}
    if check.message:
        said = [line.strip() for line in check.message.splitlines()]
        named = [line for line in said if line.startswith(("cause:", "operator:", "not its precision"))]
        found["message"] = " | ".join(said[:1] + named)[:600]
    return found


def _known(path: Path) -> set[tuple[str, ...]]:
    if not path.is_file():
        return set()
    return {(entry["model"], entry["candidate"], entry["case"]) for entry in judgement_table.read([path])}


def _append(path: Path, lines: Iterable[str]) -> None:
    with path.open("a", encoding="utf-8") as file:
        for line in lines:
            file.write(line + "\n")
            file.flush()


def main() -> None:
    """Measure, or print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.judgement")
    parser.add_argument("models", nargs="*")
    parser.add_argument("--candidates", nargs="+", default=["released"], help=f"{', '.join(_PACKAGES)}, or a backend")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("-o", "--output", type=Path, default=Path("judgement.jsonl"))
    parser.add_argument("--table", nargs="+", type=Path, help="print the tables of these files")
    arguments = parser.parse_args()
    if arguments.table:
        print(judgement_table.text(judgement_table.read(arguments.table)))
        return
    for name in arguments.models:
        lines = measure(name, arguments.candidates, arguments.seeds, _known(arguments.output))
        _append(arguments.output, lines)


if __name__ == "__main__":
    main()
