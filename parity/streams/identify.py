"""Which stream is an array?

Candidates are streams as programs ask them: drawn in one call or value by value, one generator for the batch or for
each of its items, the first draw or a later one. Each is drawn for the array's shape and compared with it: for equality
after rounding to the array's dtype, then with a factor and a constant, then in another order. ``torch-cuda``,
``torch-mps`` and ``jax`` are recognised within the last bits that are not known of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity import quiet
from parity.errors import ParityError
from parity.streams.catalogue import open as open_stream
from parity.streams.cuda_devices import DEVICES
from parity.streams.relations import affine, precision, reordered
from parity.streams.stream import Stream
from parity.streams.swift import SwiftStream

HARDWARE = 4e-6
"""What a stream may be off by that a GPU's own functions, or XLA's, take part in."""

_DRAWS = 8  # later draws of one stream are looked for up to this one
_SIZE = 8  # fewer values could be anything


@dataclass(frozen=True)
class Candidate:
    """A stream and how it is asked.

    Attributes
    ----------
    name, drawn : str
        Stream, and the dtype drawn.
    options : tuple of (str, value)
        Of the stream.
    how : str
        ``array`` (one call), ``each`` (value by value), ``items`` (a generator for each batch item: seed, seed + 1, …).
    """

    name: str
    drawn: str
    options: tuple[tuple[str, Any], ...] = ()
    how: str = "array"

    def opened(self, seed: int) -> Stream:
        """The seeded stream."""
        return open_stream(self.name, seed, **dict(self.options))

    def draw(self, stream: Stream, shape: tuple[int, ...], seed: int) -> np.ndarray:
        """The next draw."""
        if self.how == "items":
            items = [self.opened(seed + i).normal((1, *shape[1:]), dtype=self.drawn) for i in range(shape[0])]
            return np.concatenate(items)
        if self.how == "each" and isinstance(stream, SwiftStream):
            return stream.normal_each(shape, dtype=self.drawn)
        if self.how == "each":  # any target that is not contiguous; its own order of memory is C order here
            wide = np.empty((*shape, 2), "float32")
            stream.fill_normal(wide[..., 0], dtype=self.drawn)  # type: ignore[attr-defined]
            return np.ascontiguousarray(wide[..., 0])
        return stream.normal(shape, dtype=self.drawn)

    @property
    def loose(self) -> bool:
        """Whether last bits are not known."""
        return self.name in ("torch-cuda", "torch-mps", "jax")


def _torch(drawn: str, how: str = "array", **options: str) -> Candidate:
    return Candidate("torch-cpu", drawn, tuple(options.items()), how)


# likely ones first
_COMMON = (
    _torch("float32", kernel="avx2"),
    _torch("float32", kernel="libm"),
    Candidate("numpy-legacy", "float64"),
    Candidate("swift-torch", "float32"),
    Candidate("swift-nvidia", "float32"),
    Candidate("torch-cuda", "float32"),
    Candidate("torch-mps", "float32"),
    Candidate("mlx", "float32", (("split", True),)),
    Candidate("mlx", "float32", (("split", False),)),
)
_RARE = (
    *(_torch(kind, torch_version=v) for kind in ("float16", "bfloat16") for v in ("2.13", "2.12", "2.11")),
    _torch("float64"),
    _torch("float32", kernel="avx2-unfused"),
    Candidate("numpy-pcg64", "float64"),
    Candidate("numpy-pcg64", "float32"),
    Candidate("webui-nv", "float32"),
    Candidate("torch-cuda", "float64"),
    Candidate("mlx", "float16", (("split", True),)),
    Candidate("jax", "float32", (("partitionable", True),)),
    Candidate("jax", "float32", (("partitionable", False),)),
)
_SLOW = (
    _torch("float32", "each"),
    Candidate("swift-torch", "float32", (), "each"),
    Candidate("swift-nvidia", "float32", (), "each"),
    _torch("float32", "items", kernel="avx2"),
    _torch("float32", "items", kernel="libm"),
    Candidate("torch-cuda", "float32", (), "items"),
)
_NTH = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


@dataclass(frozen=True)
class Origin:
    """A stream that an array was recognised as.

    Attributes
    ----------
    name, seed, drawn, options, how
        The stream and how it was asked, see :class:`Candidate`.
    exact : bool
        Every value equal; False where last bits are not known.
    nth : int
        Which draw of the stream, 0 for the first.
    then : str
        What was done to the draw, such as ``times 14.6146``; empty for nothing.
    """

    name: str
    seed: int
    drawn: str
    options: tuple[tuple[str, Any], ...]
    exact: bool
    how: str = "array"
    nth: int = 0
    then: str = ""

    def __str__(self) -> str:
        words = "".join(f", {key} {value}" for key, value in self.options)
        words += {"each": ", value by value", "items": ", one generator for each batch item"}.get(self.how, "")
        words += f", {_NTH[self.nth]} draw" if self.nth else ""
        words += f", {self.then}" if self.then else ""
        return f"{self.name} seed {self.seed}, drawn as {self.drawn}{words}{'' if self.exact else ', approximately'}"


@dataclass(frozen=True)
class Draw:
    """Values of a candidate."""

    candidate: Candidate
    seed: int
    nth: int
    values: np.ndarray

    def origin(self, *, device: str | None = None, then: str = "", exact: bool = True) -> Origin:
        """What an array is that was recognised by this draw."""
        it = self.candidate
        options = (*it.options, ("device", device)) if device else it.options
        return Origin(it.name, self.seed, it.drawn, options, exact and not it.loose, it.how, self.nth, then)


def neighbours(seeds: Iterable[int]) -> list[int]:
    """The seeds, those beside them, and what 32 bits leave of them; none is negative."""
    wide = [s % 2**32 for s in seeds if s >= 2**32]
    return [s for s in dict.fromkeys(s + step for s in [*seeds, *wide] for step in (0, 1, -1)) if s >= 0]


def draws(seeds: Sequence[int], shape: tuple[int, ...]) -> Iterator[Draw]:
    """All candidates' values for a shape: likely ones first; later draws for the seeds themselves alone."""
    near = neighbours(seeds)
    for candidates, tried, count in ((_COMMON, near, 1), (_RARE, near, 1), (_SLOW, seeds, 1), (_COMMON, seeds, _DRAWS)):
        for seed in tried:
            for candidate in candidates:
                if candidate.how == "items" and (len(shape) < 2 or shape[0] < 2):
                    continue
                yield from _series(candidate, seed, shape, count)


