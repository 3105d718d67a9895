"""What does AUTOMATIC1111's web UI draw with the source ``NV``, its imitation of torch's CUDA generator?

torch-cuda's words below one grid, whatever the size and the GPU; the counter moves on by one a call. Box-Muller is in
float64 from uniforms whose factors are rounded to float32, and rounded at the end: a third stream beside ``torch-cuda``
and ``swift-nvidia``, within 2e-6 of both below one grid.

Proved by the values that the source's own documentation prints. Source: modules/rng_philox.py of
stable-diffusion-webui.
"""

from __future__ import annotations

import numpy as np

from parity.streams.philox import philox
from parity.streams.seeds import bounded_seed
from parity.streams.stream import Shape, Stream

_F = np.float32
_UNIT = np.float32(2.3283064e-10)
_TURN = np.float32(2.3283064e-10 * 6.2831855)


class NVStream(Stream):
    """``rng_philox.Generator``: what the source ``NV`` draws.

    Parameters
    ----------
    seed : int
        0 to 2**64 - 1.
    """

    name = "webui-nv"
    dtypes = ("float32",)

    def __init__(self, seed: int) -> None:
        self._seed = bounded_seed(seed, 0, 2**64 - 1, self.name)
        self._offset = 0

    def normal(self, shape: Shape, *, dtype: str | None = None, mean: float = 0.0, std: float = 1.0) -> np.ndarray:
        """Draw as ``Generator.randn(shape)`` does. See the protocol."""
        out = self._empty(shape, self._dtype(dtype))
        x, y, *_ = philox(
            (self._offset & 0xFFFFFFFF, 0, np.arange(out.size, dtype=np.uint32), 0),
            (self._seed & 0xFFFFFFFF, self._seed >> 32),
        )
        self._offset += 1
        u = x * np.float64(_UNIT) + np.float64(_UNIT / _F(2))
        v = y * np.float64(_TURN) + np.float64(_TURN / _F(2))
        out.reshape(-1)[...] = np.sqrt(-2.0 * np.log(u)) * np.sin(v)
        if (mean, std) != (0.0, 1.0):
            out *= _F(std)
            out += _F(mean)
        return out
