"""How does one array of values follow from another, without any stream being known?

:func:`relate` tries, in this order: the same values in another shape, rounding, a factor and a constant, another order
of the same values (layouts, mirrors, axes in another order), a cut-out, a shift. A relation is only returned when it
accounts for every value. What does not explain a whole array, but says where two part, is in :func:`observations`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from parity.streams.torch_half import rounded

_KINDS = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24}
"""Half a unit in the last place, relative, of the dtypes that values may have been rounded to."""


@dataclass(frozen=True)
class Relation:
    """How ``{to}`` follows from ``{of}``.

    Attributes
    ----------
    kind : str
        ``shape``, ``rounded``, ``scaled``, ``offset``, ``order``, ``cut``, ``shift`` or ``part``.
    text : str
        A sentence with the places ``{of}`` and ``{to}``.
    short : str
        What was done, as a phrase, for relations that keep all values.
    """

    kind: str
    text: str
    short: str = ""

    def between(self, of: str, to: str) -> str:
        """The sentence with two names."""
        return self.text.format(of=of, to=to)


def precision(values: np.ndarray) -> float:
    """Half a unit in the last place, relative, of the coarsest dtype that holds all values."""
    for kind in ("bfloat16", "float16", "float32"):
        if np.array_equal(_rounded(values, kind), values.astype(np.float64)):
            return _KINDS[kind]
    return 2.0**-53


def relate(of: np.ndarray, to: np.ndarray) -> Relation | None:
    """Return how ``to`` follows from ``of``; None where it does not, or where they are equal."""
    if of.size == 0 or to.size == 0 or (of.shape == to.shape and np.array_equal(of, to)):
        return None
    if of.size == to.size:
        return _same_size(of, to)
    return _cut(of, to) if to.size < of.size else None


def _same_size(of: np.ndarray, to: np.ndarray) -> Relation | None:
    x, y = of.reshape(-1), to.reshape(-1)
    if of.shape == to.shape:
        return _rounding(x, y) or affine(x, y) or reordered(of, to) or _shift(x, y)
    if np.array_equal(x, y):
        return Relation("shape", "the values are equal in order: only the shape differs")
    return reordered(of, to)


def _rounded(values: np.ndarray, kind: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        return rounded(values.astype(np.float32), kind).astype(np.float64)


def _rounding(x: np.ndarray, y: np.ndarray) -> Relation | None:
    for kind in ("float16", "bfloat16", "float32"):
        if np.array_equal(_rounded(x, kind), y.astype(np.float64)):
            return Relation("rounded", f"{{to}} is {{of}} rounded to {kind}", f"rounded to {kind}")
    return None


def fit(of: np.ndarray, to: np.ndarray) -> tuple[float, float] | None:
    """Factor and constant by which ``to`` follows from ``of``, within their precision; None where it does not."""
    x, y = of.reshape(-1).astype(np.float64), to.reshape(-1).astype(np.float64)
    if x.size < 4 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    spread = float(np.var(x))
    if spread == 0.0:
        return None
    factor = float(np.mean((x - x.mean()) * (y - y.mean()))) / spread
    constant = float(y.mean()) - factor * float(x.mean())
    fine, size = max(precision(of), precision(to)), float(np.abs(y).max())
    if abs(constant) <= 8 * fine * size / math.sqrt(x.size) + 8 * fine * float(np.abs(y).mean()):
        factor, constant = float(x @ y) / float(x @ x), 0.0
    room = 4 * fine * (np.abs(y) + abs(constant)) + 1e-300
    return (factor, constant) if factor and np.all(np.abs(x * factor + constant - y) <= room) else None


def affine(x: np.ndarray, y: np.ndarray) -> Relation | None:
    """A factor, a constant, or both, by which ``y`` follows from ``x``."""
    found = fit(x, y)
    if found is None:
        return None
    factor, constant = found
    fine = 8 * max(precision(x), precision(y))
    times = f"times {factor:.7g}" if abs(factor - 1.0) > fine else ""
    plus = f"plus {constant:.7g}" if constant else ""
    short = " ".join(filter(None, (times, plus)))
    if times and not plus:
        return Relation(
            "scaled", f"{{to}} is {{of}} {short}: one of them is scaled, as by a scheduler's init_noise_sigma", short
        )
    if times:
        return Relation("scaled", f"{{to}} is {{of}} {short}: a factor and a constant", short)
    return Relation("offset", f"{{to}} is {{of}} {short}: a constant was added, as by a mean", short) if plus else None


def same_values(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether two arrays of one size hold the same values in any order."""
    if x.size != y.size or float(np.sum(np.abs(x), dtype=np.float64)) == 0.0:
        return False
    sums = [float(np.sum(np.square(v.astype(np.float64)))) for v in (x, y)]
    if not math.isclose(*sums, rel_tol=1e-9):
        return False
    return np.array_equal(np.sort(x, axis=None), np.sort(y, axis=None))


def reordered(of: np.ndarray, to: np.ndarray) -> Relation | None:
    """How ``to`` holds the values of ``of`` in another order; None where it does not hold the same values."""
    if not same_values(of, to):
        return None
    for words, moved in _layouts(of):
        if moved.shape == to.shape and np.array_equal(moved, to):
            return _in_order(words)
        if (axes := _axes(moved, to)) is not None:
            return _in_order(f"{words} and {axes}" if words else axes)
    for words, moved in _layouts(of):
        head = moved.reshape(-1)[:64]
        if np.array_equal(head, to.reshape(-1)[:64]) and np.array_equal(moved.reshape(-1), to.reshape(-1)):
            return _in_order(f"{words}, read as {list(to.shape)}")
    return _in_order("in another order, which no layout or mirror tried explains")


