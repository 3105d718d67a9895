"""``torch.Generator("mps")``: which values does torch draw on Apple's GPU?

Since 2.13 torch has Metal kernels of its own for this, and its source says everything but the last bits of three
functions:

1. **Words.** Philox4x32 with nine rounds, not ten; the key is (high, low) of the 64-bit seed, the counter (0, 0, high,
   low) of the generator's offset plus the thread.
2. **Layout.** Thread t writes elements 4 t to 4 t + 3, one word each (2 t and 2 t + 1 for int64, two words each). A
   call moves the offset on by its number of threads. The GPU's model does not matter.
3. **Transform.** Uniforms have 31 bits, rounded to float32. Normals are Box-Muller on two words each, cosine first; the
   first uniform is at least 2**-23. Half types are rounded from float32.

Proved: words, key, rounds, layout, offsets and uniforms, by counts that others published from hardware (see
``fixtures/streams/torch_mps.json``). **Normals are not verified on hardware**: ``metal::precise`` ``log``, ``sin`` and
``cos`` are taken as correctly rounded, which they need not be in the last bit. On a Mac with torch 2.13 or later, this
line prints :data:`PREDICTION` if they are right::

    python -c "import torch; print(torch.randn(5, device='mps', generator=torch.Generator('mps').manual_seed(42)))"

Up to 2.12 torch called MPSGraph, whose transform is Apple's and closed; those releases are refused.

Source: torch/include/c10/metal/random.h (in every wheel), and of torch's ATen Distributions.metal, Distributions.mm and
MPSGeneratorImpl.mm.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from parity.errors import FormatError, UnsupportedError
from parity.streams.philox import philox
from parity.streams.seeds import torch_seed
from parity.streams.stream import RuntimeUsageError, Shape, Stream, UnsupportedDtypeError
from parity.streams.torch_half import release, rounded

PREDICTION = "tensor([ 1.7563, -0.2539, -0.9927, -0.6515, -0.4827], device='mps:0')"
"""What ``torch.randn(5)`` prints on an Apple GPU after ``manual_seed(42)``, if this module is right."""

_ROUNDS = 9  # the kernel's loop ends one round short of the ten it is given
_CHUNK = 8192
_MASK32 = 0xFFFFFFFF
_UNIT = np.float32(4.6566127342e-10)  # the largest for which (2**31 - 1) * unit < 1
_LEAST = np.float32(2.0**-23)
_TURN = np.float32(2) * np.float32(np.pi)
_STATE = np.dtype([("graph", "<u4", (7,)), ("seed", "<u8"), ("offset", "<u8")])


class TorchMPS(Stream):
    """The stream of ``torch.Generator("mps").manual_seed(seed)``.

    Parameters
    ----------
    seed : int
        -2**63 to 2**64 - 1; all 64 bits count.
    torch_version : str
        2.13 or later. From 2.15 on a half-precision uniform that rounds up to 1 becomes 0, as on other devices.

    Raises
    ------
    UnsupportedError
        A release whose normals are made by closed code.
    """

    name = "torch-mps"
    dtypes = ("float32", "float16", "bfloat16")
    _bad_shape = RuntimeUsageError
    _bad_dtype = UnsupportedDtypeError

    def __init__(self, seed: int, *, torch_version: str = "2.13") -> None:
        self._release = release(torch_version)
        if self._release < (2, 13):
            raise UnsupportedError(
                f"torch {torch_version} on MPS: up to 2.12 MPSGraph made the values, whose code is closed; "
                "torch-mps draws those of 2.13 and later"
            )
        self._seed = torch_seed(seed)
        self._offset = 0

    def normal(self, shape: Shape, *, dtype: str | None = None, mean: float = 0.0, std: float = 1.0) -> np.ndarray:
        """Draw as ``torch.randn`` does, *last bits not verified on hardware*. See the protocol."""
        kind = self._dtype(dtype)
        out = self._empty(shape, kind)
        if not std >= 0:
            raise RuntimeUsageError(f"std {std}: must not be negative")
        for part, words in self._parts(out.reshape(-1), 4):
            values = np.stack([*_box_muller(words[0], words[1]), *_box_muller(words[2], words[3])], axis=1).reshape(-1)
            if (mean, std) != (0.0, 1.0):
                values = np.float32(mean) + np.float32(std) * values
            part[...] = rounded(values, kind)[: part.size]
        return out

    def uniform(self, shape: Shape, *, dtype: str | None = None) -> np.ndarray:
        """Draw as ``torch.rand`` does: exact. Before 2.15 half types contain 1.0, which is the producer's fault."""
        kind = self._dtype(dtype)
        out = self._empty(shape, kind)
        for part, words in self._parts(out.reshape(-1), 4):
            values = rounded(np.stack([_uniform(word) for word in words], axis=1).reshape(-1), kind)[: part.size]
            part[...] = np.where(values == 1.0, values.dtype.type(0), values) if self._release >= (2, 15) else values
        return out

    def integers(self, low: int, high: int, shape: Shape) -> np.ndarray:
        """Draw as ``torch.randint(low, high, shape)`` does, int64 in [low, high), *not verified on hardware*."""
        out = self._empty(shape, "int64")
        if not -(2**63) <= low < high < 2**63:
            raise RuntimeUsageError(f"integers from {low} to {high}: torch takes -2**63 <= low < high < 2**63")
        count = high - low
        for part, words in self._parts(out.reshape(-1), 2):
            high_words, low_words = (np.stack(words[i::2], axis=1).reshape(-1).astype(np.uint64) for i in (0, 1))
            drawn = high_words << np.uint64(32) | low_words
            if count != 2**64 - 1:  # which the kernel takes for the whole range of 64 bits
                drawn %= np.uint64(count)
            part[...] = (drawn + np.uint64(low % 2**64)).view(np.int64)[: part.size]
        return out

    def _parts(self, flat: np.ndarray, elements: int) -> Iterator[tuple[np.ndarray, tuple[np.ndarray, ...]]]:
        """Pieces of the output and the four words of each thread that writes there."""
        threads = -(-flat.size // elements)
        key = (self._seed >> 32, self._seed & _MASK32)
        for first in range(0, threads, _CHUNK):
            last = min(first + _CHUNK, threads)
            index = np.arange(first, last, dtype=np.uint64) + np.uint64(self._offset)
            counter = (0, 0, (index >> np.uint64(32)).astype(np.uint32), index.astype(np.uint32))
            yield flat[elements * first : elements * last], philox(counter, key, rounds=_ROUNDS)
        self._offset += threads

    def export_state(self) -> np.ndarray:
        """Return the 44 bytes (uint8) of ``torch.Generator("mps").get_state()``: MPSGraph's words, seed, offset."""
        state = np.zeros((), _STATE)
        state["graph"] = (1, 1, 1, 1, 1, self._seed & _MASK32, self._seed >> 32)
        state["seed"], state["offset"] = self._seed, self._offset
        return state.reshape(1).view(np.uint8)

    def import_state(self, state: np.ndarray) -> None:
        """Continue from such 44 bytes.

        Raises
        ------
        FormatError
            Not such bytes.
        """
        data = np.ascontiguousarray(state)
        if data.dtype != np.uint8 or data.shape != (_STATE.itemsize,):
            raise FormatError(
                f"generator state: expected {_STATE.itemsize} uint8 values as torch's MPS generator saves them, "
                f"got {data.dtype} of shape {data.shape}"
            )
        fields = data.view(_STATE)[0]
        self._seed, self._offset = int(fields["seed"]), int(fields["offset"])


def _uniform(words: np.ndarray) -> np.ndarray:
    return (words & np.uint32(0x7FFFFFFF)).astype(np.float32) * _UNIT


def _box_muller(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    uniform = np.maximum(_uniform(first), _LEAST).astype(np.float64)
    radius = np.sqrt(np.float32(-2) * np.log(uniform).astype(np.float32))
    angle = (_TURN * _uniform(second)).astype(np.float64)
    return radius * np.cos(angle).astype(np.float32), radius * np.sin(angle).astype(np.float32)
