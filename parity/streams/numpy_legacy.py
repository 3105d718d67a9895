"""``numpy.random.RandomState``: randn, normal, random_sample and randint, to the bit.

Words are MT19937's. A double takes two words. A normal comes from Marsaglia's polar method: pairs of doubles (four
words a try) are tried until one falls into the unit circle, which gives two normals. The one of the pair's second
coordinate is given at once; the other one is kept for the next call. Tries do not depend on one another, so a block of
them is done at once, and the words behind the last one needed are handed back.

Proved by test against NumPy. On macOS, NumPy's arm64 wheels contract one product of the polar method into a fused
multiply-add (``contracted=True``): 14 % of values change in their last bits, none once rounded to float32 or float16
(0 of 628 244). Apple's ``log`` is *not verified*.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from parity.errors import FormatError, UsageError
from parity.streams import exact
from parity.streams.loops import compiled
from parity.streams.mersenne import PEEK, SIZE, MersenneTwister, key_from_array, key_from_seed
from parity.streams.stream import Shape, Stream, TypeUsageError

_TRIES = PEEK // 4
_S5, _S6 = np.array(5, np.uint32), np.array(6, np.uint32)
_2_26, _2_M53, _2_M52 = np.array(2.0**26), np.array(2.0**-53), np.array(2.0**-52)
_ZERO, _ONE, _MINUS_TWO = np.array(0.0), np.array(1.0), np.array(-2.0)


class NumpyLegacy(Stream):
    """The stream of ``numpy.random.RandomState(seed)`` and of ``numpy.random.seed(seed)``.

    Parameters
    ----------
    seed : int or sequence of int
        0 to 2**32 - 1 each. A one-element array seeds as its element, a list does not; so it is in NumPy.
    contracted : bool
        Compute the squared radius as NumPy's macOS arm64 wheels do.

    Raises
    ------
    UsageError
        Seed out of range (a ``ValueError``, as NumPy's).
    TypeUsageError
        Seed not an integer (a ``TypeError``, as NumPy's).
    """

    name = "numpy-legacy"
    dtypes = ("float64",)

    def __init__(self, seed: int | Sequence[int], *, contracted: bool = False) -> None:
        self._words = MersenneTwister(_key(seed))
        self._kept: float | None = None
        self._contracted = contracted
        self._log = exact.logarithm()
        self._block, self._low = np.empty(PEEK // 2), np.empty(PEEK // 2)
        self._shifted = np.empty(PEEK // 2, np.uint32)
        self._planes = [np.empty(_TRIES) for _ in range(4)]

    def normal(self, shape: Shape, *, dtype: str | None = None, mean: float = 0.0, std: float = 1.0) -> np.ndarray:
        """Draw as ``randn`` does, and with mean or std as ``normal`` does. See the protocol."""
        out = self._empty(shape, self._dtype(dtype))
        if std < 0:
            raise UsageError(f"std {std}: must not be negative")
        flat = out.reshape(-1)
        start = 0
        if self._kept is not None and flat.size:
            flat[0], self._kept = self._kept, None
            start = 1
        while start < flat.size:
            start += self._compiled_polar(flat[start:]) if self._loops() else self._polar(flat[start:])
        if (mean, std) != (0.0, 1.0):
            np.multiply(out, std, out)
            np.add(out, mean, out)
        return out

    def _loops(self) -> Any:
        return None if self._contracted else compiled()

    def _compiled_polar(self, out: np.ndarray) -> int:
        words = self._words.peek(PEEK)
        used, filled, kept = self._loops().polar(words, out)
        self._words.advance(used)
        if filled == out.size and filled % 2:
            self._kept = kept
        return int(filled)

    def _polar(self, out: np.ndarray) -> int:
        """Fill the front of ``out`` from one block of tries and tell how far it is filled."""
        pairs = (out.size + 1) // 2
        tries = min(_TRIES, pairs + pairs // 2 + 8)
        words = self._words.peek(4 * tries)
        x = self._doubles(words, _2_M52)
        np.subtract(x, _ONE, x)
        x1, x2, r2, other = (plane[:tries] for plane in self._planes)
        np.copyto(x1, x[0::2])
        np.copyto(x2, x[1::2])
        np.multiply(x2, x2, r2)
        if self._contracted:
            r2 = exact.fma(x1, x1, r2)
        else:
            np.add(np.multiply(x1, x1, other), r2, r2)
        accepted = np.flatnonzero((r2 < _ONE) & (r2 != _ZERO))[:pairs]
        found = len(accepted)
        self._words.advance(4 * (int(accepted[-1]) + 1) if found == pairs else len(words))
        factor, scratch = other[:found], self._block[:found]
        r2 = r2.take(accepted)
        self._log(r2, factor)
        np.multiply(factor, _MINUS_TWO, factor)
        np.divide(factor, r2, factor)
        np.sqrt(factor, factor)
        given = min(out.size, 2 * found)
        np.multiply(factor, x2.take(accepted, None, scratch, "clip"), out[0:given:2])
        np.multiply(factor, x1.take(accepted, None, scratch, "clip"), scratch)
        out[1:given:2] = scratch[: given // 2]
        if given % 2:
            self._kept = float(scratch[-1])
        return given

    def _doubles(self, words: np.ndarray, unit: np.ndarray) -> np.ndarray:
        """Two words a value: 53 bits, times ``unit``. The array is overwritten by the next call."""
        count = len(words) // 2
        values, low, shifted = self._block[:count], self._low[:count], self._shifted[:count]
        np.right_shift(words[0::2], _S5, shifted)
        np.copyto(values, shifted.view(np.int32))  # 27 bits at most; signed ones convert faster
        np.multiply(values, _2_26, values)
        np.right_shift(words[1::2], _S6, shifted)
        np.copyto(low, shifted.view(np.int32))
        np.add(values, low, values)
        return np.multiply(values, unit, values)

    def uniform(self, shape: Shape, *, dtype: str | None = None) -> np.ndarray:
        """Draw float64 values as ``random_sample`` does."""
        out = self._empty(shape, self._dtype(dtype))
        flat = out.reshape(-1)
        for start in range(0, flat.size, PEEK // 2):
            part = flat[start : start + PEEK // 2]
            part[...] = self._doubles(self._words.take(2 * part.size), _2_M53)
        return out

    def integers(self, low: int, high: int, shape: Shape) -> np.ndarray:
        """Draw int64 values in [low, high) as ``randint(low, high, shape)`` does: masked rejection, words or pairs."""
        out = self._empty(shape, "int64")
        if not -(2**63) <= low < high <= 2**63:
            raise UsageError(f"integers from {low} to {high}: NumPy takes -2**63 <= low < high <= 2**63")
        span = high - low - 1
        flat = out.reshape(-1)
        if span == 0:
            flat[...] = low
            return out
        mask = np.uint64((1 << span.bit_length()) - 1)
        wide = span > 0xFFFFFFFF
        filled = 0
        while filled < flat.size:
            wanted = flat.size - filled
            tries = min(PEEK // 2, 2 * wanted + 8)
            words = self._words.peek(tries * (1 + wide)).astype(np.uint64)
            candidates = (words[0::2] << np.uint64(32) | words[1::2] if wide else words) & mask
            accepted = np.flatnonzero(candidates <= np.uint64(span))[:wanted]
            used = int(accepted[-1]) + 1 if len(accepted) == wanted else tries
            self._words.advance(used * (1 + wide))
            values = candidates.take(accepted) + np.uint64(low % 2**64)
            flat[filled : filled + len(accepted)] = values.view(np.int64)
            filled += len(accepted)
        return out

    def export_state(self) -> tuple[str, np.ndarray, int, int, float]:
        """Return the tuple that ``RandomState.set_state`` takes."""
        key, position = self._words.state
        return "MT19937", key, position, int(self._kept is not None), 0.0 if self._kept is None else self._kept

    def import_state(self, state: tuple[Any, ...]) -> None:
        """Continue from the tuple that ``RandomState.get_state`` gave.

        Raises
        ------
        FormatError
            Not such a tuple.
        """
        try:
            kind, key, position, has_kept, kept = state
            key, position = np.asarray(key), operator.index(position)
        except (TypeError, ValueError) as error:
            raise FormatError("state: expected the tuple of five that RandomState.get_state gives") from error
        if kind != "MT19937" or key.shape != (SIZE,) or key.dtype.kind not in "iu" or not 0 <= position <= SIZE:
            raise FormatError(f"state: expected 'MT19937', {SIZE} integers and a position up to {SIZE}")
        self._words = MersenneTwister(key.astype(np.uint32), position)
        self._kept = float(kept) if has_kept else None


def _key(seed: Any) -> np.ndarray:
    squeezed = np.squeeze(seed) if hasattr(seed, "squeeze") else seed
    if hasattr(squeezed, "__index__") and np.ndim(squeezed) == 0 and not isinstance(squeezed, (float, np.floating)):
        try:
            return key_from_seed(_checked(operator.index(squeezed)))
        except TypeError as error:
            raise TypeUsageError(f"seed {seed!r}: numpy-legacy takes integers") from error
    if isinstance(squeezed, (str, bytes)) or np.ndim(squeezed) != 1:
        raise TypeUsageError(f"seed {seed!r}: numpy-legacy takes an integer or a sequence of integers")
    if len(squeezed) == 0:
        raise UsageError("seed: the sequence must not be empty")
    try:
        return key_from_array([_checked(operator.index(item)) for item in squeezed])
    except TypeError as error:
        raise TypeUsageError(f"seed {seed!r}: numpy-legacy takes integers") from error


def _checked(seed: int) -> int:
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed {seed}: numpy-legacy takes 0 to 4294967295")
    return seed
