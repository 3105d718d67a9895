"""``torch.Generator("cuda")``: which values does a GPU draw, and how does that depend on the GPU's size?

Every thread has its own subsequence of Philox4x32-10, keyed by the 64-bit seed; a call advances all of them together.

1. **Launch.** Blocks of 256 threads, as many as there are values or as the GPU holds at once: T threads in all.
2. **Layout.** In step s, output i of thread t goes to element (4 s + i) T + t (2 s + i for float64 and for 64-bit
   integers), in the order of memory. Up to T values only the first output is used; beyond, the stream depends on T,
   that is on the GPU's model.
3. **Offset.** Each call adds 4 per step to the generator's offset.
4. **Transform.** Box-Muller on float32 with the hardware's sine and cosine (:mod:`parity.streams.cuda_sine`), on 53-bit
   float64 with CUDA's software (:mod:`parity.streams.cuda_double`); half types are rounded from float32.

Proved on one NVIDIA H100 80GB HBM3 with torch 2.11.0+cu130, driver 580.159.04: the values and offsets of 346 calls
(``fixtures/streams/torch_cuda_h100.json``), and 60 million normals in float32, 150 million in float64 and 30 million in
each half type, are the same bit for bit. For other GPUs, and torch back to 2.0, what others published agrees to all
four digits printed (``fixtures/streams/torch_cuda.json``: A100, H100, RTX 3060, RTX 2070 Super, RTX A4000, RTX A6000);
whether their hardware's sine and reciprocal have the same last bits is *not verified*.

Source: ATen/native/cuda/DistributionTemplates.h of torch 2.0 to 2.14 and curand_kernel.h of CUDA 12.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from parity.errors import FormatError, UnsupportedError, UsageError
from parity.streams import cuda_double, exact
from parity.streams.cuda_devices import DEVICES as DEVICES
from parity.streams.cuda_devices import geometry
from parity.streams.cuda_sine import sine_cosine
from parity.streams.philox import philox
from parity.streams.seeds import torch_seed
from parity.streams.stream import RuntimeUsageError, Shape, Stream
from parity.streams.torch_half import rounded

_BLOCK = 256
_CHUNK = 8192
_MASK32 = 0xFFFFFFFF

_TWO_PI = np.array(0x30C90FDB, np.uint32).view(np.float32)  # 2 pi * 2**-32, rounded
_LOG = np.array(
    [0xBE055027, 0x3E1039F6, 0xBDF8CDCC, 0x3E0F2955, 0xBE2AD8B9, 0x3E4CED0B, 0xBE7FFF22, 0x3EAAAA78, 0xBF000000],
    np.uint32,
).view(np.float32)
_LN2 = np.array(0x3F317218, np.uint32).view(np.float32)


def _fma(a: np.ndarray, b: np.ndarray | float, c: np.ndarray | float) -> np.ndarray:
    """float32 fused multiply-add by way of float64."""
    b, c = np.asarray(b, np.float32), np.asarray(c, np.float32)
    return (a.astype(np.float64) * b + c).astype(np.float32)


def _logf(x: np.ndarray) -> np.ndarray:
    """CUDA's ``logf`` of positive, normal float32."""
    bits = x.view(np.int32)
    exponent = (bits - np.int32(0x3F2AAAAB)) & np.int32(-(1 << 23))
    f = (bits - exponent).view(np.float32) - np.float32(1)
    y = np.broadcast_to(_LOG[0], f.shape)
    for p in _LOG[1:]:
        y = _fma(y, f, p)
    return _fma(exponent.astype(np.float32) * np.float32(2.0**-23), _LN2, _fma(f * y, f, f))


