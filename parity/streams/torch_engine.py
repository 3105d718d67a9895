"""What does torch's CPU generator do before a distribution is chosen: seeding, words, single values, its saved state?

The engine is MT19937, seeded by ``init_genrand`` with the seed's low 32 bits. 64-bit draws take two words, the first
one high. Beside the engine the generator keeps one normal value in float64: single normals come in pairs, the second
of a pair waits, across calls and dtypes, for the next one. Seeding drops it; bulk draws leave it alone.

Source: torch's aten/src/ATen/CPUGeneratorImpl.cpp; states are checked against ``torch.Generator.get_state``.
"""

from __future__ import annotations

import math

import numpy as np

from parity.errors import FormatError
from parity.streams import exact
from parity.streams.mersenne import PEEK, SIZE, MersenneTwister, key_from_seed
from parity.streams.seeds import torch_seed

_WORDS_21 = np.array((1 << 21) - 1, np.uint32)
_2_32, _2_M53 = np.array(2.0**32), np.array(2.0**-53)

# CPUGeneratorImplState of ATen/CPUGeneratorImpl.cpp: the layout of torch 0.x's THGenerator, and two fields behind it
_STATE = np.dtype(
    [
        ("seed", "<u8"),
        ("left", "<i4"),
        ("seeded", "<i4"),
        ("next", "<u8"),
        ("key", "<u8", (SIZE,)),
        ("normal_x", "<f8"),
        ("normal", "<f8"),
        ("normal_rho", "<f8"),
        ("normal_is_valid", "<i4"),
        ("padding", "<i4"),
        ("float_normal", "<f4"),
        ("float_normal_is_valid", "<i4"),
    ]
)


class TorchEngine:
    """A seeded CPU generator.

    Parameters
    ----------
    seed : int
        -2**63 to 2**64 - 1, as ``manual_seed`` takes.

    Attributes
    ----------
    words : MersenneTwister
        The engine's 32-bit words.
    """

    def __init__(self, seed: int) -> None:
        self._seed = torch_seed(seed)
        self.words = MersenneTwister(key_from_seed(self._seed))
        self._kept: float | None = None

    def doubles(self, count: int) -> np.ndarray:
        """Draw uniform float64 values with 53 bits, at most half of :data:`parity.streams.mersenne.PEEK`."""
        words = self.words.take(2 * count)
        values = np.multiply(words[0::2] & _WORDS_21, _2_32)
        np.add(values, words[1::2], values)
        return np.multiply(values, _2_M53, values)

    def normals(self, count: int) -> np.ndarray:
        """Draw normal values one by one, as float64."""
        out = np.empty(count)
        start = 0
        if self._kept is not None and count:
            out[0], self._kept = self._kept, None
            start = 1
        while start < count:
            pairs = min((count - start + 1) // 2, PEEK // 4)
            uniforms = self.doubles(2 * pairs)
            angle, second = np.multiply(uniforms[0::2], 2.0 * math.pi), np.negative(uniforms[1::2])
            radius = np.sqrt(-2.0 * exact.log1p(second, np.empty_like(second)))
            values = np.empty(2 * pairs)
            values[0::2] = radius * exact.cos(angle, np.empty_like(angle))
            values[1::2] = radius * exact.sin(angle, np.empty_like(angle))
            taken = min(2 * pairs, count - start)
            out[start : start + taken] = values[:taken]
            if taken < 2 * pairs:
                self._kept = float(values[-1])
            start += taken
        return out

    def export_state(self) -> np.ndarray:
        """Return the 5056 bytes (uint8) that ``torch.Generator.get_state`` would give."""
        key, position = self.words.state
        state = np.zeros((), _STATE)
        state["seed"], state["seeded"], state["key"] = self._seed, 1, key
        state["left"] = SIZE + 1 - position
        state["next"] = position if self.words.given else 0
        if self._kept is not None:
            state["normal"], state["normal_is_valid"] = self._kept, 1
        return state.reshape(1).view(np.uint8)

    def import_state(self, state: np.ndarray) -> None:
        """Continue from the bytes of ``torch.Generator.get_state``.

        Raises
        ------
        FormatError
            Not 5056 bytes, or fields that no CPU generator has.
        """
        data = np.ascontiguousarray(state)
        if data.dtype != np.uint8 or data.shape != (_STATE.itemsize,):
            raise FormatError(
                f"generator state: expected {_STATE.itemsize} uint8 values as torch's CPU generator saves them, "
                f"got {data.dtype} of shape {data.shape}"
            )
        fields = data.view(_STATE)[0]
        if not 1 <= fields["left"] <= SIZE or fields["seeded"] != 1 or fields["key"].max() >= 2**32:
            raise FormatError(
                "generator state: not a state of torch's CPU generator (words left, flag or key out of range)"
            )
        self._seed = int(fields["seed"])
        self.words = MersenneTwister(fields["key"], SIZE + 1 - int(fields["left"]))
        self._kept = float(fields["normal"]) if fields["normal_is_valid"] else None
