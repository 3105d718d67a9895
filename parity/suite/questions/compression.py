"""Which parameters of the original do a package's compressed weights stand for?

Compressed weights change a network by themselves. With the very tables of the package as PyTorch's parameters, half
precision says what that change costs, and the candidate is judged by it. A compressed tensor is the parameter that it
resembles: of equal sizes, and with the largest cosine, which is 0.8 even for one bit. What resembles none keeps the
original's values, so a wrong table is found and not excused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from parity import mil, quiet
from parity.errors import ParityError

LEAST: Final = 0.7
"""Cosine below which a tensor does not resemble a parameter."""


def parameters(paths: Sequence[Path], originals: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the parameters that compression changed, with the values that the packages unpack to.

    Parameters
    ----------
    paths : sequence of path
        The packages of a network.
    originals : mapping of str to array
        The network's parameters by name.

    Returns
    -------
    dict of str to numpy.ndarray
        float32, in the parameters' shapes; empty where nothing resembles one, or a package cannot be read.
    """
    by_sizes: dict[tuple[int, ...], list[str]] = {}
    for name, value in originals.items():
        by_sizes.setdefault(_sizes(value.shape), []).append(name)
    found: dict[str, np.ndarray] = {}
    try:
        for path in paths:
            for value in _unpacked(path):
                names = [name for name in by_sizes.get(_sizes(value.shape), ()) if name not in found]
                likeness = {name: _cosine(value, originals[name]) for name in names}
                best = max(likeness, key=lambda name: likeness[name], default="")
                if best and likeness[best] >= LEAST:
                    found[best] = value.reshape(originals[best].shape)
    except ParityError:
        return {}
    return found


def _unpacked(path: Path) -> Iterator[np.ndarray]:
    """Give the values of a program's compressed constants, one at a time."""
    model = mil.load(path)
    if model.kind != "mlProgram":
        return
    session = mil.Session(model, "float32")
    for node in session.graph.nodes:
        if node.type.startswith("constexpr_"):
            for name in node.outputs:
                yield np.asarray(session.values([name], {})[name], np.float32)


def _sizes(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _cosine(value: np.ndarray, original: np.ndarray) -> float:
    first, second = quiet.float64(value).ravel(), quiet.float64(original).ravel()
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / lengths if lengths else 0.0
