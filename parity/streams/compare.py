"""Where do two arrays of random values part, and why?

1. :func:`compare` counts: shapes, dtypes, first differing value, share, largest difference.
2. :func:`explain` names causes. First what one array is of the other, whatever drew it
   (:mod:`parity.streams.relations`); where that is nothing, which streams they are (:mod:`parity.streams.identify`) and
   what sets those apart; then whether one is the other with noise of a known stream added. What is left is said, for
   each side.

A cause is only named when it accounts for every value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from parity import quiet
from parity.streams.identify import Origin, also, blend, identify, identify_all
from parity.streams.relations import observations, relate

__all__ = ["Cause", "Difference", "Origin", "compare", "explain", "identify"]

UNEXPLAINED = frozenset(("origin", "shapes", "batch", "equal-front", "remainder", "unknown"))
"""Kinds of causes that explain nothing by themselves."""

_RELATED = {
    frozenset(
        ("torch-cpu", "swift-torch")
    ): "swift-torch does torch-cpu's Box-Muller in Double: values agree to about 2e-6",
    frozenset(
        ("torch-cuda", "swift-nvidia")
    ): "swift-nvidia does torch-cuda's Box-Muller in Double: values agree to about 2e-6, up to the size of one grid",
    frozenset(("numpy-legacy", "swift-numpy")): "swift-numpy is numpy-legacy, rounded to Float32",
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
    undefined : int
        Values that are NaN in both.
    """

    count: int
    differing: int
    first: tuple[int, ...] | None
    first_values: tuple[float, float] | None
    largest: float
    largest_at: tuple[int, ...] | None
    undefined: int = 0

    @property
    def share(self) -> float:
        """Share of values that differ."""
        return self.differing / self.count

    def __str__(self) -> str:
        if not self.differing:
            nothing = f", {self.undefined} of them NaN in both: no stream draws that" if self.undefined else ""
            return f"equal: all {self.count} values{nothing}"
        assert self.first_values is not None
        a, b = self.first_values
        return (
            f"{self.differing} of {self.count} values differ ({self.share:.2%}); first at {self.first}: "
            f"{a:.9g} against {b:.9g}; largest difference {self.largest:.3g} at {self.largest_at}"
        )


def compare(a: np.ndarray, b: np.ndarray) -> Difference | None:
    """Compare two arrays of one shape in float64; None where the shapes differ or nothing is there to compare."""
    if a.shape != b.shape or a.size == 0:
        return None
    x, y = quiet.float64(a), quiet.float64(b)
    undefined = np.isnan(x) & np.isnan(y)
    unequal = (x != y) & ~undefined
    differing, nothing = int(np.count_nonzero(unequal)), int(np.count_nonzero(undefined))
    if not differing:
        return Difference(a.size, 0, None, None, 0.0, None, nothing)
    with np.errstate(invalid="ignore"):
        gaps = np.where(unequal, np.abs(x - y), 0.0)
    gaps = np.where(np.isnan(gaps), np.inf, gaps)
    at = _index(int(np.argmax(unequal)), a.shape)
    worst = _index(int(np.argmax(gaps)), a.shape)
    return Difference(a.size, differing, at, (float(x[at]), float(y[at])), float(gaps[worst]), worst, nothing)


def _index(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(flat, shape))


@dataclass(frozen=True)
class Cause:
    """One sentence of an explanation.

    Attributes
    ----------
    kind : str
        Of a relation of the two arrays: see :class:`parity.streams.relations.Relation`. Of what sets two streams apart:
        ``seed``, ``seed-bits``, ``stream``, ``related``, ``draw``, ``how``, ``kernel``, ``release``, ``dtype``,
        ``geometry``, ``last-bits``, ``ragged``. ``noise``: a known stream was added. ``origin``: what one array is. The
        rest explains nothing by itself: ``shapes``, ``batch``, ``equal-front``, ``remainder``, ``unknown``.
    text : str
    """

    kind: str
    text: str

    def __str__(self) -> str:
        return self.text


