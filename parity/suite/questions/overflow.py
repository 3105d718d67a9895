"""Where does a converted network leave the range of float16?

A value above 65504 becomes infinity in float16, and what is computed from it NaN; PyTorch in float32 has no such limit.
Then neither conversion nor hardware is at fault: the network needs float32 there. The reference runtime tells the first
operation whose result is not finite, and the size that this result has in float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from parity import mil
from parity.errors import ParityError

_LARGEST = 65504


class _FoundError(Exception):
    def __init__(self, name: str, kind: str) -> None:
        self.name, self.kind = name, kind


def explain(paths: Sequence[Path], inputs: Mapping[str, np.ndarray]) -> str:
    """Say which operation is the first with a result that is not finite; empty where none is, or none can be told.

    Parameters
    ----------
    paths : sequence of path
        Models in a row, each taking by name what is known.
    inputs : mapping of str to array
        Features of one prediction.
    """
    known: dict[str, Any] = dict(inputs)
    try:
        for path in paths:
            model = mil.load(path)
            if model.kind != "mlProgram":
                return ""
            session = mil.Session(model)
            given = {f.name: _as(f, known[f.name]) for f in session.function.inputs if f.name in known}
            try:
                known |= session.predict(given, callback=_stop)
            except _FoundError as found:
                return _sentence(model, found, given)
    except ParityError:
        return ""
    return ""


def _stop(event: Any) -> None:
    for name, value in event.outputs.items():
        if hasattr(value, "isfinite") and value.is_floating_point() and not bool(value.isfinite().all()):
            raise _FoundError(name, event.type)


def _sentence(model: mil.Model, found: _FoundError, given: Mapping[str, np.ndarray]) -> str:
    wide = mil.Session(model, "float32").values([found.name], given)[found.name]
    largest = float(np.abs(np.asarray(wide, np.float64)).max(initial=0.0))
    if not np.isfinite(largest):
        return f"  the first value that is not finite is {found.name} ({found.kind}), in float32 too"
    return (
        f"  overflow of float16: the first value that is not finite is {found.name} ({found.kind}); in float32 its "
        f"largest is {largest:,.0f}, and float16 ends at {_LARGEST:,}. The model needs float32 there, or smaller "
        "activations; its conversion is not at fault"
    )


def _as(feature: mil.Feature, value: np.ndarray) -> np.ndarray:
    kinds = {"fp16": np.float16, "fp32": np.float32, "int32": np.int32}
    return np.asarray(value).astype(kinds.get(feature.dtype, np.float32))
