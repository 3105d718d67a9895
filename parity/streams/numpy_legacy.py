"""``numpy.random.RandomState``: randn, normal, random_sample and randint, to the bit.

Words are MT19937's. A double takes two words; a normal comes from Marsaglia's polar method, which tries pairs of
doubles (four words a try) until one falls into the unit circle and then has two normals: the second coordinate's is
given at once, the first one's is kept for the next call.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from parity.errors import UsageError
from parity.streams import exact
from parity.streams.mersenne import PEEK, MersenneTwister, key_from_seed
from parity.streams.stream import Shape, Stream, TypeUsageError

_TRIES = PEEK // 4


class NumpyLegacy(Stream):
    """The stream of ``numpy.random.RandomState(seed)`` and of ``numpy.random.seed(seed)``.

    Parameters
    ----------
    seed : int or sequence of int
        0 to 2**32 - 1 each.
    """

    name = "numpy-legacy"
    dtypes = ("float64",)

    def __init__(self, seed: int | Sequence[int]) -> None:
        self._words = MersenneTwister(_key(seed))
        self._kept: float | None = None

    def normal(self, shape: Shape, *, dtype: str | None = None, mean: float = 0.0, std: float = 1.0) -> np.ndarray:
        out = self._empty(shape, self._dtype(dtype))
        if std < 0:
            raise UsageError(f"std {std}: must not be negative")
        flat = out.reshape(-1)
        start = 0
        if self._kept is not None and flat.size:
            flat[0] = self._kept
            self._kept = None
            start = 1
        while start < flat.size:
            start += self._polar(flat[start:])
        if (mean, std) != (0.0, 1.0):
            np.multiply(out, std, out)
            np.add(mean, out, out)
        return out

    def _polar(self, out: np.ndarray) -> int:
        """Fill the front of ``out`` from one block of tries and return how far."""
        pairs = (out.size + 1) // 2
        words = self._words.peek(4 * min(_TRIES, int(pairs * 1.3) + 16))
        u = _doubles(words)
        x = (2.0 * u - 1.0).reshape(-1, 2)
        x1, x2 = x[:, 0], x[:, 1]
        r2 = x1 * x1 + x2 * x2
        accepted = np.flatnonzero((r2 < 1.0) & (r2 != 0.0))[:pairs]
        if not accepted.size:
            self._words.advance(len(words))
            return 0
        self._words.advance(4 * (int(accepted[-1]) + 1) if len(accepted) == pairs else len(words))
        r2 = r2[accepted]
        f = np.sqrt(-2.0 * exact.log(r2) / r2)
        count = min(out.size, 2 * len(accepted))
        out[0:count:2] = f * x2[accepted]
        first = f * x1[accepted]
        out[1:count:2] = first[: count // 2]
        if count % 2:
            self._kept = float(first[-1])
        return count

    def uniform(self, shape: Shape, *, dtype: str | None = None) -> np.ndarray:
        out = self._empty(shape, self._dtype(dtype))
        flat = out.reshape(-1)
        for start in range(0, flat.size, PEEK // 2):
            part = flat[start : start + PEEK // 2]
            part[...] = _doubles(self._words.take(2 * part.size))
        return out


def _doubles(words: np.ndarray) -> np.ndarray:
    return ((words[0::2] >> np.uint32(5)) * 67108864.0 + (words[1::2] >> np.uint32(6))) * 2.0**-53


def _key(seed: Any) -> np.ndarray:
    try:
        single = operator.index(np.squeeze(seed) if hasattr(seed, "squeeze") else seed)
    except TypeError:
        pass
    else:
        if not 0 <= single < 2**32:
            raise UsageError(f"seed {single}: numpy-legacy takes 0 to 4294967295")
        return key_from_seed(single)
    raise TypeUsageError(f"seed {seed!r}: numpy-legacy takes an integer or a sequence of integers")
