"""What do the three random sources of the Swift package ml-stable-diffusion draw?

Each takes after a producer and deviates from it; a Swift user sees these values, deviations included:

``swift-numpy`` (NumPyRandomSource)
    NumPy's RandomState. The pipelines round to Float32.
``swift-torch`` (TorchRandomSource)
    torch's CPU stream, with Box-Muller in Double where torch works in float32 (two thirds of values differ in their
    last bits, by up to 1.6e-6), ``log(1 - u)`` for ``log1p(-u)`` in single draws, and a ragged end drawn from 53-bit
    doubles: the last 16 values and everything behind them have nothing in common with torch.
``swift-nvidia`` (NvRandomSource)
    torch's CUDA stream as far as one grid reaches: only the first of four outputs is used, the counter moves on by one
    a call whatever the size, the seed has 32 bits, and Box-Muller is in Double on words of 32 bits.

In all three a standard deviation is applied in Double before rounding. The image encoder draws its sample value by
value (:meth:`SwiftStream.normal_each`), which is another stream than one array in the second and third source.

Proved by test: ``swift-numpy`` against NumPy and the five values of the package's own unit test, the others against
recorded values of their code. Swift calls Apple's math library; this code calls the C library of the machine it runs
on. Differences in the last bit of a Double are possible and *not verified*; Float32 hides nearly all of them.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Iterator

import numpy as np

from parity.streams import exact
from parity.streams.mersenne import PEEK
from parity.streams.numpy_legacy import NumpyLegacy
from parity.streams.philox import philox
from parity.streams.seeds import bounded_seed
from parity.streams.stream import Shape, Stream
from parity.streams.torch_engine import TorchEngine

_GROUP = 16
_LOW24 = np.uint32(0xFFFFFF)


class SwiftStream(Stream):
    """A random source of the Swift package; values are Doubles, rounded to Float32 unless float64 is asked for.

    Parameters
    ----------
    seed : int
        0 to 2**32 - 1: the package's seed is a UInt32.
    """

    dtypes = ("float32", "float64")

    def __init__(self, seed: int) -> None:
        self._seed = bounded_seed(seed, 0, 2**32 - 1, self.name)

    def normal(self, shape: Shape, *, dtype: str | None = None, mean: float = 0.0, std: float = 1.0) -> np.ndarray:
        """Draw as ``normalShapedArray(shape, mean:, stdev:)`` does. See the protocol."""
        return self._draw(shape, dtype, mean, std, each=False)

    def normal_each(self, shape: Shape, *, dtype: str | None = None, mean: float = 0.0, std: float = 1.0) -> np.ndarray:
        """Draw by one call of ``nextNormal`` for each value, as the package's image encoder does."""
        return self._draw(shape, dtype, mean, std, each=True)

    def _draw(self, shape: Shape, dtype: str | None, mean: float, std: float, *, each: bool) -> np.ndarray:
        kind = self._dtype(dtype)
        out = self._empty(shape, kind)
        for start, values in self._doubles(out.size, std, each=each):
            out.reshape(-1)[start : start + len(values)] = values + mean  # a mean of 0 too: it makes -0 into +0
        return out

    @abc.abstractmethod
    def _doubles(self, count: int, std: float, *, each: bool) -> Iterator[tuple[int, np.ndarray]]:
        """Doubles of mean 0, in pieces with the place where each begins; later pieces overwrite earlier ones."""


class SwiftNumPy(SwiftStream):
    """``NumPyRandomSource``."""

    name = "swift-numpy"

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._source = NumpyLegacy(self._seed)

    def _doubles(self, count: int, std: float, *, each: bool) -> Iterator[tuple[int, np.ndarray]]:
        for start in range(0, count, PEEK):
            yield start, self._source.normal(min(PEEK, count - start)) * std


