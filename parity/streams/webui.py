"""Which noise does AUTOMATIC1111's web UI draw? One generator for each image, and four ways to bend its first draw.

* **Source.** ``GPU`` (the default) is torch's CUDA generator, ``CPU`` torch's CPU generator, also where the device is
  an Apple GPU. ``NV`` is a stream of its own, ``webui-nv``.
* **Variation.** A second seed's noise is mixed in by spherical interpolation along the height of each channel.
* **Seed resize.** Noise of another size is drawn and its middle laid over the middle of noise of the size wanted.
* **Later draws** continue each image's generator. With a delta (``eta_noise_seed_delta``, 31337 in NovelAI's setting)
  generators start anew after the first draw, seeded with seed + delta.

The interpolation is done in float32, where torch sums in another order than NumPy: equal to about 1e-6. All else is as
exact as its stream. Source: modules/rng.py of stable-diffusion-webui.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.errors import UsageError
from parity.streams.catalogue import open as open_stream

_F = np.float32
SOURCES = ("torch-cuda", "torch-cpu", "webui-nv")
"""Streams of the settings GPU, CPU and NV."""


@dataclass(frozen=True)
class Variation:
    """What bends an image's first draw.

    Attributes
    ----------
    subseeds : tuple of int
        One for each image; images behind the last one have subseed 0.
    strength : float
        0 for the seed's noise, 1 for the subseed's.
    resize_from : tuple of int or None
        Height and width of the latents whose noise is laid into the middle.
    """

    subseeds: tuple[int, ...] = ()
    strength: float = 0.0
    resize_from: tuple[int, int] | None = None


def webui(
    seeds: Sequence[int],
    shape: Sequence[int],
    *,
    rng: str = "torch-cuda",
    variation: Variation | None = None,
    seed_delta: int = 0,
    draw: int = 0,
    **options: Any,
) -> np.ndarray:
    """Return one draw of a batch, as ``ImageRNG.next`` gives it.

    Parameters
    ----------
    seeds : sequence of int
        One for each image; the program itself gives seed, seed + 1, …
    shape : sequence of int
        Of one image's latents: channels, height, width.
    rng : {"torch-cuda", "torch-cpu", "webui-nv"}
        The source: GPU, CPU or NV.
    variation : Variation, optional
        What the seeds' noise is mixed with; nothing by default.
    seed_delta : int
        ``eta_noise_seed_delta``.
    draw : int
        0: the latents; n: the noise of the n-th step that asks for some.
    **options
        Of the source's stream.

    Returns
    -------
    array of float32
        Images, channels, height, width.

    Raises
    ------
    UsageError
        Another stream, a shape that is not three sizes, no seeds.
    """
    if rng not in SOURCES:
        raise UsageError(f"stream {rng!r}: the web UI draws {', '.join(SOURCES)}")
    if len(shape) != 3 or not seeds or draw < 0:
        raise UsageError(
            f"shape {tuple(shape)}, {len(seeds)} seeds, draw {draw}: expected C,H,W, a seed, and 0 or more"
        )
    drawn = _Drawn(rng, options)
    images = []
    for index, seed in enumerate(seeds):
        if draw == 0:
            images.append(_first(drawn, seed, index, tuple(shape), variation or Variation()))
            continue
        skipped = draw - 1 if seed_delta else draw
        images.append(next(value for i, value in enumerate(drawn.of(seed + seed_delta, tuple(shape))) if i == skipped))
    return np.stack(images)


@dataclass(frozen=True)
class _Drawn:
    name: str
    options: dict[str, Any]

    def of(self, seed: int, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        """One draw after another of a generator."""
        stream = open_stream(self.name, seed, **self.options)
        while True:
            yield stream.normal(shape)

    def first(self, seed: int, shape: tuple[int, ...]) -> np.ndarray:
        return next(self.of(seed, shape))


def _first(drawn: _Drawn, seed: int, index: int, shape: tuple[int, ...], variation: Variation) -> np.ndarray:
    size = (shape[0], *variation.resize_from) if variation.resize_from else shape
    noise = drawn.first(seed, size)
    if variation.strength:
        subseed = variation.subseeds[index] if index < len(variation.subseeds) else 0
        noise = slerp(variation.strength, noise, drawn.first(subseed, size))
    if size == shape:
        return noise
    whole = drawn.first(seed, shape)
    top, left = ((shape[axis] - size[axis]) // 2 for axis in (1, 2))
    # where the smaller of both is cut or laid; what is cut off is twice the same margin
    height, width = (size[axis] + 2 * min(margin, 0) for axis, margin in ((1, top), (2, left)))
    y, x = max(-top, 0), max(-left, 0)
    top, left = max(top, 0), max(left, 0)
    whole[:, top : top + height, left : left + width] = noise[:, y : y + height, x : x + width]
    return whole


def slerp(share: float, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Interpolate on the sphere, vectors along axis 1; nearly parallel ones are mixed, with the shares exchanged."""
    unit_low, unit_high = (v / np.sqrt(np.sum(v * v, axis=1, keepdims=True)) for v in (low, high))
    cosine = np.sum(unit_low * unit_high, axis=1, keepdims=True)
    if cosine.mean() > 0.9995:
        return low * _F(share) + high * _F(1 - share)
    angle = np.arccos(cosine)
    sine = np.sin(angle)
    return np.sin(_F(1.0 - share) * angle) / sine * low + np.sin(_F(share) * angle) / sine * high
