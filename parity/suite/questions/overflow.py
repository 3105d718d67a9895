"""Which operation of a converted network is at fault, when float16 fails it?

A value above 65504 becomes infinity in float16, and what is computed from it NaN; a sine of a large angle makes much of
the angle's rounding. The reference runtime runs the program in both profiles on the inputs that failed and names the
first such operation (:mod:`parity.mil.departure`), whatever computed the failing outputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from parity import mil
from parity.errors import ParityError
from parity.networks.signature import SIGNATURES, kind

if TYPE_CHECKING:
    from parity.mil.departure import Value

_PERIODIC = ("sin", "cos")


def explain(paths: Sequence[Path], inputs: Mapping[str, np.ndarray]) -> str:
    """Say which operation is the first that float16 does not carry; empty where none is, or none can be told.

    Parameters
    ----------
    paths : sequence of path
        Models in a row, each taking by name what is known.
    inputs : mapping of str to array
        Features of one prediction.
    """
    from parity.mil import departure  # with torch, which only a failure needs

    known: dict[str, Any] = dict(inputs)
    try:
        for path in paths:
            model = mil.load(path)
            if model.kind != "mlProgram":
                return ""
            given = departure.given(model, known)
            leaving, departing = departure.first(departure.values(model, given))
            if leaving is not None or departing is not None:
                return _sentences(path, leaving, departing)
            known |= mil.Session(model, memory_budget=0).predict(given)
    except ParityError:
        return ""
    return ""


def own_error(paths: Sequence[Path], inputs: Mapping[str, np.ndarray]) -> float:
    """Return how far a program in its declared precision is from itself in float32.

    Parameters
    ----------
    paths, inputs
        As :func:`explain`.

    Returns
    -------
    float
        Rms over all values of all outputs; NaN where it cannot be told.
    """
    from parity.mil import departure

    runs = []
    try:
        for profile in ("declared", "float32"):
            known: dict[str, Any] = dict(inputs)
            for path in paths:
                model = mil.load(path)
                outputs = mil.Session(model, profile, memory_budget=0).predict(departure.given(model, known))
                known |= outputs
            runs.append(np.concatenate([np.ravel(outputs[name]).astype(np.float64) for name in sorted(outputs)]))
    except ParityError:
        return math.nan
    return float(np.sqrt(np.mean((runs[0] - runs[1]) ** 2)))


def _sentences(path: Path, leaving: Value | None, departing: Value | None) -> str:
    from parity.mil.departure import LARGEST

    lines = []
    if leaving is not None:
        lines.append(
            f"  overflow of float16: the first value that is not finite is {leaving.place}; in float32 its largest is "
            f"{leaving.largest:,.0f}, and float16 ends at {LARGEST:,.0f}"
        )
    if departing is not None:
        lines.append(f"  operator: {departing.sentence}")
        if departing.name in embedded(path):
            lines.append(f"  cause: {_CAUSE}")
        elif departing.type == "fused_group_norm" and departing.reads_largest > _SQUARED:
            lines.append(f"  cause: {_SQUARES}")
    return "\n".join(lines)


_CAUSE = (
    "the timestep embedding is computed in float16; diffusers computes it in float32 even in half-precision pipelines, "
    "and rounds the sine and cosine; parity convert --float32 timestep-embedding writes such a package"
)


_SQUARED = 255.9  # largest number whose square is in float16's range
_SQUARES = (
    f"a group norm squares what lies around the mean, and a value more than {_SQUARED} from it has a square beyond "
    "float16's range; PyTorch computes them in float32. parity convert --float32 all writes this component without it"
)


def finding(component: str, paths: Sequence[Path]) -> str:
    """Say that a network computes its timestep embedding in float16; empty if it has none, or none can be told."""
    if "timestep" not in SIGNATURES[kind(component)].inputs:
        return ""
    names = [name for path in paths for name in embedded(path)]
    if not names:
        return ""
    return (
        f"{component}: the timestep embedding is computed in float16 ({', '.join(names)}: sine and cosine of up to "
        "999, where float16's values lie 0.5 apart); diffusers computes it in float32 even in half-precision "
        "pipelines. What it costs depends on the model, and is in the score of the first steps; parity convert "
        "--float32 timestep-embedding writes a package without it"
    )


@lru_cache(maxsize=64)
def embedded(path: Path) -> tuple[str, ...]:
    """Return the results of float16 sines and cosines that a program computes from its input ``timestep`` alone."""
    from parity.mil.arrays import dtype_of
    from parity.mil.graph import build

    try:
        model = mil.load(path)
        if model.kind != "mlProgram":
            return ()
        name = model.function().name
        graph = build(model.program.functions[name], str(path))
    except ParityError:
        return ()
    derived = {"timestep"} & set(graph.inputs)
    found: list[str] = []
    for node in graph.nodes:
        computed = [each for each in node.dependencies() if each not in graph.constants]
        if computed and all(each in derived for each in computed):
            derived |= set(node.outputs)
            if node.type in _PERIODIC and dtype_of(graph.types[node.outputs[0]]) == "fp16":
                found += node.outputs
    return tuple(found)
