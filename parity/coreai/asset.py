"""What is in an ``.aimodel``: features, size, precision, operations, who wrote it, and its program as text?

The file is opened in a process of its own; what the library says is passed on, nothing is guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from parity.coreai import container
from parity.coreai.process import Function, Process


@dataclass(frozen=True)
class Asset:
    """A file.

    Attributes
    ----------
    path : pathlib.Path
    functions : tuple of Function
        With inputs, outputs and states in order.
    bytes : int
        Of the program with its weights.
    precision : str
        Dtype of most of the weights' bytes, e.g. ``float16``.
    weights : dict of str to (int, int)
        Dtype to the number of constants with more than one element, and their elements.
    operations : dict of str to int
        Operator to how often it occurs.
    metadata : dict of str to str
        Author, licence, description, producer, date and format.
    """

    path: Path
    functions: tuple[Function, ...]
    bytes: int
    precision: str
    weights: dict[str, tuple[int, int]]
    operations: dict[str, int]
    metadata: dict[str, str]


def describe(path: Path | str) -> Asset:
    """Open a file and say what it is.

    Raises
    ------
    MissingError, FormatError, UnsupportedError
        No such file; damaged, or of a newer format; Core AI is not installed here.
    """
    path = Path(path)
    with Process(path) as process:
        functions = tuple(process.functions.values())
        summary = process.ask("summary")[0]
        constants = process.ask("constants")[1]
    about = container.check(path)
    weights: dict[str, tuple[int, int]] = {}
    for array in constants.values():
        if array.size > 1:
            count, elements = weights.get(array.dtype.name, (0, 0))
            weights[array.dtype.name] = (count + 1, elements + array.size)
    metadata = {key: str(summary[key]) for key in ("author", "license", "description") if summary[key]}
    written = {"producer": "producer", "creationDate": "date", "assetVersion": "format"}
    metadata |= {name: str(about[key]) for key, name in written.items() if key in about}
    return Asset(
        path,
        functions,
        (path / container.PROGRAM).stat().st_size,
        max(weights, key=lambda name: np.dtype(name).itemsize * weights[name][1], default="none"),
        dict(sorted(weights.items())),
        {name: count for name, count in summary["operations"]},
        metadata,
    )


def program(path: Path | str) -> str:
    """Return a file's program as text, large constants left out; raises as :func:`describe`."""
    with Process(path) as process:
        return str(process.ask("program")[0]["text"])


def lines(asset: Asset) -> list[str]:
    """Return a description for readers."""
    text = [f"{asset.path}: Core AI model, {asset.bytes / 1e6:.1f} MB, weights in {asset.precision}"]
    for function in asset.functions:
        text.append(f"function {function.name}")
        for kind in ("inputs", "outputs", "states"):
            for feature in getattr(function, kind):
                sizes = " × ".join("?" if size is None else str(size) for size in feature.shape)
                text.append(f"  {kind[:-1]:<7}{feature.name:<28}{feature.dtype} [{sizes}]")
    for dtype, (count, elements) in asset.weights.items():
        text.append(f"{count:>6} constants of {dtype}, {elements:,} values")
    most = sorted(asset.operations.items(), key=lambda item: -item[1])
    text.append("operations: " + ", ".join(f"{name} {count}" for name, count in most))
    return text + [f"{name}: {value}" for name, value in asset.metadata.items()]
