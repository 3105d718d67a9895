"""Which noise does Draw Things draw, by its seed mode?

``torch-cpu``
    One stream over the whole batch. Its source is torch's scalar kernel but for one rounding: the angle is a product of
    Floats. Apple's ``logf``, ``sinf`` and ``cosf`` are taken as glibc's, *not verified on hardware*.
``nvidia-gpu``
    ``swift-nvidia``'s values, one stream over the whole batch.
``scale-alike`` (the default)
    One stream of the first kind for each image, in blocks of 8 x 8 that are laid out from the middle, so that a larger
    picture has the smaller one's noise in its middle. Image i + 1 has the seed that xorshift makes of image i's.
``legacy``
    A GPU's generator of the app's own library: refused.

The app keeps latents as NHWC in Float16; here they come as NCHW. Source: draw-things-community, ImageGenerator.swift,
NVRandomSource.swift and TorchRandomSource.swift. The app itself was *not run*.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from parity.errors import UnsupportedError, UsageError
from parity.streams import glibc
from parity.streams.catalogue import open as open_stream
from parity.streams.seeds import bounded_seed
from parity.streams.torch_engine import TorchEngine

MODES = ("scale-alike", "torch-cpu", "nvidia-gpu", "legacy")
_F = np.float32
_GROUP = 16
_BLOCK = 8


def draw_things(seed: int, shape: Sequence[int], *, mode: str = "scale-alike") -> np.ndarray:
    """Return the float16 noise of a batch as NCHW.

    Parameters
    ----------
    seed : int
        0 to 2**32 - 1.
    shape : sequence of int
        Images, channels, height, width of the latents.
    mode : str
        One of :data:`MODES`.

    Raises
    ------
    UsageError
        An unknown mode, a seed out of range, or not four sizes.
    UnsupportedError
        ``legacy``.
    """
    if mode not in MODES:
        raise UsageError(f"seed mode {mode!r}: Draw Things has {', '.join(MODES)}")
    if mode == "legacy":
        raise UnsupportedError(
            "seed mode legacy: drawn by a GPU generator of Draw Things' own library; use another mode"
        )
    if len(shape) != 4:
        raise UsageError(f"shape {tuple(shape)}: expected images, channels, height and width")
    seed = bounded_seed(seed, 0, 2**32 - 1, "Draw Things")
    if mode == "nvidia-gpu":
        return open_stream("swift-nvidia", seed).normal(shape).astype(np.float16)
    images, channels, height, width = shape
    if mode == "torch-cpu":
        return torch_array(seed, images * channels * height * width).reshape(shape).astype(np.float16)
    out = np.empty((images, height, width, channels), np.float16)
    for image in range(images):
        out[image] = _nested(torch_array(seed, channels * height * width), (height, width, channels))
        seed = xorshift(seed)
    return np.ascontiguousarray(out.transpose(0, 3, 1, 2))


def xorshift(seed: int) -> int:
    """Return the next image's seed."""
    word = seed or 0xBAD5EED
    word ^= word << 13 & 0xFFFFFFFF
    word ^= word >> 17
    return word ^ (word << 5 & 0xFFFFFFFF)


def torch_array(seed: int, count: int) -> np.ndarray:
    """Return ``TorchRandomSource(seed:).normalArray(count:)``: float32."""
    engine = TorchEngine(seed)
    if count < _GROUP:
        return engine.normals(count).astype(_F)
    words = np.concatenate([engine.words.take(n).copy() for n in _pieces(count)])
    whole = count - count % _GROUP
    out = np.empty(count, _F)
    out[:whole] = _box_muller(words[:whole])
    if whole < count:  # the last 16 are drawn again
        out[-_GROUP:] = _box_muller(engine.words.take(_GROUP))
    return out


def _pieces(count: int) -> Iterator[int]:
    for start in range(0, count, 1 << 14):
        yield min(1 << 14, count - start)


def _box_muller(words: np.ndarray) -> np.ndarray:
    uniforms = ((words & np.uint32(0xFFFFFF)).astype(_F) * _F(2.0**-24)).reshape(-1, 2, 8)
    radius = np.sqrt(_F(-2) * glibc.logf((_F(1) - uniforms[:, 0]).reshape(-1)))
    cos, sin = glibc.cosf_sinf((_F(2 * np.pi) * uniforms[:, 1]).reshape(-1))
    return np.stack([(radius * cos).reshape(-1, 8), (radius * sin).reshape(-1, 8)], axis=1).reshape(-1)


def _nested(noise: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Lay out blocks of 8 x 8 in rings from the middle; sizes that are no multiple of 8 stay in order."""
    height, width, channels = shape
    rows, columns = height // _BLOCK, width // _BLOCK
    if height % _BLOCK or width % _BLOCK or min(rows, columns) < 2:
        return noise.reshape(shape)
    blocks = iter(noise.reshape(-1, _BLOCK, _BLOCK, channels))
    out = np.zeros(shape, noise.dtype)
    for row, column in _rings(rows, columns):
        out[_BLOCK * row : _BLOCK * (row + 1), _BLOCK * column : _BLOCK * (column + 1)] = next(blocks)
    return out


def _rings(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """Places of the blocks: squares around the middle, each from its upper left corner clockwise."""
    for ring in range((max(rows, columns) + 1) // 2):
        side = 2 * ring + 1  # blocks from one corner to the next
        top, left = (rows + 1) // 2 - ring - 1, (columns + 1) // 2 - ring - 1
        edge = [(top, left + i) for i in range(side)]
        edge += [(top + i, left + side) for i in range(side)]
        edge += [(top + side, left + side - i) for i in range(side)]
        edge += [(top + side - i, left) for i in range(side)]
        yield from ((row, column) for row, column in edge if 0 <= row < rows and 0 <= column < columns)