def _series(candidate: Candidate, seed: int, shape: tuple[int, ...], count: int) -> Iterator[Draw]:
    try:
        stream = candidate.opened(seed)
        for nth in range(count):
            values = candidate.draw(stream, shape, seed)
            if count == 1 or nth:
                yield Draw(candidate, seed, nth, values)
    except ParityError:  # a seed that this producer refuses
        return


def identify(array: np.ndarray, seeds: Sequence[int]) -> Origin | None:
    """Say which stream an array is, from one of the seeds; None where it is none, or where it has under 8 values.

    Parameters
    ----------
    array : array of float
        What was drawn by somebody.
    seeds : sequence of int
        Seeds to try, the first draw of each also with its two neighbours.
    """
    return identify_all([array], seeds)[0]


def identify_all(arrays: Sequence[np.ndarray], seeds: Sequence[int]) -> list[Origin | None]:
    """As :func:`identify`, for several arrays; candidates are drawn once for each shape."""
    found: list[Origin | None] = [None] * len(arrays)
    for shape in dict.fromkeys(array.shape for array in arrays):
        open_ones = {i for i, array in enumerate(arrays) if array.shape == shape and _varied(array)}
        for draw in draws(seeds, shape) if open_ones else ():
            for i in sorted(open_ones):
                found[i] = _match(draw, arrays[i])
            open_ones = {i for i in open_ones if found[i] is None}
            if not open_ones:
                break
    return found


