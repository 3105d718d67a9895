"""Threefry2x32: which two 32-bit words belong to a counter and a key, and how do MLX and JAX number their words?

Twenty rounds of additions, rotations and exclusive ors; every four rounds a word of the key is added. MLX and JAX up to
0.4 count in halves (:func:`words_by_halves`): word i and word i + n/2 share a counter. JAX has numbered each word by
itself since 0.5 (:func:`words_by_index`), so that arrays can be cut up between devices.

Proved by test against MLX and JAX, and by Random123's vectors. Source: Salmon, Moraes, Dror and Shaw, "Parallel Random
Numbers: As Easy as 1, 2, 3" (SC 2011).
"""

from __future__ import annotations

import numpy as np

Key = tuple[int, int]

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
_MASK32 = 0xFFFFFFFF
_CHUNK = 1 << 16


def threefry(key: Key, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the two output words of each counter.

    Parameters
    ----------
    key : two ints
        32 bits each.
    first, second : array of uint32
        Words of the counters.
    """
    schedule = (*key, key[0] ^ key[1] ^ _PARITY)
    x, y = first + np.uint32(schedule[0]), second + np.uint32(schedule[1])
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x = x + y
            y = (y << np.uint32(rotation) | y >> np.uint32(32 - rotation)) ^ x
        x = x + np.uint32(schedule[(group + 1) % 3])
        y = y + np.uint32((schedule[(group + 2) % 3] + group + 1) & _MASK32)
    return x, y


def words_by_halves(key: Key, count: int) -> np.ndarray:
    """Return ``count`` words (uint32): those of a counter's first place in front, of its second place behind.

    The word in the middle of an odd number has a counter of its own, whose second word is 0.
    """
    half, odd = divmod(count, 2)
    out = np.empty(count, np.uint32)
    for start in range(0, half, _CHUNK):
        first = np.arange(start, min(start + _CHUNK, half), dtype=np.uint32)
        x, y = threefry(key, first, first + np.uint32(half + odd))
        out[start : start + len(x)] = x
        out[half + odd + start : half + odd + start + len(y)] = y
    if odd:
        out[half] = threefry(key, np.array([half], np.uint32), np.zeros(1, np.uint32))[0][0]
    return out


def words_by_index(key: Key, count: int) -> np.ndarray:
    """Return ``count`` words (uint32): word i is the exclusive or of both words of counter i, a number of 64 bits."""
    out = np.empty(count, np.uint32)
    for start in range(0, count, _CHUNK):
        index = np.arange(start, min(start + _CHUNK, count), dtype=np.uint64)
        x, y = threefry(key, (index >> np.uint64(32)).astype(np.uint32), index.astype(np.uint32))
        out[start : start + len(x)] = x ^ y
    return out


def split_by_halves(key: Key) -> tuple[Key, Key]:
    """Return the two keys that MLX's and old JAX's ``split`` makes of one."""
    words = words_by_halves(key, 4).tolist()
    return (words[0], words[1]), (words[2], words[3])


def split_by_index(key: Key) -> tuple[Key, Key]:
    """Return the two keys that JAX's ``split`` makes of one since 0.5."""
    x, y = (word.tolist() for word in threefry(key, np.zeros(2, np.uint32), np.arange(2, dtype=np.uint32)))
    return (x[0], y[0]), (x[1], y[1])
