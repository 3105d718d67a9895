"""Where do right and wrong float16 candidates lie against half precision? The figures behind the factors.

``python -m benchmarks.judgement MODEL… --candidate NAME --seeds N --steps N -o FILE`` draws a case for each scheduler
with each seed, judges the candidate as `parity run` does, and adds a line of JSON a check to a file;
``python -m benchmarks.judgement --table FILE…`` prints the table of docs/judgement.md. ``make bench`` measures a few
cells: the seconds that the yardstick takes, when it is computed and when it is kept.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from parity import convert
from parity.pipelines.schedules.diffusers import SCHEDULERS
from parity.recipes.build import load, write
from parity.suite import calibration, plan
from parity.suite.evaluate import Evaluator
from parity.suite.options import Options

_DRAWN = "drawn-"  # drawn-SEED: tiny-sd with other weights


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


def _cases(folder: Path, steps: int, prompt: str) -> Path:
    lines = [f'[defaults]\nsteps = {steps}\nguidance_scale = 5.0\nprompt = "{prompt}"\n']
    for name in SCHEDULERS:
        lines.append(f'[[case]]\nname = "txt2img-{name}"\ntask = "txt2img"\nscheduler = "{name}"\n')
    picture = (Path(__file__).parent.parent / "fixtures" / "pictures" / "start.png").resolve()
    lines.append(f'[[case]]\nname = "img2img"\ntask = "img2img"\nscheduler = "dpm++"\nimage = "{picture}"\n')
    path = folder / "cases.toml"
    path.write_text("".join(lines))
    return path


def _options(name: str, candidate: str, cases: Path) -> Options:
    options = Options(model_version=_model(name), cases=cases, compute_unit=("CPU_ONLY",), coreml_runtime="reference")
    if candidate == "coreml":
        return options
    if candidate.startswith("palette"):
        location = Evaluator(options).model.location
        packages = convert.cached(location, compression=candidate)
        return replace(options, models=_gathered(packages))
    return replace(options, backend=(candidate,), compute_unit=Options().compute_unit)


def _gathered(packages: dict[str, Path]) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="parity-judgement-"))
    for path in packages.values():
        (folder / path.name).symlink_to(path)
    return folder


def _table(files: list[Path]) -> None:
    rows: dict[tuple[str, ...], list[calibration.Sample]] = {}
    for file in files:
        model, _, candidate = file.stem.partition("@")
        for sample in calibration.read(file):
            if sample.metric.endswith("psnr"):
                rows.setdefault((model, candidate, sample.point), []).append(sample)
    print("| model | candidate | point | n | dB | rms ratio: median, 99 %, most | largest: most | least overlap |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for key, found in sorted(rows.items()):
        value, rms, largest, over = (
            np.array([getattr(s, name) for s in found]) for name in ("value", "rms", "largest", "overlap")
        )
        print(
            f"| {' | '.join(key)} | {len(found)} | {value.min():.1f} to {value.max():.1f} | {np.median(rms):.2f}, "
            f"{np.quantile(rms, 0.99):.2f}, {rms.max():.2f} | {largest.max():.2f} | {over.min():.3f} |"
        )


def main() -> None:
    """Measure, or print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.judgement")
    parser.add_argument("models", nargs="*")
    parser.add_argument("--candidate", default="coreml", help="coreml, palette6, … or what --backend takes")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--prompt", default="a large red circle on a white background")
    parser.add_argument("-o", "--output", type=Path, default=Path("judgement"))
    parser.add_argument("--table", nargs="+", type=Path, help="print the table of these files")
    arguments = parser.parse_args()
    if arguments.table:
        _table(arguments.table)
        return
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name in arguments.models:
        target = arguments.output / f"{name}@{arguments.candidate.replace(':', '-')}.jsonl"
        with tempfile.TemporaryDirectory() as scratch, target.open("w", encoding="utf-8") as file:
            options = _options(name, arguments.candidate, _cases(Path(scratch), arguments.steps, arguments.prompt))
            for sample in calibration.samples(options, range(1, arguments.seeds + 1)):
                file.write(calibration.line(sample) + "\n")
                file.flush()


if __name__ == "__main__":
    main()
