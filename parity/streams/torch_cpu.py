"""``torch.Generator("cpu")``: randn, normal_, rand and randint, to the bit.

Three things decide what ``randn`` gives:

* **Size.** From 16 elements up, uniforms for all elements are drawn and each group of 16 goes through Box-Muller. If
  the size is no multiple of 16, 16 more are drawn, and the last 16 elements are made anew from them. Below 16, and in
  tensors that are not contiguous, each element is drawn on its own, in float64, in the order of memory.
* **Kernel.** See :mod:`parity.streams.torch_float32`; only float32 and the half types from 2.12 on have more than one.
* **Release.** See :mod:`parity.streams.torch_half`; ``randint`` also changed which ranges take 64-bit words.

Proved by test against the installed torch, in both of its kernels; against 2.0.1, 2.9.1 and 2.12.1 (x86-64) and 2.4.1,
2.6.0, 2.7.1, 2.8.0 and 2.10.0 (aarch64) with recorded values. *Not verified*: macOS and Windows, for which
:mod:`parity.streams.torch_platforms` has kernels.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from parity.errors import UnsupportedError, UsageError
from parity.streams import exact
from parity.streams.mersenne import PEEK
from parity.streams.stream import RuntimeUsageError, Shape, Stream
from parity.streams.torch_engine import TorchEngine
from parity.streams.torch_float32 import Libm
from parity.streams.torch_half import BITS, Stepwise, release, rounded
from parity.streams.torch_platforms import KERNELS, SCALAR

_LOW24 = np.uint32(0xFFFFFF)
_GROUP = 16


class _Fill(Protocol):
    def fill(self, words: np.ndarray, out: np.ndarray, mean: float, std: float) -> None: ...


class TorchCPU(Stream):
    """The stream of ``torch.Generator("cpu").manual_seed(seed)``.

    Parameters
    ----------
    seed : int
        -2**63 to 2**64 - 1. The engine uses the low 32 bits, so 93 and 2**32 + 93 give one stream.
    kernel : {"avx2", "libm", "avx2-unfused", "system-libm"}
        Which of torch's kernels; :func:`parity.streams.detect.torch_cpu` tells this machine's.
    torch_version : str
        Release whose rules hold; 2.0 and later. The newest that tests run is 2.13.
    fused : bool, optional
        Whether the kernels ``libm`` and ``system-libm`` apply std and mean by one fused multiply-add, as the wheels for
        arm64 do. Default: for ``system-libm`` yes; for ``libm``, which x86-64 wheels have, in bulk since 2.13 and never
        for single values. Standard normals do not depend on it.

    Raises
    ------
    UsageError
        Seed, kernel or version out of range, or ``fused`` for a kernel that leaves no choice.
    """

    name = "torch-cpu"
    dtypes = ("float32", "float64", "float16", "bfloat16")
    _bad_shape = RuntimeUsageError
    _bad_dtype = UnsupportedError

    def __init__(
        self, seed: int, *, kernel: str = "avx2", torch_version: str = "2.13", fused: bool | None = None
    ) -> None:
        if kernel not in KERNELS:
            raise UsageError(f"kernel {kernel!r}: torch-cpu has {', '.join(KERNELS)}")
        if fused is not None and kernel not in SCALAR:
            raise UsageError(f"fused: kernel {kernel} has one way only; {' and '.join(SCALAR)} have two")
        self._release = release(torch_version)
        self._engine = TorchEngine(seed)
        self._kernel = kernel
        if fused is None:
            self._fused_singly = kernel in ("avx2", "system-libm")
            self._fused = self._fused_singly or (kernel == "libm" and self._release >= (2, 13))
        else:
            self._fused = self._fused_singly = fused
        self._fills: dict[str, _Fill] = {}
        self._log = exact.logarithm()

    def normal(self, shape: Shape, *, dtype: str | None = None, mean: float = 0.0, std: float = 1.0) -> np.ndarray:
        """Draw as ``torch.randn`` does, and with mean or std as ``torch.Tensor.normal_`` does.

        See :meth:`parity.streams.stream.Stream.normal`. Raises :class:`RuntimeUsageError` for negative sizes or std,
        :class:`UnsupportedError` for other dtypes, as torch does.
        """
        kind = self._dtype(dtype)
        out = self._empty(shape, kind)
        self._check_std(std)
        flat = out.reshape(-1)
        if flat.size < _GROUP:
            flat[...] = self._singles(flat.size, kind, mean, std)
        elif kind == "float64":
            self._bulk64(flat, mean, std)
        elif kind == "float16" and self._release == (2, 0) and (mean, std) != (0.0, 1.0):
            raise UnsupportedError("torch 2.0 applies mean and std to float16 in a way that is not re-created here")
        elif kind != "float32" and self._release >= (2, 12):
            self._bulk_half(flat, kind, mean, std)
        else:
            self._bulk(self._fill(kind), flat, mean, std)
        return out

    def fill_normal(self, target: np.ndarray, *, dtype: str | None = None, mean: float = 0.0, std: float = 1.0) -> None:
        """Fill an array as ``Tensor.normal_`` fills a tensor of the same shape and strides.

        Contiguous targets get what :meth:`normal` gives. Others, such as what ``randn_like`` makes of a channels-last
        tensor, are filled one by one in the order of memory, whatever their size.

        Parameters
        ----------
        target : array of float32, float64 or float16
            float32 for ``dtype="bfloat16"``.
        dtype : str, optional
            The target's by default.
        mean, std : float
            Of the normals.
        """
        kind = self._dtype(dtype or target.dtype.name)
        self._check_std(std)
        if target.dtype != self._empty(0, kind).dtype:
            raise UsageError(f"a {target.dtype} array cannot take {kind} values")
        if target.flags.c_contiguous:
            target[...] = self.normal(target.shape, dtype=kind, mean=mean, std=std)
            return
        order = sorted(range(target.ndim), key=lambda axis: (-target.strides[axis], axis))
        memory = target.transpose(order)
        memory[...] = self._singles(target.size, kind, mean, std).reshape(memory.shape)

    def uniform(self, shape: Shape, *, dtype: str | None = None) -> np.ndarray:
        """Draw as ``torch.rand`` does."""
        kind = self._dtype(dtype)
        out = self._empty(shape, kind)
        flat = out.reshape(-1)
        step = PEEK // 2 if kind == "float64" else PEEK
        for start in range(0, flat.size, step):
            part = flat[start : start + step]
            part[...] = self._uniforms(part.size, kind)
        return out

    def integers(self, low: int, high: int, shape: Shape) -> np.ndarray:
        """Draw as ``torch.randint(low, high, shape)`` does: int64 in [low, high).

        Wide ranges take 64-bit words: from 2**32 numbers on up to torch 2.6, from 2**28 on since 2.7.
        """
        out = self._empty(shape, "int64")
        if not -(2**63) <= low < high < 2**63:
            kind = RuntimeUsageError if low >= high else UsageError
            raise kind(f"integers from {low} to {high}: torch takes -2**63 <= low < high < 2**63")
        count = high - low
        wide = count >= (2**28 if self._release >= (2, 7) else 2**32)
        flat = out.reshape(-1)
        words = self._engine.words
        step = PEEK // 2
        for start in range(0, flat.size, step):
            part = flat[start : start + step]
            if wide:
                pairs = words.take(2 * part.size).astype(np.uint64)
                drawn = (pairs[0::2] << np.uint64(32) | pairs[1::2]) % np.uint64(count)
            else:
                drawn = words.take(part.size) % np.uint64(count)
            part[...] = (drawn + np.uint64(low % 2**64)).view(np.int64)
        return out

    def permutation(self, count: int) -> np.ndarray:
        """Draw as ``torch.randperm(count)`` does: int64, one word a swap."""
        out = self._empty(count, "int64")
        values = list(range(count))
        for start in range(0, count - 1, PEEK):
            words = self._engine.words.take(min(PEEK, count - 1 - start)).tolist()
            for i, word in enumerate(words, start):
                j = i + word % (count - i)
                values[i], values[j] = values[j], values[i]
        out[...] = values
        return out

    def export_state(self) -> np.ndarray:
        """Return the bytes (uint8) that ``torch.Generator.set_state`` takes, by way of ``torch.from_numpy``."""
        return self._engine.export_state()

    def import_state(self, state: np.ndarray) -> None:
        """Continue from what ``torch.Generator.get_state`` gave, as a uint8 array."""
        self._engine.import_state(state)

    def _check_std(self, std: float) -> None:
        if not std >= 0:
            raise RuntimeUsageError(f"std {std}: must not be negative")

    def _singles(self, count: int, kind: str, mean: float, std: float) -> np.ndarray:
        """Values drawn one at a time in float64, then rounded to float32 and on to ``kind``."""
        values = self._engine.normals(count)
        values = exact.fma(values, std, mean) if self._fused_singly else values * std + mean
        return values if kind == "float64" else rounded(values.astype(np.float32), kind)

    def _uniforms(self, count: int, kind: str) -> np.ndarray:
        if kind == "float64":
            return self._engine.doubles(count)
        words = self._engine.words.take(count)
        if kind != "float32" and self._release < (2, 12):
            return (words & np.uint32((1 << BITS[kind]) - 1)) * np.float32(2.0 ** -BITS[kind])
        values = rounded((words & _LOW24).astype(np.float32) * np.float32(2.0**-24), kind)
        return values if kind == "float32" else np.where(values == 1.0, values.dtype.type(0), values)

    def _fill(self, kind: str) -> _Fill:
        if kind not in self._fills:
            if kind == "float32" or self._release >= (2, 12):
                kernel = Libm if kind != "float32" and self._release == (2, 12) else KERNELS[self._kernel]
                self._fills[kind] = kernel(fused=self._fused)
            else:
                self._fills[kind] = Stepwise(kind, fused=kind == "float16" and self._release == (2, 0))
        return self._fills[kind]

    def _bulk(self, kernel: _Fill, flat: np.ndarray, mean: float, std: float) -> None:
        words = self._engine.words
        whole = flat.size - flat.size % _GROUP
        for start in range(0, whole, PEEK):
            part = flat[start : min(start + PEEK, whole)]
            kernel.fill(words.take(part.size), part, mean, std)
        if whole < flat.size:
            words.skip(flat.size - whole)
            kernel.fill(words.take(_GROUP), flat[-_GROUP:], mean, std)

    def _bulk_half(self, flat: np.ndarray, kind: str, mean: float, std: float) -> None:
        """Since 2.12: float32 groups, rounded; nothing is drawn for a ragged end but its last group."""
        kernel, words = self._fill(kind), self._engine.words
        if self._release == (2, 12):
            mean, std = (float(rounded(np.array(value, np.float32), kind)) for value in (mean, std))
        block = np.empty(PEEK, np.float32)
        whole = flat.size - flat.size % _GROUP
        parts = [flat[start : min(start + PEEK, whole)] for start in range(0, whole, PEEK)]
        if whole < flat.size:
            parts.append(flat[-_GROUP:])
        for part in parts:
            values = block[: part.size]
            kernel.fill(words.take(part.size), values, mean, std)
            part[...] = rounded(values, kind)

    def _bulk64(self, flat: np.ndarray, mean: float, std: float) -> None:
        step = PEEK // 2
        whole = flat.size - flat.size % _GROUP
        for start in range(0, whole, step):
            part = flat[start : min(start + step, whole)]
            self._group64(part, mean, std)
        if whole < flat.size:
            self._engine.words.skip(2 * (flat.size - whole))
            self._group64(flat[-_GROUP:], mean, std)

    def _group64(self, out: np.ndarray, mean: float, std: float) -> None:
        """Box-Muller in float64 with the C library's functions, the same in both kernels."""
        uniforms = self._engine.doubles(out.size).reshape(-1, 2, 8)
        first = np.ascontiguousarray(uniforms[:, 0]).reshape(-1)
        second = np.ascontiguousarray(uniforms[:, 1]).reshape(-1)
        radius = self._log(np.subtract(1.0, first, first), np.empty_like(first))
        np.multiply(radius, -2.0, radius)
        np.sqrt(radius, radius)
        np.multiply(second, 2.0 * math.pi, second)
        groups = out.reshape(-1, 2, 8)
        factor = np.empty_like(second)
        for place, function in ((0, exact.cos), (1, exact.sin)):
            values = np.multiply(radius, function(second, factor), factor)
            if (mean, std) != (0.0, 1.0):
                values = exact.fma(values, std, mean) if self._fused else values * std + mean
            groups[:, place] = np.add(values, 0.0, values).reshape(-1, 8)