class SwiftTorch(SwiftStream):
    """``TorchRandomSource``."""

    name = "swift-torch"

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._engine = TorchEngine(self._seed)
        self._log = exact.logarithm()
        self._kept: float | None = None

    def _doubles(self, count: int, std: float, *, each: bool) -> Iterator[tuple[int, np.ndarray]]:
        if each or count < _GROUP:
            for start in range(0, count, PEEK):
                yield start, self._singles(min(PEEK, count - start)) * std
            return
        words = self._engine.words
        whole = count - count % _GROUP
        for start in range(0, whole, PEEK):
            size = min(PEEK, whole - start)
            yield start, self._groups((words.take(size) & _LOW24) * 2.0**-24) * std
        if whole < count:
            words.skip(count - whole)
            yield count - _GROUP, self._groups(self._tail()) * std

    def _tail(self) -> np.ndarray:
        """Uniforms of a ragged end."""
        return self._engine.doubles(_GROUP)

    def _singles(self, count: int) -> np.ndarray:
        """Values drawn one at a time, in pairs of which the second waits for the next call."""
        kept, self._kept = self._kept, None
        pairs = (count - (kept is not None) + 1) // 2
        values = np.empty(2 * pairs)
        for start in range(0, pairs, PEEK // 4):
            uniforms = self._engine.doubles(2 * min(PEEK // 4, pairs - start))
            angle, second = 2.0 * math.pi * uniforms[0::2], 1.0 - uniforms[1::2]
            radius = np.sqrt(-2.0 * self._log(second, np.empty_like(second)))
            part = values[2 * start : 2 * start + len(uniforms)]
            part[0::2] = radius * exact.cos(angle, np.empty_like(angle))
            part[1::2] = radius * exact.sin(angle, np.empty_like(angle))
        if kept is not None:
            values = np.concatenate([[kept], values])
        if len(values) > count:
            self._kept = float(values[-1])
        return values[:count]

    def _groups(self, uniforms: np.ndarray) -> np.ndarray:
        first, second = (np.ascontiguousarray(uniforms.reshape(-1, 2, 8)[:, i]).reshape(-1) for i in (0, 1))
        radius = np.sqrt(-2.0 * self._log(1.0 - first, np.empty_like(first)))
        theta = 2.0 * math.pi * second
        cos, sin = exact.cos(theta, np.empty_like(theta)), exact.sin(theta, np.empty_like(theta))
        return np.stack([(radius * cos).reshape(-1, 8), (radius * sin).reshape(-1, 8)], axis=1).reshape(-1)


class CoreAITorch(SwiftTorch):
    """``TorchRandomSource`` of coreai-models since its fix: a ragged end is drawn from 24-bit floats, as torch does."""

    name = "swift-torch"

    def _tail(self) -> np.ndarray:
        return (self._engine.words.take(_GROUP) & _LOW24) * 2.0**-24


class SwiftNvidia(SwiftStream):
    """``NvRandomSource``."""

    name = "swift-nvidia"

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._key = (self._seed, 0)
        self._log = exact.logarithm()
        self._counter = 0

    def _doubles(self, count: int, std: float, *, each: bool) -> Iterator[tuple[int, np.ndarray]]:
        if each:  # every value moves the counter on and is the first of its own grid
            for start in range(0, count, PEEK):
                size = min(PEEK, count - start)
                counters = np.arange(size, dtype=np.uint32) + np.uint32(self._counter % 2**32)
                yield start, self._transform(counters, 0, std)
                self._counter += size
            return
        for start in range(0, count, PEEK):
            threads = np.arange(start, min(start + PEEK, count), dtype=np.uint32)
            yield start, self._transform(np.uint32(self._counter % 2**32), threads, std)
        self._counter += 1

    def _transform(self, counter: np.ndarray | np.uint32, thread: np.ndarray | int, std: float) -> np.ndarray:
        """Box-Muller; the deviation multiplies the radius, not the product as in the other two sources."""
        x, y, *_ = philox((counter, 0, thread, 0), self._key)
        u = x * 2.0**-32 + 2.0**-33
        v = y * (math.pi * 2.0**-31) + math.pi * 2.0**-32
        return std * np.sqrt(-2.0 * self._log(u, np.empty_like(u))) * exact.sin(v, np.empty_like(v))
