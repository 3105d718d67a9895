"""Which latents does a program start from? The same stream is asked in different ways by different programs.

========================================  =============================================================================
:func:`diffusers`                         one generator for the whole batch, or one for each of its items; drawn in the
                                          pipeline's dtype, on the generator's device
:func:`python_coreml_stable_diffusion`    ``RandomState``, rounded to float16
:func:`swift`                             one stream a call: image i gets the i-th tensor
:func:`mochi`                             one call an image: image i is the first tensor of seed + i
========================================  =============================================================================

All return unscaled noise: a scheduler's ``init_noise_sigma`` is multiplied in by the pipeline. Sources:
``diffusers.utils.torch_utils.randn_tensor``; pipeline.py of python_coreml_stable_diffusion;
StableDiffusionPipeline.swift; ImageGenerator.swift of MochiDiffusion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from parity.errors import UsageError
from parity.streams.catalogue import open as open_stream
from parity.streams.stream import Shape


def diffusers(
    seed: int | Sequence[int],
    shape: Sequence[int],
    *,
    generator_device: str = "cpu",
    dtype: str = "float32",
    **options: Any,
) -> np.ndarray:
    """Return what ``randn_tensor(shape, generator=…, dtype=…)`` gives.

    Parameters
    ----------
    seed : int or sequence of int
        One generator's seed, or the seeds of one generator for each item of the batch.
    shape : sequence of int
        Batch first.
    generator_device : {"cpu", "cuda"}
        Where the generator lives, not where the pipeline runs: with a CPU generator diffusers draws on the CPU and
        moves the values, so that every device gets the same ones.
    dtype : str
        The pipeline's. Half types are drawn, not rounded afterwards: see :mod:`parity.streams.torch_half`.
    **options
        Of ``torch-cpu`` or ``torch-cuda``.

    Raises
    ------
    UsageError
        As many seeds as no batch has, or an unknown device.
    """
    if generator_device not in ("cpu", "cuda"):
        raise UsageError(f"generator_device {generator_device!r}: expected cpu or cuda")
    name = f"torch-{generator_device}"
    seeds: list[Any] = [seed] if np.ndim(seed) == 0 else list(seed)  # type: ignore[arg-type]
    if len(seeds) > 1:
        if len(seeds) != shape[0]:
            raise UsageError(f"{len(seeds)} seeds for a batch of {shape[0]}: give one seed, or one for each item")
        items = [open_stream(name, item, **options).normal((1, *shape[1:]), dtype=dtype) for item in seeds]
        return np.concatenate(items)
    if not seeds:
        raise UsageError("seed: the sequence must not be empty")
    return open_stream(name, seeds[0], **options).normal(shape, dtype=dtype)


def python_coreml_stable_diffusion(seed: int, shape: Shape) -> np.ndarray:
    """Return the float16 noise of python_coreml_stable_diffusion: ``numpy.random.randn`` rounded."""
    return open_stream("numpy-legacy", seed).normal(shape).astype(np.float16)


def swift(name: str, seed: int, shape: Shape, *, images: int = 1) -> list[np.ndarray]:
    """Return the Float32 noise of each image of one call of the Swift package.

    Parameters
    ----------
    name : {"swift-numpy", "swift-torch", "swift-nvidia"}
    seed : int
    shape : int or sequence of int
        Of one image's latents.
    images : int
        ``imageCount`` of the call.
    """
    if not name.startswith("swift-"):
        raise UsageError(f"stream {name!r}: the Swift package has swift-numpy, swift-torch and swift-nvidia")
    stream = open_stream(name, seed)
    return [stream.normal(shape) for _ in range(images)]


def mochi(name: str, seed: int, shape: Shape, *, images: int = 1) -> list[np.ndarray]:
    """Return the Float32 noise of each image that MochiDiffusion makes: seed, seed + 1, … with one image a call."""
    return [swift(name, seed + image, shape)[0] for image in range(images)]
