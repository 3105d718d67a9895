"""How far does a picture go when nothing is wrong: other kernels, other versions, another precision?

``python -m benchmarks.drift draw MODEL -o FILE.npz [--backend NAME]`` draws the shipped cases of a model and keeps the
pictures; run it under what is to be measured (``ATEN_CPU_CAPABILITY``, another environment with older libraries).
``python -m benchmarks.drift compare FILE FILE…`` says how far the pictures of each file are from those of the first.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from parity.metrics import registry
from parity.suite import plan
from parity.suite.evaluate import Evaluator
from parity.suite.options import Options

_METRICS = ("image_psnr", "image_window_rms")  # those of the rows golden/drift


def draw(model: str, backend: str) -> dict[str, np.ndarray]:
    """Return the pictures of a model's shipped cases by name: of the reference, or of a backend."""
    options = Options(model, compatibility="none", backend=(backend,) if backend else ("coreml:reference",))
    evaluator = Evaluator(options)
    cells = [cell for cell in plan.cells(options) if cell.kind == "candidate" and cell.backend == options.backend[0]]
    pictures = {}
    for cell in cells:
        who = evaluator.candidate(cell) if backend else evaluator.reference
        pictures[cell.case.name] = evaluator.run(who, replace(cell.case, producer="diffusers"))[0]["image"]
    return pictures


def compare(files: list[Path]) -> None:
    """Print the worst and the best figures of each file against the first."""
    first, *others = [dict(np.load(file)) for file in files]
    for file, pictures in zip(files[1:], others, strict=True):
        said = []
        for name in _METRICS:
            metric = registry.get(name)
            values = [registry.measure(name, first[case], pictures[case]) for case in first]
            said.append(f"{name} {metric.format(min(values))} to {metric.format(max(values))}")
        print(f"{file.stem} against {files[0].stem}, {len(first)} pictures: {', '.join(said)}")


def main() -> None:
    """Draw, or compare."""
    parser = argparse.ArgumentParser(prog="benchmarks.drift")
    kinds = parser.add_subparsers(dest="kind", required=True)
    drawing = kinds.add_parser("draw")
    drawing.add_argument("model")
    drawing.add_argument("--backend", default="", help="default: the reference, PyTorch in float32 on the CPU")
    drawing.add_argument("-o", "--output", type=Path, required=True)
    kinds.add_parser("compare").add_argument("files", nargs="+", type=Path)
    arguments = parser.parse_args()
    if arguments.kind == "compare":
        compare(arguments.files)
        return
    np.savez(arguments.output, **draw(arguments.model, arguments.backend))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
