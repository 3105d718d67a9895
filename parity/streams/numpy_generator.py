"""``numpy.random.default_rng``: standard_normal in float64 and float32, and random, to the bit.

A word gives a layer of the ziggurat (8 bits), a sign and a mantissa; 98.8 % of words are accepted at once. Therefore
all words of a block are looked at as if each began a value; then those not accepted are walked, in order, because each
of them uses up words behind it:

* in a layer, one more word decides between taking the value and starting again;
* in the tail, pairs of words are drawn until one is accepted.

float32 values take half words: the low half first, while the high half waits, across calls and 64-bit draws.

Proved by test against NumPy. The tail of float32 (0.03 % of values) calls the C library's ``log1pf``; where Python
cannot reach it the rounded ``log1p`` stands in, which differs in one value of a million.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from parity.errors import FormatError, UsageError
from parity.streams.pcg import PCG64
from parity.streams.stream import Shape, Stream, TypeUsageError
from parity.streams.ziggurat import EDGE, INVERSE_EDGE, tables32, tables64

_F = np.float32


@functools.cache
def _log1pf() -> Callable[[float], float]:
    import ctypes  # loaded when first needed

    try:
        function = ctypes.CDLL(None).log1pf
    except (OSError, TypeError, AttributeError):  # no such symbol in the process, as on Windows
        return lambda x: float(_F(math.log1p(x)))
    function.argtypes, function.restype = [ctypes.c_float], ctypes.c_float
    return function


class _Double:
    """float64 values from 64-bit words."""

    dtype: np.dtype = np.dtype(np.float64)

    def __init__(self) -> None:
        self.tables = tables64()

    def candidates(self, words: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Layer, value and whether it is accepted at once, for every word."""
        layer = (words & np.uint64(0xFF)).view(np.int64)
        mantissa = (words >> np.uint64(9)) & np.uint64((1 << 52) - 1)
        value = mantissa.view(np.int64).astype(np.float64)
        np.multiply(value, self.tables.width.take(layer), value)
        bits = value.view(np.uint64)
        np.bitwise_or(bits, (words & np.uint64(0x100)) << np.uint64(55), bits)
        return layer, value, mantissa < self.tables.inside.take(layer)

    def uniform(self, word: int) -> float:
        return (word >> 11) * 2.0**-53

    def below(self, layer: np.ndarray, words: np.ndarray, value: np.ndarray) -> np.ndarray:
        """Whether points on the layers' edges, at heights that the words give, lie under the curve."""
        height = self.tables.height
        lower = height.take(layer)
        edge = (height.take(layer - 1) - lower) * self.uniforms(words) + lower
        return edge < np.fromiter((math.exp(-0.5 * x * x) for x in value.tolist()), np.float64, len(value))

    def uniforms(self, words: np.ndarray) -> np.ndarray:
        return (words >> np.uint64(11)).view(np.int64) * 2.0**-53

    def tail(self, word: int, pairs: Iterator[int]) -> float:
        while True:
            x = -INVERSE_EDGE * math.log1p(-self.uniform(next(pairs)))
            y = -math.log1p(-self.uniform(next(pairs)))
            if y + y > x * x:
                return -(EDGE + x) if word >> 17 & 1 else EDGE + x


