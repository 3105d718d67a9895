"""Which latents does a program start from? The same stream is asked in different ways by different programs.

========================================  =============================================================================
:func:`diffusers`                         one generator for the whole batch, or one for each of its items; drawn in the
                                          pipeline's dtype, on the generator's device
:func:`python_coreml_stable_diffusion`    ``RandomState``, rounded to float16
:func:`swift`                             one stream a call: image i gets the i-th tensor
:func:`mochi`                             one call an image: image i is the first tensor of seed + i
:func:`comfyui`                           one CPU generator for the batch, or the items of a batch index from it
:func:`invokeai`                          one CPU generator an image, in float16, at most four channels
:func:`coreai`                            coreai-models: value by value, with torch's source in one array since its fix
:func:`mflux`                             ``mx.random.normal`` with the seed's own key, in packed latents
========================================  =============================================================================

Beside these: AUTOMATIC1111's web UI in :mod:`parity.streams.webui`, Draw Things in :mod:`parity.streams.draw_things`,
the noise of DPM++ SDE samplers in :mod:`parity.streams.brownian`.

All return unscaled noise: a scheduler's ``init_noise_sigma`` is multiplied in by the pipeline. Sources:
``diffusers.utils.torch_utils.randn_tensor``; pipeline.py of python_coreml_stable_diffusion;
StableDiffusionPipeline.swift; ImageGenerator.swift of MochiDiffusion; comfy/sample.py of ComfyUI; invocations/noise.py
of InvokeAI; generateNoise of coreai-models; latent_creator of mflux. Tests run diffusers; the other sources were read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from parity.errors import UsageError
from parity.streams.catalogue import open as open_stream
from parity.streams.stream import Shape, Stream
from parity.streams.swift import CoreAITorch, SwiftStream


def diffusers(
    seed: int | Sequence[int],
    shape: Sequence[int],
    *,
    generator_device: str = "cpu",
    dtype: str = "float32",
    draw: int = 0,
    **options: Any,
) -> np.ndarray:
    """Return what ``randn_tensor(shape, generator=…, dtype=…)`` gives, called once or for the n-th time.

    Parameters
    ----------
    seed : int or sequence of int
        One generator's seed, or the seeds of one generator for each item of the batch.
    shape : sequence of int
        Batch first.
    generator_device : {"cpu", "cuda", "mps"}
        Where the generator lives, not where the pipeline runs: with a CPU generator diffusers draws on the CPU and
        moves the values, so that every device gets the same ones.
    dtype : str
        The pipeline's. Half types are drawn, not rounded afterwards: see :mod:`parity.streams.torch_half`.
    draw : int
        0: the latents; n: the noise of the n-th step of a scheduler that adds some (ancestral ones, DDPM, LCM, and
        others), which continues the same generators.
    **options
        Of ``torch-cpu``, ``torch-cuda`` or ``torch-mps``.

    Raises
    ------
    UsageError
        As many seeds as no batch has, an unknown device, or a negative draw.
    """
    if generator_device not in ("cpu", "cuda", "mps"):
        raise UsageError(f"generator_device {generator_device!r}: expected cpu, cuda or mps")
    if draw < 0:
        raise UsageError(f"draw {draw}: expected 0 for the latents, or a step's number")
    name = f"torch-{generator_device}"
    seeds: list[Any] = [seed] if np.ndim(seed) == 0 else list(seed)  # type: ignore[arg-type]
    if len(seeds) > 1:
        if len(seeds) != shape[0]:
            raise UsageError(f"{len(seeds)} seeds for a batch of {shape[0]}: give one seed, or one for each item")
        return np.concatenate([_nth(open_stream(name, s, **options), (1, *shape[1:]), dtype, draw) for s in seeds])
    if not seeds:
        raise UsageError("seed: the sequence must not be empty")
    return _nth(open_stream(name, seeds[0], **options), shape, dtype, draw)


def _nth(stream: Stream, shape: Shape, dtype: str, draw: int) -> np.ndarray:
    for _ in range(draw):
        stream.normal(shape, dtype=dtype)
    return stream.normal(shape, dtype=dtype)


def comfyui(
    seed: int,
    shape: Sequence[int],
    *,
    batch_index: Sequence[int] | None = None,
    dtype: str = "float32",
    **options: Any,
) -> np.ndarray:
    """Return the noise that ComfyUI's ``prepare_noise`` gives.

    Parameters
    ----------
    seed : int
        Of the batch.
    shape : sequence of int
        Batch first.
    batch_index : sequence of int, optional
        Which items of a batch the latents are ("Latent From Batch"), one for each: then items are drawn one by one.
    dtype : str
        What is drawn: float32 today, rounded to the latents' dtype afterwards; the latents' dtype in older releases.
    **options
        Of ``torch-cpu``.

    Raises
    ------
    UsageError
        As many indices as no batch has, or a negative one.
    """
    stream = open_stream("torch-cpu", seed, **options)
    if batch_index is None:
        return stream.normal(shape, dtype=dtype)
    if len(batch_index) != shape[0] or min(batch_index) < 0:
        raise UsageError(f"batch index {list(batch_index)}: expected {shape[0]} indices, none negative")
    items = [stream.normal((1, *shape[1:]), dtype=dtype) for _ in range(max(batch_index) + 1)]
    return np.concatenate([items[index] for index in batch_index])


def invokeai(
    seed: int, shape: Sequence[int], *, dtype: str = "float16", use_cpu: bool = True, **options: Any
) -> np.ndarray:
    """Return the noise that InvokeAI's noise node gives: one image, at most four channels, the seed modulo 2**32.

    Parameters
    ----------
    seed : int
        Taken modulo 2**32.
    shape : sequence of int
        1, channels, height, width.
    dtype : str
        The device's: float16 on GPUs, float32 on CPUs. float16 on the CPU depends on torch's release.
    use_cpu : bool
        The node's "Use CPU", on by default: the CPU's generator; else CUDA's.
    **options
        Of ``torch-cpu`` or ``torch-cuda``.
    """
    if len(shape) != 4 or shape[0] != 1:
        raise UsageError(f"shape {tuple(shape)}: InvokeAI's node draws for one image, 1,C,H,W")
    size = (1, min(shape[1], 4), *shape[2:])
    return open_stream("torch-cpu" if use_cpu else "torch-cuda", seed % 2**32, **options).normal(size, dtype=dtype)


def coreai(name: str, seed: int, shape: Shape, *, fixed: bool = True) -> np.ndarray:
    """Return the Float32 noise of ``generateNoise`` of coreai-models.

    Parameters
    ----------
    name : {"swift-numpy", "swift-torch", "swift-nvidia"}
        The source; numPy is the program's default.
    seed : int
        Of the stream.
    shape : int or sequence of int
        Of the noise.
    fixed : bool
        True: since its fix of September 2026, torch's source fills an array, with a ragged end as torch draws it (by
        the fix's description; its code was not at hand).
        False: before, all three sources were asked value by value.
    """
    if name == "swift-torch" and fixed:
        return CoreAITorch(seed).normal(shape)
    stream = open_stream(name, seed)
    if not isinstance(stream, SwiftStream):
        raise UsageError(f"stream {name!r}: coreai-models has swift-numpy, swift-torch and swift-nvidia")
    return stream.normal_each(shape)


def mflux(seed: int, height: int, width: int) -> np.ndarray:
    """Return the packed latents that mflux starts from: (1, height / 16 * width / 16, 64), for pixels of a picture."""
    return open_stream("mlx", seed, split=False).normal((1, (height // 16) * (width // 16), 64))


def python_coreml_stable_diffusion(seed: int, shape: Shape) -> np.ndarray:
    """Return the float16 noise of python_coreml_stable_diffusion: ``numpy.random.randn`` rounded."""
    return open_stream("numpy-legacy", seed).normal(shape).astype(np.float16)


def swift(name: str, seed: int, shape: Shape, *, images: int = 1) -> list[np.ndarray]:
    """Return the Float32 noise of each image of one call of the Swift package.

    Parameters
    ----------
    name : {"swift-numpy", "swift-torch", "swift-nvidia"}
        The source.
    seed : int
        Of the call.
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