def _in_order(words: str) -> Relation:
    return Relation("order", f"{{to}} holds {{of}}'s values {words}", words)


_NAMES = {
    (0, 2, 3, 1): "stored as NHWC where {of} is NCHW",
    (0, 3, 1, 2): "stored as NCHW where {of} is NHWC",
    (0, 1, 3, 2): "with height and width swapped",
    (1, 2, 0): "stored as HWC where {of} is CHW",
    (2, 0, 1): "stored as CHW where {of} is HWC",
    (0, 2, 1): "with height and width swapped",
}


def _layouts(of: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Axes in another order, and mirrored: likely ones first, in words."""
    dims = of.ndim
    if dims > 4:
        return
    orders = sorted(itertools.permutations(range(dims)), key=lambda order: (order != tuple(range(dims)), order))
    mirrors = [m for count in range(dims + 1) for m in itertools.combinations(range(dims), count)]
    for mirror in mirrors:
        for order in orders:
            moved = np.flip(of.transpose(order), mirror)
            if order == tuple(range(dims)):
                words = _mirrored(mirror, dims)
            else:
                words = _NAMES.get(order, f"with axes in the order {', '.join(map(str, order))}")
                words += f" and {_mirrored(mirror, dims)}" if mirror else ""
            yield words, moved


def _mirrored(axes: tuple[int, ...], dims: int) -> str:
    if not axes:
        return ""
    if dims >= 2 and axes == (dims - 2, dims - 1):
        return "turned by 180 degrees"
    names = {dims - 1: "left to right", dims - 2: "top to bottom"} if dims > 1 else {}
    if all(axis in names for axis in axes):
        return "mirrored " + " and ".join(names[axis] for axis in axes)
    return "reversed along " + " and ".join(f"axis {axis}" for axis in axes)


def _axes(moved: np.ndarray, to: np.ndarray) -> str | None:
    """One axis whose slices stand in another order."""
    if moved.shape != to.shape:
        return None
    for axis in range(moved.ndim):
        count = moved.shape[axis]
        if not 1 < count <= 4096 or count == moved.size:
            continue
        a, b = (np.moveaxis(v, axis, 0).reshape(count, -1) for v in (moved, to))
        order = [next((i for i in np.flatnonzero(a[:, 0] == row[0]) if np.array_equal(a[i], row)), -1) for row in b]
        if sorted(order) == list(range(count)) and order != list(range(count)):
            what = "channels" if axis == moved.ndim - 3 else "batch items" if axis == 0 else f"slices of axis {axis}"
            shown = ", ".join(map(str, order[:8])) + (", …" if count > 8 else "")
            return f"with {what} in the order {shown}"
    return None


def _shift(x: np.ndarray, y: np.ndarray) -> Relation | None:
    for later, earlier, text in (
        (x, y, "{to} is {of} from value %d on: %d more values were drawn before {to}"),
        (y, x, "{of} is {to} from value %d on: %d more values were drawn before {of}"),
    ):
        for start in np.flatnonzero(later == earlier[0])[:8].tolist():
            if 0 < start <= x.size - max(8, x.size // 8) and np.array_equal(later[start:], earlier[: x.size - start]):
                return Relation("shift", text % (start, start))
    return None


def _cut(of: np.ndarray, to: np.ndarray) -> Relation | None:
    """A smaller array that lies in a larger one, as a block or as a run of its values."""
    if to.size < 8:
        return None
    flat, wanted = of.reshape(-1), to.reshape(-1)
    block = to.reshape((1,) * (of.ndim - to.ndim) + to.shape) if to.ndim <= of.ndim else None
    for start in np.flatnonzero(flat == wanted[0])[:16].tolist():
        if block is not None:
            corner = tuple(int(i) for i in np.unravel_index(start, of.shape))
            stops = [begin + block.shape[axis] for axis, begin in enumerate(corner)]
            if all(stop <= size for stop, size in zip(stops, of.shape, strict=True)):
                where = tuple(slice(begin, stop) for begin, stop in zip(corner, stops, strict=True))
                if np.array_equal(of[where], block):
                    shown = ", ".join(f"{begin}:{stop}" for begin, stop in zip(corner, stops, strict=True))
                    return Relation("cut", f"{{to}} is cut out of {{of}}: [{shown}]")
        if np.array_equal(flat[start : start + to.size], wanted):
            return Relation("part", f"{{to}} holds values {start} to {start + to.size - 1} of {{of}} in order")
    return None


def observations(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[str, str]]:
    """Kinds and sentences on where two arrays of one shape are equal, though that does not explain the rest."""
    if a.shape != b.shape or a.size == 0:
        return
    x, y = a.reshape(-1), b.reshape(-1)
    if a.ndim > 1 and len(a) > 1 and np.array_equal(a[0], b[0]) and not any(map(np.array_equal, a[1:], b[1:])):
        yield (
            "batch",
            "the first items are equal, all others differ: one stream for the batch, or one generator for each item",
        )
        return
    if x.size > 16 and x.size % 16 and np.array_equal(x[:-16], y[:-16]):
        yield (
            "ragged",
            f"only the last 16 values differ, and {x.size} is no multiple of 16: the ragged end is drawn differently",
        )
        return
    unequal = x != y
    first = int(np.argmax(unequal))
    if unequal.any() and first >= max(16, x.size // 64) and np.mean(unequal[first:]) > 0.9:
        yield "equal-front", f"the first {first} values are equal, and hardly any behind them"