@np.errstate(all="ignore")  # of NaN, infinity and huge values, which damaged files hold, nothing follows
def explain(a: np.ndarray, b: np.ndarray, *, seeds: Iterable[int] = (93, 0, 42)) -> list[Cause]:
    """Say why two arrays differ, most telling first, and for each side what it was not recognised as.

    Parameters
    ----------
    a, b : array of float
        Latents as drawn.
    seeds : iterable of int
        Seeds to try, the first draw of each also with its two neighbours.
    """
    tried = list(dict.fromkeys(seeds))
    for of, to, names in ((a, b, ("A", "B")), (b, a, ("B", "A"))):
        relation = relate(of, to)
        if relation is not None:
            causes = [Cause(relation.kind, relation.between(*names))]
            source = identify(of, tried)
            return causes + ([Cause("origin", f"{names[0]} is {source}")] if source else [])
    if a.shape == b.shape and np.array_equal(a, b):
        return [Cause("dtype", f"equal values in {a.dtype} and {b.dtype}")] if a.dtype != b.dtype else []
    return list(_apart(a, b, tried))


def _apart(a: np.ndarray, b: np.ndarray, seeds: list[int]) -> Iterator[Cause]:
    """Neither array follows from the other by itself."""
    if a.shape != b.shape:
        yield Cause("shapes", f"shapes differ: {a.shape} against {b.shape}")
    yield from (Cause(*seen) for seen in observations(a, b))
    origins = identify_all([a, b], seeds)
    if origins[0] and origins[1]:
        origins = [also(a, origins[0], origins[1].name), also(b, origins[1], origins[0].name)]
    for which, origin in zip("AB", origins, strict=True):
        if origin:
            yield Cause("origin", f"{which} is {origin}")
    first, second = origins
    if first and second:
        yield from _between(first, second, a, b)
        return
    mixed = blend(a, b, seeds)
    if mixed:
        alpha, beta, noise = mixed
        yield Cause("noise", f"B is A times {alpha:.6g} plus {noise} times {beta:.6g}: noise was added, or mixed in")
        return
    yield from _remainder(a, b)
    for which, origin in zip("AB", origins, strict=True):
        if not origin:
            shown = ", ".join(map(str, seeds[:4])) + (", …" if len(seeds) > 4 else "")
            yield Cause(
                "unknown", f"{which} was not recognised: no known stream for seeds {shown} or those beside them"
            )


def _remainder(a: np.ndarray, b: np.ndarray) -> Iterator[Cause]:
    """How much of B is A, where neither a relation nor a stream tells the rest."""
    if a.shape != b.shape or a.size < 16:
        return
    x, y = (quiet.float64(v).reshape(-1) for v in (a, b))
    unequal = int(np.count_nonzero(x != y))
    if unequal < 0.02 * x.size:
        yield Cause("remainder", f"all but {unequal} of {x.size} values are equal: single values were changed")
        return
    if not (np.isfinite(x).all() and np.isfinite(y).all() and np.ptp(x) and np.ptp(y)):
        return
    together = float(np.corrcoef(x, y)[0, 1])
    if abs(together) > max(0.1, 5 / np.sqrt(x.size)):
        slope = together * float(y.std() / x.std())
        rest = float(np.std(y - slope * x))
        yield Cause(
            "remainder",
            f"B is A times {slope:.4g} plus a remainder of standard deviation {rest:.3g} that is no stream tried "
            f"(correlation {together:.4f})",
        )


_RELEASE = Cause(
    "release",
    "torch changed how half types are drawn in releases 2.12 and 2.13: since then they are the float32 values, "
    "rounded, and before that a stream of their own",
)


def _old_halves(a: Origin, b: Origin, x: np.ndarray, y: np.ndarray) -> bool:
    """Both are stored in float16; one follows the rule up to 2.11, the other is float32 rounded, as since 2.13."""
    rules = {dict(origin.options).get("torch_version") for origin in (a, b)}
    return x.dtype == y.dtype == np.float16 and {a.drawn, b.drawn} == {"float16", "float32"} and "2.11" in rules


