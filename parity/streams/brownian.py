"""Which noise does a Brownian tree give, as k-diffusion's and diffusers' DPM++ SDE samplers draw it?

Those samplers want noise that depends on the noise levels alone, not on the steps taken. torchsde's tree gives it: the
interval from the lowest to the highest level is halved until the levels asked for are reached, to six decimals; each
halving draws one tensor, from a generator of its own, seeded by the seed and the place in the tree. An increment is the
sum of those of the pieces that make up an interval.

Proved by test: increments are equal to those of ``torchsde.BrownianTree``, noise is that of diffusers' sampler to one
unit in the last place. Source: torchsde 0.2.6,
_brownian/brownian_interval.py; scheduling_dpmsolver_sde.py of diffusers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from parity.errors import UsageError
from parity.streams.pcg import seed_words32
from parity.streams.seeds import bounded_seed
from parity.streams.torch_cpu import TorchCPU

_POOL = 24
_DIGITS = 6
_F = np.float32


@dataclass(frozen=True)
class _Node:
    """An interval of the tree."""

    start: float
    end: float
    key: int
    depth: int

    @property
    def middle(self) -> float:
        return round(0.5 * (self.end + self.start), _DIGITS)

    def halves(self) -> tuple[_Node, _Node]:
        low = _Node(self.start, self.middle, 2 * self.key, self.depth + 1)
        return low, _Node(self.middle, self.end, 2 * self.key + 1, self.depth + 1)


class BrownianTree:
    """Increments of one Brownian motion in float32.

    Parameters
    ----------
    seed : int
        ``entropy`` of the tree; not negative.
    shape : sequence of int
    start, end : float
        Where the motion begins and ends: for a sampler, the lowest and the highest noise level.
    **options
        Of ``torch-cpu``.
    """

    def __init__(self, seed: int, shape: Sequence[int], start: float, end: float, **options: Any) -> None:
        self._seed = bounded_seed(seed, 0, 2**64 - 1, "a Brownian tree")
        if not start < end:
            raise UsageError(f"a Brownian tree from {start} to {end}: the end must lie above the start")
        self._shape, self._options = tuple(shape), options
        self._root = _Node(round(start, _DIGITS), round(end, _DIGITS), 0, 0)
        self._whole = self._randn(seed_words32(self._seed, 1, pool_size=_POOL)[0]) * _F(math.sqrt(end - start))
        self._left = lru_cache(maxsize=64)(self._split)

    def increment(self, start: float, end: float) -> np.ndarray:
        """Return W(end) - W(start), for start <= end; what lies outside the tree's interval is cut off, as in torchsde.

        Raises
        ------
        UsageError
            Start above end.
        """
        if start > end:
            raise UsageError(f"increment from {start} to {end}: the start must not lie above the end")
        low, high = (round(min(max(t, self._root.start), self._root.end), _DIGITS) for t in (start, end))
        pieces = self._pieces(self._root, self._whole, low, high) if low < high else []
        if not pieces:
            return np.zeros(self._shape, _F)
        total = pieces[0]
        for piece in pieces[1:]:
            total = total + piece
        return total

    def noise(self, level: float, following: float) -> np.ndarray:
        """Return the standard normal noise of a sampler's step from one noise level to the next, in either direction.

        torch divides by a square root that MKL rounds, not always to nearest: equal but for the last bit of a divisor.
        """
        low, high = sorted((float(level), float(following)))
        width = np.sqrt(np.abs(_F(following) - _F(level)))
        return (self.increment(low, high) * _F(1.0 if level < following else -1.0)) / width

    def _pieces(self, node: _Node, value: np.ndarray, low: float, high: float) -> list[np.ndarray]:
        """Increments of the intervals of the tree that make up [low, high], in order."""
        if low <= node.start and node.end <= high:
            return [value]
        left = self._left(node, value.tobytes())
        lower, upper = node.halves()
        found: list[np.ndarray] = []
        if low < lower.end:
            found += self._pieces(lower, left, low, min(high, lower.end))
        if high > upper.start:
            found += self._pieces(upper, value - left, max(low, upper.start), high)
        return found

    def _split(self, node: _Node, value: bytes) -> np.ndarray:
        """The increment of the left half."""
        whole = np.frombuffer(value, _F).reshape(self._shape)
        per_width = 1 / (node.end - node.start)
        left, right = node.middle - node.start, node.end - node.middle
        mean = _F(left) * whole * _F(per_width)
        seed = seed_words32(self._seed, 1, spawn_key=(node.key, node.depth), pool_size=_POOL)[0]
        return mean + _F(math.sqrt(left * right * per_width)) * self._randn(seed)

    def _randn(self, seed: int) -> np.ndarray:
        return TorchCPU(seed, **self._options).normal(self._shape)