class _Single(_Double):
    """float32 values from 32-bit words; every operation in float32."""

    dtype = np.dtype(np.float32)

    def __init__(self) -> None:
        self.tables = tables32()

    def candidates(self, words: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        layer = (words & np.uint32(0xFF)).astype(np.intp)
        mantissa = words >> np.uint32(9)
        value = mantissa.view(np.int32).astype(np.float32)
        np.multiply(value, self.tables.width.take(layer), value)
        bits = value.view(np.uint32)
        np.bitwise_or(bits, (words & np.uint32(0x100)) << np.uint32(23), bits)
        return layer, value, mantissa < self.tables.inside.take(layer)

    def uniform(self, word: int) -> float:
        return (word >> 8) * 2.0**-24

    def uniforms(self, words: np.ndarray) -> np.ndarray:
        return (words >> np.uint32(8)).astype(np.float32) * _F(2.0**-24)

    def tail(self, word: int, pairs: Iterator[int]) -> float:
        log1pf = _log1pf()
        while True:
            x = _F(-INVERSE_EDGE) * _F(log1pf(-self.uniform(next(pairs))))
            y = -_F(log1pf(-self.uniform(next(pairs))))
            if y + y > x * x:
                return float(-(_F(EDGE) + x) if word >> 17 & 1 else _F(EDGE) + x)


class NumpyPCG64(Stream):
    """The stream of ``numpy.random.default_rng(seed)``.

    Parameters
    ----------
    seed : int or sequence of int
        Not negative, of any size.

    Raises
    ------
    UsageError
        Negative seed (a ``ValueError``, as NumPy's).
    TypeUsageError
        Seed not an integer (a ``TypeError``, as NumPy's).
    """

    name = "numpy-pcg64"
    dtypes = ("float64", "float32")

    def __init__(self, seed: int | Sequence[int]) -> None:
        self._words = PCG64.from_seed(_entropy(seed))
        self._half: int | None = None
        self._last_half = 0  # NumPy's uinteger: the high half kept last, waiting or used up
        self._kinds: dict[str, _Double] = {}

    def normal(self, shape: Shape, *, dtype: str | None = None, mean: float = 0.0, std: float = 1.0) -> np.ndarray:
        """Draw as ``standard_normal(shape, dtype)`` does; with mean or std as ``normal``, which is float64 alone."""
        kind = self._dtype(dtype)
        if (mean, std) != (0.0, 1.0) and kind != "float64":
            raise UsageError(f"mean and std: NumPy's Generator.normal draws float64 alone, not {kind}")
        if std < 0:
            raise UsageError(f"std {std}: must not be negative")
        out = self._empty(shape, kind)
        if kind not in self._kinds:
            self._kinds[kind] = _Double() if kind == "float64" else _Single()
        fill = self._kinds[kind]
        flat, start = out.reshape(-1), 0
        while start < flat.size:
            start += self._block(fill, flat[start:])
        if (mean, std) != (0.0, 1.0):
            np.multiply(out, std, out)
            np.add(out, mean, out)
        return out

    def _block(self, fill: _Double, out: np.ndarray) -> int:
        """Fill the front of ``out`` from the words at hand and tell how far it is filled."""
        words = self._peek(fill, out.size + out.size // 16 + 8)
        layer, value, keep = fill.candidates(words)
        rejected = np.flatnonzero(~keep)
        edges: list[int] = []
        ends: dict[int, int] = {}  # where the next value begins, behind those that took several words
        begin, complete = 0, len(words)
        for at, bottom in zip(rejected.tolist(), (layer.take(rejected) == 0).tolist(), strict=True):
            if at < begin:  # used up as a uniform
                continue
            try:
                begin = self._tail(fill, at, words, value, keep) if bottom else at + 2
            except IndexError:
                begin = len(words) + 1
            if begin > len(words):  # words beyond those at hand are needed
                complete = at
                break
            ends[at] = begin
            if not bottom:
                edges.append(at)
        at = np.array(edges, np.intp)
        keep[at] = fill.below(layer[at], words[at + 1], value[at])
        keep[at + 1] = False
        places = np.flatnonzero(keep[:complete])[: out.size]
        count = len(places)
        value.take(places, None, out[:count], "clip")
        if count == out.size:
            last = int(places[-1])
            self._advance(fill, ends.get(last, last + 1))
            return count
        self._advance(fill, complete)
        if complete == len(words):
            return count
        out[count] = self._one(fill)
        return count + 1

    def _tail(self, fill: _Double, at: int, words: np.ndarray, value: np.ndarray, keep: np.ndarray) -> int:
        """Draw from the tail on behalf of the word at ``at``; return where the next value begins."""
        used: list[int] = []

        def following() -> Iterator[int]:
            while True:
                used.append(int(words[at + 1 + len(used)]))  # IndexError where the words at hand end
                yield used[-1]

        value[at], keep[at] = fill.tail(int(words[at]), following()), True
        end = at + 1 + len(used)
        keep[at + 1 : end] = False
        return end

    def _one(self, fill: _Double) -> float:
        """Draw one value, word by word."""
        following = iter(lambda: self._word(fill), None)
        while True:
            word = np.array([self._word(fill)], np.uint64 if fill.dtype.itemsize == 8 else np.uint32)
            layer, value, accepted = fill.candidates(word)
            if accepted[0]:
                return float(value[0])
            if layer[0] == 0:
                return fill.tail(int(word[0]), following)
            if fill.below(layer, np.array([self._word(fill)], word.dtype), value)[0]:
                return float(value[0])

    def _peek(self, fill: _Double, wanted: int) -> np.ndarray:
        words = self._words.peek()
        if fill.dtype.itemsize == 8:
            return words[:wanted]
        halves = words[: wanted // 2 + 1].astype("<u8").view("<u4")
        return halves if self._half is None else np.concatenate([np.array([self._half], np.uint32), halves])

    def _advance(self, fill: _Double, count: int) -> None:
        if fill.dtype.itemsize == 8:
            self._words.advance(count)
            return
        if count and self._half is not None:
            self._half = None
            count -= 1
        pairs, odd = divmod(count, 2)
        if pairs:
            self._last_half = int(self._words.peek()[pairs - 1]) >> 32
        self._words.advance(pairs)
        if odd:
            self._half = self._last_half = self._words.word() >> 32

    def _word(self, fill: _Double) -> int:
        if fill.dtype.itemsize == 8:
            return self._words.word()
        if self._half is not None:
            half, self._half = self._half, None
            return half
        word = self._words.word()
        self._half = self._last_half = word >> 32
        return word & 0xFFFFFFFF

    def uniform(self, shape: Shape, *, dtype: str | None = None) -> np.ndarray:
        """Draw as ``random(shape, dtype)`` does: 53 bits for float64, 24 for float32."""
        kind = self._dtype(dtype)
        out = self._empty(shape, kind)
        fill = _Double() if kind == "float64" else _Single()
        flat, start = out.reshape(-1), 0
        while start < flat.size:
            words = self._peek(fill, flat.size - start)[: flat.size - start]
            flat[start : start + len(words)] = fill.uniforms(words)
            self._advance(fill, len(words))
            start += len(words)
        return out

    def export_state(self) -> dict[str, Any]:
        """Return the dictionary that ``PCG64().state`` takes."""
        state, increment = self._words.state
        return {
            "bit_generator": "PCG64",
            "state": {"state": state, "inc": increment},
            "has_uint32": int(self._half is not None),
            "uinteger": self._last_half,
        }

    def import_state(self, state: dict[str, Any]) -> None:
        """Continue from what ``PCG64().state`` gave.

        Raises
        ------
        FormatError
            Not such a dictionary.
        """
        try:
            if state["bit_generator"] != "PCG64":
                raise FormatError(f"state: expected bit_generator 'PCG64', got {state['bit_generator']!r}")
            numbers = [operator.index(state["state"][name]) for name in ("state", "inc")]
            half = operator.index(state["uinteger"])
        except (KeyError, TypeError) as error:
            raise FormatError("state: expected the dictionary that numpy.random.PCG64().state gives") from error
        if not all(0 <= number < 2**128 for number in numbers) or not 0 <= half < 2**32:
            raise FormatError("state: a number is out of range")
        self._words = PCG64(*numbers)
        self._half, self._last_half = half if state["has_uint32"] else None, half


def _entropy(seed: Any) -> int | list[int]:
    try:
        numbers = [operator.index(seed)]
    except TypeError:
        try:
            numbers = [operator.index(item) for item in seed]
        except TypeError as error:
            raise TypeUsageError(f"seed {seed!r}: numpy-pcg64 takes an integer or a sequence of integers") from error
    if any(number < 0 for number in numbers):
        raise UsageError(f"seed {seed!r}: numpy-pcg64 takes integers that are not negative")
    return numbers
