"""Philox4x32: which four 32-bit words belong to a counter and a key?

A counter-based generator has no state: ten rounds of multiplications and exclusive ors turn counter and key into four
words. torch's CUDA generator and the Swift package's Nvidia source use it, and with nine rounds torch's MPS generator.

Proved by the known-answer vectors of Random123. Source: Salmon, Moraes, Dror
and Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011).
"""

from __future__ import annotations

import numpy as np

Word = np.ndarray | np.uint32 | int

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_MASK32 = 0xFFFFFFFF
_32 = np.uint64(32)


def philox(
    counter: tuple[Word, Word, Word, Word],
    key: tuple[int, int],
    *,
    rounds: int = 10,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the four output words of each counter.

    Parameters
    ----------
    counter : four arrays of uint32 or ints
        Broadcast against one another.
    key : two ints
        32 bits each.
    rounds : int
        10, but for torch's MPS generator and known-answer tests.

    Returns
    -------
    four arrays of uint32
    """
    c0, c1, c2, c3 = np.broadcast_arrays(*(np.asarray(word, np.uint32) for word in counter))
    k0, k1 = key
    for _ in range(rounds):
        product0 = c0 * _M0  # uint64
        product1 = c2 * _M1
        high0, high1 = (product0 >> _32).astype(np.uint32), (product1 >> _32).astype(np.uint32)
        c0, c1, c2, c3 = (
            high1 ^ c1 ^ np.uint32(k0),
            product1.astype(np.uint32),
            high0 ^ c3 ^ np.uint32(k1),
            product0.astype(np.uint32),
        )
        k0, k1 = (k0 + _W0) & _MASK32, (k1 + _W1) & _MASK32
    return c0, c1, c2, c3
