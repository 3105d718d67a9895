"""Can the bit-exact streams be drawn as fast as their producers draw them? With numba, the extra ``fast``: yes.

:func:`accelerate` compiles loops (:mod:`parity.streams.compiled`), compares them with the NumPy operations that they
stand for, bit by bit, and only then uses them: for the words of every Mersenne Twister, for ``torch-cpu`` in float32
with kernel ``avx2``, and for ``numpy-legacy``. Without numba, on a CPU without fused multiply-add, or where a compiler
decides otherwise, nothing changes but the answer. It is not done by itself: importing numba costs more time than
drawing millions of values.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np

from parity.streams import loops
from parity.streams.mersenne import PEEK, MersenneTwister, key_from_seed
from parity.streams.numpy_legacy import NumpyLegacy
from parity.streams.torch_float32 import BLOCK, Avx2

_proved: Any = None  # what passed the checks in this process


def accelerate(on: bool = True) -> bool:
    """Use numba's loops from now on, in this process, or cease to.

    Parameters
    ----------
    on : bool
        False goes back to NumPy.

    Returns
    -------
    bool
        Whether they are used. False where numba is missing or a loop gives other bits than NumPy.
    """
    global _proved
    if not on:
        loops.use(None)
    elif loops.compiled() is None:
        try:
            module = importlib.import_module("parity.streams.compiled")
        except ImportError:
            return False
        if module is _proved or all(check(module) for check in (_same_words, _same_normals, _same_polar)):
            _proved = module
            loops.use(module)
    return loops.compiled() is not None


def _same_words(module: Any) -> bool:
    key = key_from_seed(93)
    expected = MersenneTwister(key).peek(PEEK)
    raw = np.empty(624 + PEEK, np.uint32)
    raw[:624] = key
    module.twist(raw, 624, len(raw))
    words = np.empty(PEEK, np.uint32)
    module.temper(raw[624:], words)
    return np.array_equal(words, expected)


def _same_normals(module: Any) -> bool:
    """Both ends of the uniforms' range and a stride through all of it, plain and scaled."""
    stride = np.arange(0, 1 << 24, 509, dtype=np.uint32)
    edge = np.arange(BLOCK // 4, dtype=np.uint32)
    words = np.concatenate([edge, np.uint32((1 << 24) - 1) - edge, stride, stride[::-1]])
    words = words[: len(words) - len(words) % BLOCK]
    kernel, expected, found = Avx2(), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for mean, std in ((0.0, 1.0), (0.3, 2.7)):
        for start in range(0, len(words), BLOCK):
            part = words[start : start + BLOCK]
            kernel.fill(part, expected, mean, std)
            module.box_muller(part, found, np.float32(mean), np.float32(std))
            if found.tobytes() != expected.tobytes():
                return False
    return True


def _same_polar(module: Any) -> bool:
    """The logarithm on a sample, and a run of the whole method."""
    values = (np.arange(1, 20_001) * 0.6180339887498949) % 1.0
    found = np.empty_like(values)
    module.logarithm(values, found)
    if not np.array_equal(found, np.fromiter(map(math.log, values.tolist()), np.float64, len(values))):
        return False
    out = np.empty(4001)
    _, filled, kept = module.polar(MersenneTwister(key_from_seed(93)).peek(PEEK), out)
    expected = NumpyLegacy(93).normal(4002)
    return filled == len(out) and np.array_equal(np.append(out, kept), expected)
