"""What does torch's CPU code draw in float16 and bfloat16, and from which release on?

Three rules for ``randn`` from 16 elements up, by release (in brackets: those checked):

2.13 and later (2.13.0, 2.14.1)
    the float32 values of the machine's kernel, rounded
2.12 (2.12.1)
    the float32 values of the scalar kernel, rounded, even on CPUs with AVX2; mean and std are rounded beforehand
2.0 to 2.11 (2.0.1, 2.4.1, 2.5.1, 2.6.0, 2.8.0, 2.9.1, 2.10.0, 2.11.0)
    every step of Box-Muller rounded to the half type, from uniforms of 11 (float16) or 8 (bfloat16) bits: nothing in
    common with the float32 stream

A reference drawn with ``dtype=torch.float16``, as diffusers does for half-precision pipelines, therefore depends on the
release. From 2.12 on also fewer words are used: none for a ragged end, beyond the 16 of its last group.
"""

from __future__ import annotations

import functools
import re

import numpy as np

from parity.errors import UsageError
from parity.streams import glibc

BITS = {"float16": 11, "bfloat16": 8}
"""Bits of a uniform value of releases up to 2.11."""


RULES = ("2.13", "2.12", "2.11", "2.0")
"""The rules by the release that stands for each, newest first."""


def release(version: str) -> tuple[int, int]:
    """Return major and minor of a torch version such as ``2.13.0+cpu``."""
    match = re.match(r"(\d+)\.(\d+)", version)
    if not match or (found := (int(match[1]), int(match[2]))) < (2, 0):
        raise UsageError(f"torch version {version!r}: expected 2.0 or later, such as '2.11' or '2.13.0'")
    return found


def half_rule(version: str) -> str:
    """Return which of :data:`RULES` the half types of a release follow; 2.0 differs from 2.11 in float16 alone."""
    found = release(version)
    if found >= (2, 12):
        return "2.13" if found >= (2, 13) else "2.12"
    return "2.11" if found >= (2, 1) else "2.0"


def rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    """Round float32 values to the nearest of ``dtype``, ties to even; the result is float32 (float16 for float16)."""
    if dtype == "float16":
        return values.astype(np.float16)
    if dtype == "bfloat16":
        bits = values.view(np.uint32)
        return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)).view(
            np.float32
        )
    return values


def _float32(values: np.ndarray, dtype: str) -> np.ndarray:
    return rounded(np.asarray(values, np.float32), dtype).astype(np.float32)


class Stepwise:
    """Box-Muller in a half type: there are so few uniforms that radius, cosine and sine are tables.

    Parameters
    ----------
    dtype : str
        ``float16`` or ``bfloat16``.
    fused : bool
        Whether logarithm, root, sine and cosine stay in float32 in between, as float16 does in torch 2.0.
    """

    def __init__(self, dtype: str, *, fused: bool) -> None:
        self._dtype = dtype
        self._mask = np.uint32((1 << BITS[dtype]) - 1)
        self._radius, self._cos, self._sin = _tables(dtype, fused)

    def fill(self, words: np.ndarray, out: np.ndarray, mean: float, std: float) -> None:
        """Turn words, a multiple of 16, into as many values."""
        low = (words & self._mask).reshape(-1, 2, 8)
        radius = self._radius[low[:, 0]]
        mean, std = float(_float32(np.array(mean), self._dtype)), float(_float32(np.array(std), self._dtype))
        for place, table in ((0, self._cos), (1, self._sin)):
            values = _float32(radius * table[low[:, 1]], self._dtype)
            values = _float32(values * np.float32(std), self._dtype)
            out.reshape(-1, 2, 8)[:, place] = _float32(values + np.float32(mean), self._dtype)


@functools.cache
def _tables(dtype: str, fused: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    def step(values: np.ndarray) -> np.ndarray:
        return values if fused else _float32(values, dtype)

    uniform = np.arange(1 << BITS[dtype]) * 2.0 ** -BITS[dtype]
    logarithm = step(glibc.logf(_float32(1.0 - uniform, dtype)))
    radius = _float32(np.sqrt(step(np.float32(-2) * logarithm)), dtype)
    theta = _float32((6.283185307179586 * uniform).astype(np.float32), dtype)
    cos, sin = (step(values) for values in glibc.cosf_sinf(theta))
    return radius, cos, sin