class TorchCUDA(Stream):
    """The stream of ``torch.Generator("cuda").manual_seed(seed)``.

    Parameters
    ----------
    seed : int
        -2**63 to 2**64 - 1; all 64 bits count, unlike on the CPU.
    device : str, optional
        One of :data:`parity.streams.cuda_devices.DEVICES`, ``"A100"`` by default.
    multiprocessors, threads : int, optional
        The GPU's multiprocessors and the most threads that one holds, instead of a device:
        ``torch.cuda.get_device_properties`` has both.
    """

    name = "torch-cuda"
    dtypes = ("float32", "float64", "float16", "bfloat16")
    _bad_shape = RuntimeUsageError
    _bad_dtype = UnsupportedError

    def __init__(
        self, seed: int, *, device: str | None = None, multiprocessors: int | None = None, threads: int | None = None
    ) -> None:
        self._seed = torch_seed(seed)
        if device is not None and (multiprocessors is not None or threads is not None):
            raise UsageError("give either a device or its multiprocessors and threads, not both")
        if (multiprocessors is None) != (threads is None):
            raise UsageError("multiprocessors and threads: give both, or a device")
        if multiprocessors is None or threads is None:
            multiprocessors, threads = geometry("A100" if device is None else device)
        if multiprocessors < 1 or threads < _BLOCK:
            raise UsageError(f"multiprocessors {multiprocessors}, threads {threads}: at least 1 and {_BLOCK}")
        self._offset = 0
        self._most_blocks = multiprocessors * (threads // _BLOCK)

    def normal(self, shape: Shape, *, dtype: str | None = None, mean: float = 0.0, std: float = 1.0) -> np.ndarray:
        """Draw as ``torch.randn`` does on the GPU, and with mean or std as ``torch.Tensor.normal_`` does."""
        kind = self._dtype(dtype)
        if not std >= 0:
            raise RuntimeUsageError(f"std {std}: must not be negative")
        out = self._empty(shape, kind)
        for words, places in self._steps(out.size, 2 if kind == "float64" else 4):
            used = places[:2] if len(places) == 4 and not places[2][1] else places  # up to one grid: the first alone
            values = _normal64(words) if kind == "float64" else _normal32(words[: len(used)])
            for value, (place, count) in zip(values, used, strict=True):
                value = value[:count]
                if (mean, std) != (0.0, 1.0):
                    fused = _fma if kind != "float64" else exact.fma
                    value = fused(value, std, mean)
                out.reshape(-1)[place : place + count] = rounded(value, kind)
        return out

    def uniform(self, shape: Shape, *, dtype: str | None = None) -> np.ndarray:
        """Draw as ``torch.rand`` does on the GPU."""
        kind = self._dtype(dtype)
        out = self._empty(shape, kind)
        for words, places in self._steps(out.size, 2 if kind == "float64" else 4):
            if kind == "float64":
                values = [_uniform53(words[0], words[1]), _uniform53(words[2], words[3])]
            else:
                values = [rounded(_uniform32(word), kind) for word in words]
            for value, (place, count) in zip(values, places, strict=True):
                part = value[:count]
                out.reshape(-1)[place : place + count] = np.where(part == 1.0, part.dtype.type(0), part)
        return out

    def integers(self, low: int, high: int, shape: Shape) -> np.ndarray:
        """Draw as ``torch.randint(low, high, shape)`` does on the GPU since torch 2.7: int64 in [low, high).

        Ranges of 2**28 numbers and more take 64-bit words.
        """
        out = self._empty(shape, "int64")
        if not -(2**63) <= low < high < 2**63:
            kind = RuntimeUsageError if low >= high else UsageError
            raise kind(f"integers from {low} to {high}: torch takes -2**63 <= low < high < 2**63")
        wide = high - low >= 2**28
        for words, places in self._steps(out.size, 2 if wide else 4):
            drawn = [_wide(*words[0:2]), _wide(*words[2:4])] if wide else [word.astype(np.uint64) for word in words]
            for value, (place, count) in zip(drawn, places, strict=True):
                value = value[:count] % np.uint64(high - low) + np.uint64(low % 2**64)
                out.reshape(-1)[place : place + count] = value.view(np.int64)
        return out

    def permutation(self, count: int) -> np.ndarray:
        """Draw as ``torch.randperm(count)`` does on the GPU: int64.

        The numbers are sorted by random keys, of whose bits only so many count that all differ nine times in ten; where
        keys are equal, a thread shuffles their numbers.
        """
        if self._empty(count, "int64").size < 1:
            return self._empty(count, "int64")
        bits = min(64, math.ceil(math.log2(count - (6.0 * count * count + 1) / (math.log(0.9) * 12))))
        limit = 2**31 if bits <= 32 else 2**63
        keys = self.integers(-limit, limit - 1, count) & ((1 << bits) - 1)
        order = np.argsort(keys, kind="stable")
        equal = np.append(np.diff(keys[order]) == 0, False)
        for first in np.flatnonzero(equal & ~np.roll(equal, 1)).tolist():
            last = first + int(np.argmin(equal[first:]))
            words = philox((*self._counter(0), first, 0), self._key)
            for i, word in zip(range(last, first, -1), words, strict=False):
                j = first + int(word) % (i - first + 1)
                order[[i, j]] = order[[j, i]]
        self._offset += -(-count // 4) * 4
        return order.astype(np.int64)

    def _steps(self, size: int, outputs: int) -> Iterator[tuple[tuple[np.ndarray, ...], list[tuple[int, int]]]]:
        """Words of chunks of threads, and for each output where its values go and how many count."""
        if size == 0:
            return
        threads = _BLOCK * min(self._most_blocks, -(-size // _BLOCK))
        steps = (size - 1) // (threads * outputs) + 1
        for step in range(steps):
            counter = self._counter(step)
            for first in range(0, threads, _CHUNK):
                chunk = min(_CHUNK, threads - first)
                starts = [(step * outputs + i) * threads + first for i in range(outputs)]
                places = [(start, max(0, min(chunk, size - start))) for start in starts]
                if places[0][1]:
                    subsequence = np.arange(first, first + chunk, dtype=np.uint32)
                    yield philox((*counter, subsequence, 0), self._key), places
        self._offset += 4 * steps

    @property
    def _key(self) -> tuple[int, int]:
        return self._seed & _MASK32, self._seed >> 32

    def _counter(self, step: int) -> tuple[int, int]:
        counter = self._offset // 4 + step
        return counter & _MASK32, counter >> 32 & _MASK32

    def export_state(self) -> np.ndarray:
        """Return the 16 bytes (uint8) of ``torch.Generator("cuda").get_state()``: seed and offset."""
        return np.array([self._seed, self._offset], "<u8").view(np.uint8)

    def import_state(self, state: np.ndarray) -> None:
        """Continue from such 16 bytes."""
        data = np.ascontiguousarray(state)
        if data.dtype != np.uint8 or data.shape != (16,):
            raise FormatError(f"generator state: expected 16 uint8 values, got {data.dtype} of shape {data.shape}")
        seed, offset = (int(word) for word in data.view("<u8"))
        if offset % 4:
            raise FormatError(f"generator state: offset {offset} is no multiple of 4")
        self._seed, self._offset = seed, offset


def _uniform32(word: np.ndarray) -> np.ndarray:
    return _fma(word.astype(np.float32), np.float32(2.0**-32), np.float32(2.0**-33))


def _uniform53(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return (low ^ (high.astype(np.uint64) << np.uint64(21))) * 2.0**-53 + 2.0**-54


def _normal32(words: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    values = []
    for x, y in zip(words[0::2], words[1::2], strict=True):
        radius = np.sqrt(np.float32(-2) * _logf(_uniform32(x)))
        sine, cosine = sine_cosine(_fma(y.astype(np.float32), _TWO_PI, _TWO_PI / np.float32(2)))
        values += [radius * sine, radius * cosine]
    return values


def _normal64(words: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    radius = np.sqrt(-2.0 * cuda_double.log(_uniform53(words[0], words[1])))
    sine, cosine = cuda_double.sine_cosine_pi(2.0 * _uniform53(words[2], words[3]))
    return [radius * sine, radius * cosine]


def _wide(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    return high.astype(np.uint64) << np.uint64(32) | low
