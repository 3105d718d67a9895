"""Where do two arrays of random values part, and why?

1. :func:`compare` counts: shapes, dtypes, first differing value, share, largest difference.
2. :func:`identify` draws candidate streams and says which of them an array is, rounding and scaling included.
3. :func:`explain` names the cause: first from what can be seen in the two arrays alone (rounding, one factor, a shift,
   a ragged end), then from what each was identified as.

A cause is only named when it accounts for every value; otherwise there is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from parity.errors import ParityError
from parity.streams.catalogue import open as open_stream
from parity.streams.torch_half import rounded

# in the order in which they are tried: likely ones first
_CANDIDATES: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("torch-cpu", "float32", {"kernel": "avx2"}),
    ("torch-cpu", "float32", {"kernel": "libm"}),
    ("numpy-legacy", "float64", {}),
    ("swift-torch", "float32", {}),
    ("swift-nvidia", "float32", {}),
    ("torch-cuda", "float32", {}),
    ("torch-cpu", "float16", {"torch_version": "2.13"}),
    ("torch-cpu", "float16", {"torch_version": "2.12"}),
    ("torch-cpu", "float16", {"torch_version": "2.11"}),
    ("torch-cpu", "bfloat16", {"torch_version": "2.13"}),
    ("torch-cpu", "bfloat16", {"torch_version": "2.12"}),
    ("torch-cpu", "bfloat16", {"torch_version": "2.11"}),
    ("torch-cpu", "float64", {}),
    ("numpy-pcg64", "float64", {}),
    ("numpy-pcg64", "float32", {}),
)
_HARDWARE = 4e-6  # what torch-cuda may be off by: a GPU's own sine and cosine
_SHIFTS = 64


_RELATED = {
    frozenset(
        ("torch-cpu", "swift-torch")
    ): "swift-torch does torch-cpu's Box-Muller in Double: values agree to about 2e-6",
    frozenset(
        ("torch-cuda", "swift-nvidia")
    ): "swift-nvidia does torch-cuda's Box-Muller in Double: values agree to about 2e-6, up to the size of one grid",
}


@dataclass(frozen=True)
class Difference:
    """Two arrays, value by value in float64.

    Attributes
    ----------
    count, differing : int
        Values, and how many of them differ (NaN equals NaN).
    first : tuple of int or None
        Index of the first differing value, in C order.
    first_values : tuple of float or None
        The two values there.
    largest : float
        Largest absolute difference.
    largest_at : tuple of int or None
        Where it is.
    """

    count: int
    differing: int
    first: tuple[int, ...] | None
    first_values: tuple[float, float] | None
    largest: float
    largest_at: tuple[int, ...] | None

    @property
    def share(self) -> float:
        """Share of values that differ."""
        return self.differing / self.count

    def __str__(self) -> str:
        if not self.differing:
            return f"equal: all {self.count} values"
        assert self.first_values is not None
        a, b = self.first_values
        return (
            f"{self.differing} of {self.count} values differ ({self.share:.2%}); first at {self.first}: "
            f"{a:.9g} against {b:.9g}; largest difference {self.largest:.3g} at {self.largest_at}"
        )


@dataclass(frozen=True)
class Origin:
    """A stream that an array was recognised as."""

    name: str
    seed: int
    drawn: str
    options: tuple[tuple[str, str], ...]
    exact: bool

    def __str__(self) -> str:
        words = "".join(f", {key} {value}" for key, value in self.options)
        return f"{self.name} seed {self.seed}, drawn as {self.drawn}{words}{'' if self.exact else ', approximately'}"


def compare(a: np.ndarray, b: np.ndarray) -> Difference | None:
    """Compare two arrays of one shape in float64; None where the shapes differ or nothing is there to compare."""
    if a.shape != b.shape or a.size == 0:
        return None
    x, y = a.astype(np.float64), b.astype(np.float64)
    unequal = (x != y) & ~(np.isnan(x) & np.isnan(y))
    differing = int(np.count_nonzero(unequal))
    if not differing:
        return Difference(a.size, 0, None, None, 0.0, None)
    with np.errstate(invalid="ignore"):
        gaps = np.where(unequal, np.abs(x - y), 0.0)
    gaps = np.where(np.isnan(gaps), np.inf, gaps)
    at = _index(int(np.argmax(unequal)), a.shape)
    worst = _index(int(np.argmax(gaps)), a.shape)
    return Difference(a.size, differing, at, (float(x[at]), float(y[at])), float(gaps[worst]), worst)


def _index(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(flat, shape))


def identify(array: np.ndarray, seeds: Iterable[int]) -> Origin | None:
    """Say which stream an array is: drawn for its shape by one call, from one of the seeds, and rounded to its dtype.

    ``torch-cuda`` is recognised within the error of a GPU's sine and cosine and only below the size of an A100's grid.
    """
    for seed in seeds:
        for name, drawn, options in _CANDIDATES:
            try:
                values = open_stream(name, seed, **options).normal(array.shape, dtype=drawn)
            except ParityError:  # a seed that this producer refuses
                continue
            rounded = values.astype(array.dtype)
            if np.array_equal(rounded, array):
                return Origin(name, seed, drawn, tuple(options.items()), name != "torch-cuda")
            if name == "torch-cuda" and np.allclose(rounded, array, rtol=0.0, atol=_HARDWARE):
                return Origin(name, seed, drawn, tuple(options.items()), False)
    return None


def explain(a: np.ndarray, b: np.ndarray, *, seeds: Iterable[int] = (93, 0, 42)) -> list[str]:
    """Name the causes for which two arrays differ, most telling first; an empty list when none is found.

    Parameters
    ----------
    a, b : array of float
        Latents as drawn.
    seeds : iterable of int
        Seeds to try, each with its two neighbours.
    """
    found = list(_visible(a, b))
    tried = list(dict.fromkeys(s + step for s in seeds for step in (0, 1, -1) if s + step >= 0))
    origins = [identify(array, tried) for array in (a, b)]
    for which, origin in zip("AB", origins, strict=True):
        if origin:
            found.append(f"{which} is {origin}")
    if origins[0] and origins[1] and origins[0] != origins[1]:
        found.extend(_between(origins[0], origins[1], a))
    return found


def _visible(a: np.ndarray, b: np.ndarray) -> Iterator[str]:
    """Causes that show without knowing any stream."""
    if a.shape != b.shape:
        yield f"shapes differ: {a.shape} against {b.shape}"
        if a.size == b.size and np.array_equal(a.reshape(-1), b.reshape(-1)):
            yield "the values are equal in order: only the shape differs"
        return
    if np.array_equal(a, b):
        return
    for which, other, x, y in (("A", "B", a, b), ("B", "A", b, a)):
        for kind in ("float16", "bfloat16", "float32"):
            if np.array_equal(_rounded(x, kind), y.astype(np.float64)):
                yield f"{other} is {which} rounded to {kind}"
                return
    factor = _factor(a, b)
    if factor is not None:
        yield f"B is A times {factor:.7g}: one of them is scaled, as by a scheduler's init_noise_sigma"
    x, y = a.reshape(-1).astype(np.float64), b.reshape(-1).astype(np.float64)
    if x.size > 2 * _SHIFTS:
        for shift in range(1, _SHIFTS + 1):
            if np.array_equal(x[shift:], y[:-shift]):
                yield f"B is A from value {shift} on: {shift} more values were drawn before B"
            elif np.array_equal(y[shift:], x[:-shift]):
                yield f"A is B from value {shift} on: {shift} more values were drawn before A"
    if a.ndim > 1 and len(a) > 1 and np.array_equal(a[0], b[0]) and not any(map(np.array_equal, a[1:], b[1:])):
        yield "the first items are equal, all others differ: one stream for the batch, or one generator for each item"
    tail = x.size % 16
    if tail and x.size > 16 and np.array_equal(x[:-16], y[:-16]):
        yield f"only the last 16 values differ, and {x.size} is no multiple of 16: the ragged end is drawn differently"


def _rounded(values: np.ndarray, kind: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        return rounded(values.astype(np.float32), kind).astype(np.float64)


def _factor(a: np.ndarray, b: np.ndarray) -> float | None:
    x, y = a.reshape(-1).astype(np.float64), b.reshape(-1).astype(np.float64)
    power = float(x @ x)
    if not power or not np.isfinite(power):
        return None
    factor = float(x @ y) / power
    precision = max(float(np.finfo(array.dtype).eps) for array in (a, b))
    close = np.allclose(x * factor, y, rtol=2 * precision, atol=0.0)
    return factor if close and abs(factor - 1.0) > 4 * precision else None


def _between(a: Origin, b: Origin, array: np.ndarray) -> Iterator[str]:
    """What sets two origins apart."""
    if a.seed != b.seed:
        yield f"seeds differ by {b.seed - a.seed}: programs number the images of a batch in different ways"
    names = frozenset((a.name, b.name))
    if names in _RELATED:
        yield _RELATED[names]
        if "swift-torch" in names and array.size > 16 and array.size % 16:
            yield f"{array.size} is no multiple of 16: the Swift source draws the ragged end from other words"
    elif len(names) == 2:
        yield f"{a.name} and {b.name} are different streams: the same seed gives unrelated values"
    elif a.name == "torch-cpu":
        first, second = dict(a.options), dict(b.options)
        if first.get("torch_version") != second.get("torch_version"):
            yield (
                "torch changed how half types are drawn in releases 2.12 and 2.13: since then they are the float32 "
                "values, rounded, and before that a stream of their own"
            )
        elif first != second:
            yield "torch's two CPU kernels: avx2 (CPUs with AVX2) and libm (others, and ATEN_CPU_CAPABILITY=default)"
    if a.name == b.name and a.drawn != b.drawn:
        yield f"drawn as {a.drawn} against {b.drawn}: each dtype is drawn by its own rule, not rounded from another"
