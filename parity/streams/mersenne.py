"""MT19937: which 32-bit words does the Mersenne Twister give, and in which state does that leave it?

NumPy's ``RandomState``, torch's CPU generator and the Swift package's first two sources all draw from this engine and
differ only in what they make of the words. Three steps:

1. a seed becomes 624 key words, by ``init_genrand`` (one integer) or ``init_by_array`` (several);
2. the recurrence ``w[k+624] = w[k+397] ^ f(w)[k]`` gives raw words, where ``f`` combines neighbours linearly over
   GF(2); hence also ``w[k+624n] = w[k+397n] ^ f^n(w)[k]`` for n = 2, 4, 8, which makes 623n words with a dozen array
   operations;
3. raw words are tempered when they are read.

The words lie in one sliding window. What was read stays in it for a while, for two reasons: rejection samplers hand
words back (:meth:`MersenneTwister.advance` says how many of the words seen were used), and producers save their
state as an aligned block of 624, which the window still holds.

Proved by test: the words, the seeding and the exported states equal those of NumPy and torch. Source of the algorithm:
Matsumoto and Nishimura, "Mersenne Twister", ACM TOMACS 8 (1998), and their reference code mt19937ar.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from parity.streams.loops import compiled

SIZE = 624
_LAG = SIZE - 397
_STRIDE = SIZE - 1  # so many new words depend on known words only
_LEAPS = (8, 4, 2, 1)
_FRESH = 32 * _STRIDE

PEEK = 16384
"""Most words that one :meth:`MersenneTwister.peek` can show."""

_HISTORY = PEEK + 2 * SIZE  # handed-back words, and behind them a whole aligned block

# 0-d arrays: a ufunc takes them 2 to 3 times faster than NumPy scalars or ints
_UPPER, _LOWER = (np.array(c, np.uint32) for c in (0x80000000, 0x7FFFFFFF))
_S7, _S11, _S15, _S18 = (np.array(c, np.uint32) for c in (7, 11, 15, 18))
_MASK7, _MASK15 = (np.array(c, np.uint32) for c in (0x9D2C5680, 0xEFC60000))
_BYTE = np.array(0xFF, np.uint32)
_MASK32 = 0xFFFFFFFF


def _f(words: np.ndarray) -> np.ndarray:
    """The recurrence's linear map; row k of the result depends on rows k and k + 1."""
    mixed = (words[:-1] & _UPPER) | (words[1:] & _LOWER)
    return (mixed >> np.uint32(1)) ^ (words[1:] & np.uint32(1)) * np.uint32(0x9908B0DF)


def _leap_table(n: int, place: int) -> np.ndarray:
    """What the low n bits of the word ``place`` contribute to row 0 of ``f^n``, for each value of its low byte."""
    words = np.zeros((n + 1, 256), np.uint32)
    words[place] = np.arange(256) & ((1 << n) - 1)
    for _ in range(n):
        words = _f(words)
    return words[0]


# Row 0 of f^n depends on words n - 1 and n alone: their high bits shift right by n, their low bits go through tables.
_TABLES = {n: (np.array(n, np.uint32), _leap_table(n, n - 1), _leap_table(n, n)) for n in _LEAPS}


def key_from_seed(seed: int) -> np.ndarray:
    """Return the 624 key words of ``init_genrand(seed)``; the seed is taken modulo 2**32."""
    word = seed & _MASK32
    key = [word]
    for i in range(1, SIZE):
        word = (1812433253 * (word ^ (word >> 30)) + i) & _MASK32
        key.append(word)
    return np.array(key, np.uint32)


def key_from_array(seeds: Sequence[int]) -> np.ndarray:
    """Return the 624 key words of ``init_by_array(seeds)``; each seed is below 2**32 and there is at least one."""
    key = key_from_seed(19650218).tolist()
    i, j = 1, 0
    for _ in range(max(SIZE, len(seeds))):
        key[i] = ((key[i] ^ ((key[i - 1] ^ (key[i - 1] >> 30)) * 1664525)) + seeds[j] + j) & _MASK32
        i += 1
        j += 1
        if i >= SIZE:
            key[0] = key[SIZE - 1]
            i = 1
        if j >= len(seeds):
            j = 0
    for _ in range(SIZE - 1):
        key[i] = ((key[i] ^ ((key[i - 1] ^ (key[i - 1] >> 30)) * 1566083941)) - i) & _MASK32
        i += 1
        if i >= SIZE:
            key[0] = key[SIZE - 1]
            i = 1
    key[0] = 0x80000000
    return np.array(key, np.uint32)


