"""``jax.random``: normal and uniform of one key, as diffusers' Flax pipelines draw them.

JAX has no generator but keys. A function draws the same values again for the same key; programs split a key before
each draw if they want others (``split=True``).

1. Words are Threefry's, numbered by index, or in halves by releases before 0.5 (``partitionable=False``).
2. A uniform has 23 bits: the mantissa of a number in [1, 2), less 1.
3. A normal is sqrt(2) times XLA's inverse error function of a uniform on (-1, 1).

Words and uniforms are equal to JAX's (tested). Normals are not to the bit: XLA compiles its own logarithm, which is
taken as correctly rounded here; about 1 % of values differ, by at most 3 units in the last place (tested).

Source: jax/_src/random and jax/_src/prng.py of JAX 0.10; XLA's math.cc (ErfInv32).
"""

from __future__ import annotations

import numpy as np

from parity.streams.seeds import bounded_seed
from parity.streams.stream import Shape, Stream
from parity.streams.threefry import Key, split_by_halves, split_by_index, words_by_halves, words_by_index

_CHUNK = 1 << 14
_F = np.float32
_ABOVE_MINUS_ONE = np.nextafter(_F(-1), _F(0))
_SQRT2 = _F(np.sqrt(2.0))

# Giles, "Approximating the erfinv function" (2012), single precision: by w = -log(1 - x**2), below 5 and from there on
_CENTRE = (
    *(2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087),
    *(-0.00125372503, -0.00417768164, 0.246640727, 1.50140941),
)
_TAIL = (
    *(-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773),
    *(-0.0076224613, 0.00943887047, 1.00167406, 2.83297682),
)


class JAX(Stream):
    """The stream of ``jax.random.PRNGKey(seed)``.

    Parameters
    ----------
    seed : int
        -2**63 to 2**63 - 1. Without ``jax_enable_x64`` the low 32 bits count.
    split : bool
        False: each call draws from the key itself, the same values again. True: each call first splits the key, keeps
        the first half and draws with the second, as ``key, subkey = jax.random.split(key)`` does.
    partitionable : bool
        True: JAX 0.5 and later. False: earlier releases, and ``jax_threefry_partitionable=False``.
    """

    name = "jax"
    dtypes = ("float32",)

    def __init__(self, seed: int, *, split: bool = False, partitionable: bool = True) -> None:
        self._key: Key = (0, bounded_seed(seed, -(2**63), 2**63 - 1, self.name) & 0xFFFFFFFF)
        self._split = split
        self._partitionable = partitionable

    def normal(self, shape: Shape, *, dtype: str | None = None, mean: float = 0.0, std: float = 1.0) -> np.ndarray:
        """Draw as ``jax.random.normal(key, shape)`` does, to 3 units in the last place. See the protocol."""
        out = self._empty(shape, self._dtype(dtype))
        flat, words = out.reshape(-1), self._words(out.size)
        for start in range(0, out.size, _CHUNK):
            part = _uniform(words[start : start + _CHUNK])
            part = np.maximum(_ABOVE_MINUS_ONE, part * (_F(1) - _ABOVE_MINUS_ONE) + _ABOVE_MINUS_ONE)
            flat[start : start + len(part)] = _SQRT2 * _erfinv(part)
        if (mean, std) != (0.0, 1.0):  # JAX has neither: programs multiply and add
            out *= _F(std)
            out += _F(mean)
        return out

    def uniform(self, shape: Shape, *, dtype: str | None = None) -> np.ndarray:
        """Draw as ``jax.random.uniform(key, shape)`` does."""
        out = self._empty(shape, self._dtype(dtype))
        out.reshape(-1)[...] = _uniform(self._words(out.size))
        return out

    def _words(self, count: int) -> np.ndarray:
        key = self._key
        if self._split:
            self._key, key = (split_by_index if self._partitionable else split_by_halves)(key)
        return (words_by_index if self._partitionable else words_by_halves)(key, count)


def _uniform(words: np.ndarray) -> np.ndarray:
    return (words >> np.uint32(9) | np.uint32(0x3F800000)).view(_F) - _F(1)


def _erfinv(x: np.ndarray) -> np.ndarray:
    wide = x.astype(np.float64)
    w = -np.log1p(-(x * x).astype(np.float64)).astype(_F)
    p = _polynomial(_CENTRE, w - _F(2.5))
    far = w >= _F(5)
    if far.any():
        p[far] = _polynomial(_TAIL, np.sqrt(w[far]) - _F(3))
    return (p * wide).astype(_F)


def _polynomial(coefficients: tuple[float, ...], w: np.ndarray) -> np.ndarray:
    """Horner's rule in float32, each step a fused multiply-add by way of float64, as XLA compiles it."""
    wide = w.astype(np.float64)
    value = np.full_like(w, coefficients[0])
    for coefficient in coefficients[1:]:
        value = (value.astype(np.float64) * wide + np.float64(_F(coefficient))).astype(_F)
    return value
