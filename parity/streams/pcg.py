"""PCG64 and SeedSequence: which 64-bit words does ``numpy.random.default_rng(seed)`` draw?

1. ``SeedSequence`` hashes the seed's 32-bit words into a pool of four, and the pool into the generator's state.
2. The state is a 128-bit linear congruential generator; each step's output folds its halves and rotates (XSL-RR).

Words are made in lanes: 64 states step by step, then doublings by the affine map of 64, 128, … steps until a whole
block is known; from there on one affine step of a block's length makes the next block.

Proved by test against NumPy. Source: O'Neill, "PCG: A Family of Simple Fast Space-Efficient Statistically Good
Algorithms for Random Number Generation" (2014), and NumPy's ``bit_generator.pyx``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BLOCK = 8192
"""Words made at a time."""

_FIRST = 64
_MASK32, _MASK64, _MASK128 = (1 << 32) - 1, (1 << 64) - 1, (1 << 128) - 1
_MULTIPLIER = 0x2360ED051FC65DA44385DF649FCCF645
_POOL = 4


def seed_words(entropy: int | Sequence[int], count: int) -> list[int]:
    """Return ``SeedSequence(entropy).generate_state(count, uint64)``.

    Parameters
    ----------
    entropy : int or sequence of int
        Not negative.
    count : int
        How many 64-bit words.
    """
    out = seed_words32(entropy, 2 * count)
    return [low | high << 32 for low, high in zip(out[0::2], out[1::2], strict=True)]


def _words32(numbers: Sequence[int]) -> list[int]:
    words: list[int] = []
    for number in numbers:
        words.append(number & _MASK32)
        while number := number >> 32:
            words.append(number & _MASK32)
    return words


def seed_words32(
    entropy: int | Sequence[int], count: int, *, spawn_key: Sequence[int] = (), pool_size: int = _POOL
) -> list[int]:
    """Return ``SeedSequence(entropy, spawn_key=…, pool_size=…).generate_state(count)``: 32-bit words."""
    words = _words32([entropy] if isinstance(entropy, int) else entropy)
    if spawn_key:
        words += [0] * (pool_size - len(words)) + _words32(spawn_key)
    hashing = 0x43B0D7E5

    def scramble(value: int) -> int:
        nonlocal hashing
        value ^= hashing
        hashing = hashing * 0x931E8875 & _MASK32
        value = value * hashing & _MASK32
        return value ^ value >> 16

    def mix(x: int, y: int) -> int:
        value = (0xCA01F9DD * x - 0x4973F715 * y) & _MASK32
        return value ^ value >> 16

    pool = [scramble(words[i] if i < len(words) else 0) for i in range(pool_size)]
    for source in range(pool_size):
        for target in range(pool_size):
            if source != target:
                pool[target] = mix(pool[target], scramble(pool[source]))
    for word in words[pool_size:]:
        for target in range(pool_size):
            pool[target] = mix(pool[target], scramble(word))

    hashing, out = 0x8B51F9DD, []
    for i in range(count):
        value = pool[i % pool_size] ^ hashing
        hashing = hashing * 0x58F38DED & _MASK32
        value = value * hashing & _MASK32
        out.append(value ^ value >> 16)
    return out


def _affine(increment: int, steps: int) -> tuple[int, int]:
    """Multiplier and increment of that many steps at once."""
    multiplier, total = 1, 0
    for _ in range(steps):
        multiplier, total = multiplier * _MULTIPLIER & _MASK128, (total * _MULTIPLIER + increment) & _MASK128
    return multiplier, total


def _u64(value: int) -> np.ndarray:
    return np.array(value & _MASK64, np.uint64)


_LOW32, _S32 = _u64(_MASK32), _u64(32)
_S58, _S63, _64 = _u64(58), _u64(63), _u64(64)


class PCG64:
    """A stream of 64-bit words.

    Parameters
    ----------
    state, increment : int
        128 bits each; the increment is odd. :meth:`from_seed` makes them from a seed.
    """

    def __init__(self, state: int, increment: int) -> None:
        self._increment = increment
        self._state = state
        self._high, self._low = np.empty(BLOCK, np.uint64), np.empty(BLOCK, np.uint64)
        self._scratch = [np.empty(BLOCK, np.uint64) for _ in range(5)]
        self._words = np.empty(BLOCK, np.uint64)
        self._next = self._made = 0
        self._jump: tuple[np.ndarray, ...] | None = None

    @classmethod
    def from_seed(cls, entropy: int | Sequence[int]) -> PCG64:
        """Seed as NumPy does: through a SeedSequence."""
        high, low, sequence_high, sequence_low = seed_words(entropy, 4)
        increment = ((sequence_high << 64 | sequence_low) << 1 | 1) & _MASK128
        state = (increment + (high << 64 | low)) * _MULTIPLIER + increment
        return cls(state & _MASK128, increment)

    @property
    def state(self) -> tuple[int, int]:
        """State and increment behind the words used so far, as NumPy's ``PCG64.state`` holds them."""
        if self._next == 0:
            return self._state, self._increment
        last = self._next - 1
        return int(self._high[last]) << 64 | int(self._low[last]), self._increment

    def peek(self) -> np.ndarray:
        """Show the words at hand, at least one, without using them up; the next call may overwrite them."""
        if self._next == self._made:
            self._refill()
        return self._words[self._next : self._made]

    def advance(self, count: int) -> None:
        """Use up ``count`` of the words shown."""
        self._next += count

    def word(self) -> int:
        """Return the next word."""
        value = int(self.peek()[0])
        self._next += 1
        return value

    def _refill(self) -> None:
        """Make the next words: 64, then as many again, up to a block; from then on a block at a time."""
        start, self._state = self.state[0], self.state[0]
        if self._made < BLOCK:
            self._grow(start)
        else:
            if self._jump is None:
                self._jump = _constants(*_affine(self._increment, BLOCK))
            self._step(self._jump, self._high, self._low, self._high, self._low)
        self._output()
        self._next = 0

    def _grow(self, state: int) -> None:
        count = min(BLOCK, max(_FIRST, 4 * self._made))
        for i in range(_FIRST):
            state = (state * _MULTIPLIER + self._increment) & _MASK128
            self._high[i], self._low[i] = state >> 64, state & _MASK64
        lanes = _FIRST
        while lanes < count:
            jump = _constants(*_affine(self._increment, lanes))
            self._step(
                jump, self._high[:lanes], self._low[:lanes], self._high[lanes : 2 * lanes], self._low[lanes : 2 * lanes]
            )
            lanes *= 2
        self._made = lanes

    def _step(
        self, jump: tuple[np.ndarray, ...], high: np.ndarray, low: np.ndarray, to_high: np.ndarray, to_low: np.ndarray
    ) -> None:
        """state * multiplier + increment modulo 2**128, in halves; products of 64 bits in quarters."""
        m_low, m_low0, m_low1, m_high, add_high, add_low = jump
        a0, a1, mid, cross, carry = (s[: len(low)] for s in self._scratch)
        np.bitwise_and(low, _LOW32, a0)
        np.right_shift(low, _S32, a1)
        np.multiply(high, m_low, carry)  # what goes to the high half
        np.multiply(low, m_high, mid)
        np.add(carry, mid, carry)
        np.multiply(a0, m_low0, cross)
        np.right_shift(cross, _S32, cross)
        np.multiply(a1, m_low0, mid)
        np.add(mid, cross, mid)
        np.bitwise_and(mid, _LOW32, cross)
        np.right_shift(mid, _S32, mid)
        np.add(carry, mid, carry)
        np.multiply(a0, m_low1, a0)
        np.add(cross, a0, cross)
        np.right_shift(cross, _S32, cross)
        np.add(carry, cross, carry)
        np.multiply(a1, m_low1, a1)
        np.add(carry, a1, carry)
        np.multiply(low, m_low, to_low)
        np.add(to_low, add_low, to_low)
        np.add(carry, add_high, to_high)
        np.add(to_high, np.less(to_low, add_low), to_high)

    def _output(self) -> None:
        """Fold the halves and rotate right by the top six bits."""
        high, low, out = self._high[: self._made], self._low[: self._made], self._words[: self._made]
        rotation, right = (s[: self._made] for s in self._scratch[:2])
        np.right_shift(high, _S58, rotation)
        np.bitwise_xor(high, low, out)
        np.right_shift(out, rotation, right)
        np.subtract(_64, rotation, rotation)
        np.bitwise_and(rotation, _S63, rotation)
        np.left_shift(out, rotation, out)
        np.bitwise_or(out, right, out)


def _constants(multiplier: int, increment: int) -> tuple[np.ndarray, ...]:
    low = multiplier & _MASK64
    return (
        _u64(low),
        _u64(low & _MASK32),
        _u64(low >> 32),
        _u64(multiplier >> 64),
        _u64(increment >> 64),
        _u64(increment),
    )