def also(array: np.ndarray, origin: Origin, name: str) -> Origin:
    """The same array as a draw of another stream, asked in the same way, where that gives it too.

    torch's and the Swift package's single draws are equal once rounded to float32: which of them an array is, only its
    counterpart tells.
    """
    if origin.name == name or origin.how != "each" or origin.then:
        return origin
    candidate = next((c for c in _SLOW if (c.name, c.how) == (name, "each")), None)
    for draw in _series(candidate, origin.seed, array.shape, 1) if candidate else ():
        if np.array_equal(draw.values.astype(array.dtype), array):
            return draw.origin()
    return origin


def _varied(array: np.ndarray) -> bool:
    return array.size >= _SIZE and bool(np.isfinite(array).all()) and float(np.ptp(array)) > 0.0


def _match(draw: Draw, array: np.ndarray) -> Origin | None:
    values = draw.values
    with np.errstate(over="ignore"):
        rounded = values.astype(array.dtype)
    if np.array_equal(rounded, array):
        return draw.origin()
    if draw.candidate.loose:
        if _close(values, array):
            return draw.origin()
        if draw.candidate.name == "torch-cuda" and (device := _grid(draw, array)) is not None:
            return draw.origin(device=device)
    if abs(_correlation(values, array)) > 0.999:
        relation = affine(values, array)
        return draw.origin(then=relation.short) if relation else None
    for shape in _shapes(array.shape):
        if (relation := reordered(rounded.reshape(shape), array)) is not None:
            return draw.origin(then=relation.short.format(of="the draw"))
    return None


def _close(values: np.ndarray, array: np.ndarray) -> bool:
    wide = quiet.float64(array)
    return bool(np.allclose(quiet.float64(values), wide, rtol=2 * precision(array), atol=HARDWARE))


def _correlation(values: np.ndarray, array: np.ndarray) -> float:
    x, y = (quiet.float64(v.reshape(-1)[:4096]) for v in (values, array))
    return float(np.corrcoef(x, y)[0, 1]) if np.ptp(x) and np.ptp(y) else 0.0


def _grid(draw: Draw, array: np.ndarray) -> str | None:
    """The GPU whose grid gives the array, where its front is torch-cuda's and the rest is not that of an A100."""
    smallest = min(multiprocessors * threads for multiprocessors, threads in DEVICES.values())
    if array.size <= smallest or draw.candidate.how != "array" or draw.nth:
        return None
    if not _close(draw.values.reshape(-1)[:smallest], array.reshape(-1)[:smallest]):
        return None
    for (multiprocessors, threads), device in {geometry: name for name, geometry in DEVICES.items()}.items():
        stream = open_stream("torch-cuda", draw.seed, multiprocessors=multiprocessors, threads=threads)
        if _close(stream.normal(array.shape, dtype=draw.candidate.drawn), array):
            return device
    return None


def _shapes(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Shapes for which values may have been drawn that now lie in this one: NCHW, and NHWC."""
    if len(shape) != 4:
        return [shape]
    n, first, second, third = shape
    return list(dict.fromkeys([shape, (n, third, first, second), (n, second, third, first)]))


def blend(a: np.ndarray, b: np.ndarray, seeds: Sequence[int]) -> tuple[float, float, Origin] | None:
    """Factors alpha and beta, and a stream, for which b is alpha a plus beta times the stream's draw."""
    if a.shape != b.shape or not (_varied(a) and _varied(b)):
        return None
    x, y = quiet.float64(a).reshape(-1), quiet.float64(b).reshape(-1)
    fine = 8 * max(precision(a), precision(b))
    xx, xy = float(x @ x), float(x @ y)
    for draw in draws(seeds, a.shape):
        z = draw.values.reshape(-1).astype(np.float64)
        zz, xz, yz = float(z @ z), float(x @ z), float(y @ z)
        determinant = xx * zz - xz * xz
        if determinant < 1e-6 * xx * zz:
            continue
        alpha, beta = (xy * zz - yz * xz) / determinant, (yz * xx - xy * xz) / determinant
        room = fine * (np.abs(alpha * x) + np.abs(beta * z)) + HARDWARE * abs(beta) * draw.candidate.loose
        if min(abs(alpha), abs(beta)) > 1e-4 and np.all(np.abs(alpha * x + beta * z - y) <= room):
            return alpha, beta, draw.origin()
    return None
