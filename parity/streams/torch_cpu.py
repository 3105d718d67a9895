"""torch's CPU generator: randn, normal, rand and randint, to the bit."""

from __future__ import annotations

import math
import operator

import numpy as np

from parity.errors import UnsupportedError, UsageError
from parity.streams.mersenne import PEEK, MersenneTwister, key_from_seed
from parity.streams.stream import RuntimeUsageError, Shape, Stream
from parity.streams.torch_float32 import Avx2

_MASK53 = (1 << 53) - 1


class TorchCPU(Stream):
    """The stream of ``torch.Generator("cpu").manual_seed(seed)``."""

    name = "torch-cpu"
    dtypes = ("float32",)
    _bad_shape = RuntimeUsageError
    _bad_dtype = UnsupportedError

    def __init__(self, seed: int, *, kernel: str = "avx2") -> None:
        seed = operator.index(seed)
        if not -(2**63) <= seed < 2**64:
            raise UsageError(f"seed {seed}: torch takes -2**63 to 2**64 - 1")
        if kernel != "avx2":
            raise UsageError(f"kernel {kernel!r}: there is avx2")
        self._words = MersenneTwister(key_from_seed(seed))
        self._kernel = Avx2()
        self._kept: float | None = None

    def normal(self, shape: Shape, *, dtype: str | None = None, mean: float = 0.0, std: float = 1.0) -> np.ndarray:
        out = self._empty(shape, self._dtype(dtype))
        if std < 0:
            raise RuntimeUsageError(f"std {std}: must not be negative")
        flat = out.reshape(-1)
        if flat.size < 16:
            for i in range(flat.size):
                flat[i] = self._one() * std + mean
            return out
        whole = flat.size // 16 * 16
        for start in range(0, whole, PEEK):
            part = flat[start : min(start + PEEK, whole)]
            self._kernel.fill(self._words.take(part.size), part, mean, std)
        if whole < flat.size:
            self._words.skip(flat.size - whole)
            self._kernel.fill(self._words.take(16), flat[-16:], mean, std)
        return out

    def _one(self) -> float:
        """One normal value in float64."""
        if self._kept is not None:
            value, self._kept = self._kept, None
            return value
        u1, u2 = self._double(), self._double()
        radius = math.sqrt(-2.0 * math.log1p(-u2))
        theta = 2.0 * math.pi * u1
        self._kept = radius * math.sin(theta)
        return radius * math.cos(theta)

    def _double(self) -> float:
        high, low = self._words.take(2).tolist()
        return ((high << 32 | low) & _MASK53) * 2.0**-53