class MersenneTwister:
    """A stream of 32-bit words.

    Parameters
    ----------
    key : array of 624 uint32
        State words.
    position : int, optional
        How many words of the key were already given, 0 to 624; 624, the default, is a state just seeded.
    """

    def __init__(self, key: np.ndarray, position: int = SIZE) -> None:
        self._raw = np.empty(_HISTORY + _FRESH, np.uint32)
        self._tempered = np.empty(_HISTORY + _FRESH, np.uint32)
        self._scratch = np.empty(_FRESH, np.uint32)
        self._low = np.empty(_LEAPS[0] * _STRIDE + 1, np.intp)
        self._known = _HISTORY - SIZE  # where known raw words begin
        self._raw[self._known : _HISTORY] = key
        self._temper(self._known, _HISTORY)
        self._base = 0  # index in the stream of the word at _HISTORY, the first one after the key
        self._made = _HISTORY
        self._next = self._known + position

    def _temper(self, start: int, stop: int) -> None:
        if (loops := compiled()) is not None:
            loops.temper(self._raw[start:stop], self._tempered[start:stop])
            return
        raw, out, scratch = self._raw[start:stop], self._tempered[start:stop], self._scratch[: stop - start]
        np.right_shift(raw, _S11, out)
        np.bitwise_xor(out, raw, out)
        np.left_shift(out, _S7, scratch)
        np.bitwise_and(scratch, _MASK7, scratch)
        np.bitwise_xor(out, scratch, out)
        np.left_shift(out, _S15, scratch)
        np.bitwise_and(scratch, _MASK15, scratch)
        np.bitwise_xor(out, scratch, out)
        np.right_shift(out, _S18, scratch)
        np.bitwise_xor(out, scratch, out)

    def _make(self, needed: int) -> None:
        """Make words until ``needed`` of them lie before the window's end."""
        made = self._made
        if made < needed and (loops := compiled()) is not None:
            loops.twist(self._raw, made, needed)
            made = needed
        while made < needed:
            known, room = made - self._known, len(self._raw) - made
            leap = next(n for n in _LEAPS if n * SIZE <= known and n * _STRIDE <= room)
            self._leap(made, leap)
            made += leap * _STRIDE
        if made > self._made:
            self._temper(self._made, made)
            self._made = made

    def _leap(self, new: int, n: int) -> None:
        """Make 623 n raw words from the 624 n before them."""
        raw, count, lag = self._raw, n * _STRIDE, n * _LAG
        last = new - n * SIZE + n
        out, scratch, low = raw[new : new + count], self._scratch[:count], self._low[: count + 1]
        shift, table_before, table_last = _TABLES[n]
        np.bitwise_and(raw[last : last + count], _LOWER, out)
        np.bitwise_and(raw[last - 1 : last - 1 + count], _UPPER, scratch)
        np.bitwise_or(out, scratch, out)
        np.right_shift(out, shift, out)
        np.bitwise_and(raw[last - 1 : last + count], _BYTE, low, casting="unsafe")
        table_last.take(low[1:], None, scratch, "wrap")
        np.bitwise_xor(out, scratch, out)
        table_before.take(low[:-1], None, scratch, "wrap")
        np.bitwise_xor(out, scratch, out)
        for start in range(0, count, lag):
            stop = min(start + lag, count)
            piece = raw[new + start : new + stop]
            np.bitwise_xor(piece, raw[new + start - lag : new + stop - lag], piece)

    def _slide(self) -> None:
        """Move the window on, keeping what may be handed back or exported."""
        end = _HISTORY + _FRESH
        self._make(end)
        for words in (self._raw, self._tempered):
            words[:_HISTORY] = words[end - _HISTORY : end]
        self._made = _HISTORY
        self._known = max(0, self._known - _FRESH)
        self._next -= _FRESH
        self._base += _FRESH

    def peek(self, count: int) -> np.ndarray:
        """Show the next ``count`` words, at most :data:`PEEK`, without using them up.

        The array is a view that the next call may overwrite.
        """
        if self._next + count > _HISTORY + _FRESH:
            self._slide()
        if self._next + count > self._made:
            self._make(self._next + count)
        return self._tempered[self._next : self._next + count]

    def advance(self, count: int) -> None:
        """Use up ``count`` words, all of them shown by the last :meth:`peek`."""
        self._next += count

    def take(self, count: int) -> np.ndarray:
        """Return the next ``count`` words, at most :data:`PEEK`, as a view that the next call may overwrite."""
        words = self.peek(count)
        self._next += count
        return words

    def word(self) -> int:
        """Return the next word."""
        return int(self.take(1)[0])

    def skip(self, count: int) -> None:
        """Use up any number of words."""
        while count > 0:
            step = min(count, PEEK)
            self.take(step)
            count -= step

    @property
    def given(self) -> int:
        """How many words were used since the key was set, less those of the key that were left then."""
        return self._base + self._next - _HISTORY

    @property
    def state(self) -> tuple[np.ndarray, int]:
        """Copy of the 624 state words and the position in them, aligned as the producers' code aligns them."""
        if self._next + SIZE > _HISTORY + _FRESH:  # the end of the aligned block may lie beyond the window
            self._slide()
        given = self.given
        block = max((given - 1) // SIZE, -1)  # block -1 is the key; nothing before it is known
        start = block * SIZE - self._base + _HISTORY
        self._make(start + SIZE)
        return self._raw[start : start + SIZE].copy(), given - block * SIZE