_WORD = 1 << 32
_LOW_BITS = (frozenset(("torch-cpu",)), frozenset(("torch-cpu", "swift-torch")))  # seeded by the low 32 bits
_HOW = {
    "array": "drawn in one call",
    "each": "drawn value by value",
    "items": "drawn by one generator for each batch item",
}


def _between(a: Origin, b: Origin, x: np.ndarray, y: np.ndarray) -> Iterator[Cause]:
    """What sets two origins apart."""
    names = frozenset((a.name, b.name))
    if a.seed != b.seed:
        yield _seeds(a, b, names)
    if a.nth != b.nth:
        yield Cause("draw", f"A is draw {a.nth + 1} of its stream and B draw {b.nth + 1}: one was drawn later")
    if a.how != b.how:
        yield Cause("how", f"A was {_HOW[a.how]}, B was {_HOW[b.how]}")
    if a.then != b.then:
        yield Cause("then", f"A is its draw {a.then or 'as it is'}, B is its draw {b.then or 'as it is'}")
    if names in _RELATED:
        yield Cause("related", _RELATED[names])
        if "swift-torch" in names and x.size > 16 and x.size % 16:
            yield Cause(
                "ragged", f"{x.size} is no multiple of 16: the Swift source draws the ragged end from other words"
            )
    elif len(names) == 2:
        yield Cause("stream", f"{a.name} and {b.name} are different streams: the same seed gives unrelated values")
    else:
        yield from _options(a, b)
        yield from _dtypes(a, b, x, y)
    if a == b:
        yield Cause("last-bits", f"both are {a.name}, whose last bits depend on the device: they agree to about 4e-6")


def _seeds(a: Origin, b: Origin, names: frozenset[str]) -> Cause:
    """Two different seeds."""
    if names in _LOW_BITS and (a.seed - b.seed) % _WORD == 0:
        large, small = max(a.seed, b.seed), min(a.seed, b.seed)
        text = f"{small} is {large} modulo 2**32, and torch-cpu draws from these 32 bits of a seed alone"
        return Cause("seed-bits", text)
    return Cause("seed", f"seeds differ by {b.seed - a.seed}: programs number the images of a batch in different ways")


def _dtypes(a: Origin, b: Origin, x: np.ndarray, y: np.ndarray) -> Iterator[Cause]:
    """Two dtypes of one stream."""
    if a.drawn != b.drawn and _old_halves(a, b, x, y):
        yield _RELEASE
    elif a.drawn != b.drawn:
        yield Cause("dtype", f"drawn as {a.drawn} against {b.drawn}: each dtype is drawn by its own rule, not rounded")


def _options(a: Origin, b: Origin) -> Iterator[Cause]:
    """Options of one stream that differ."""
    first, second = dict(a.options), dict(b.options)
    rules = [options.get("torch_version") for options in (first, second)]
    if all(rules) and rules[0] != rules[1]:
        yield _RELEASE
    elif first.get("kernel") and second.get("kernel") and first["kernel"] != second["kernel"]:
        yield Cause(
            "kernel",
            "torch's two CPU kernels: avx2 (CPUs with AVX2) and libm (others, and ATEN_CPU_CAPABILITY=default)",
        )
    if first.get("device") != second.get("device"):
        shown = [options.get("device", "a grid at least as large") for options in (first, second)]
        yield Cause("geometry", f"torch-cuda beyond one grid depends on the GPU's size: {shown[0]} against {shown[1]}")
    for option, words in (
        ("split", "mlx: by the default key of mx.random.seed against a key of its own"),
        ("partitionable", "jax changed how it numbers words in release 0.5"),
    ):
        if first.get(option) != second.get(option):
            yield Cause("release" if option == "partitionable" else "how", words)
