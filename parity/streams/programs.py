"""What does ``parity latents --like NAME`` draw? Programs by name, each with what it takes of one request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parity.errors import UsageError
from parity.streams import semantics
from parity.streams.draw_things import draw_things
from parity.streams.webui import SOURCES, Variation, webui


@dataclass(frozen=True)
class Asked:
    """One request.

    Attributes
    ----------
    seeds : tuple of int
    shape : tuple of int
        As the program's own function takes it, see :data:`PROGRAMS`.
    rng : str or None
        Stream, where the program has several; its default for None.
    dtype : str or None
        What is drawn; the program's default for None.
    images, draw : int
        Images of a call; which draw, 0 for the latents.
    batch_index : tuple of int or None
    variation : Variation
    seed_delta : int
    mode : str
        Draw Things' seed mode.
    options : dict
        Of the stream.
    """

    seeds: tuple[int, ...]
    shape: tuple[int, ...]
    rng: str | None = None
    dtype: str | None = None
    images: int = 1
    draw: int = 0
    batch_index: tuple[int, ...] | None = None
    variation: Variation = field(default_factory=Variation)
    seed_delta: int = 0
    mode: str = "scale-alike"
    options: dict[str, Any] = field(default_factory=dict)


Drawn = tuple[np.ndarray, str]


def draw_like(program: str, asked: Asked) -> Drawn:
    """Return a program's noise and its dtype.

    Raises
    ------
    UsageError
        An unknown program, or what it does not take.
    """
    if program not in PROGRAMS:
        raise UsageError(f"program {program!r}: known are {', '.join(PROGRAMS)}")
    for field_, plain in _PLAIN.items():
        if getattr(asked, field_) != plain and field_ not in _TAKES.get(program, ()):
            takers = [name for name, fields in _TAKES.items() if field_ in fields]
            raise UsageError(f"--like {program} has no {_OPTION.get(field_, field_)}; {', '.join(takers)} has")
    return PROGRAMS[program](asked)


_PLAIN = {
    **{"images": 1, "draw": 0, "batch_index": None, "variation": Variation(), "seed_delta": 0},
    **{"mode": "scale-alike", "options": {}},
}
_OPTION = {
    **{"images": "--images", "draw": "--draw", "batch_index": "--batch-index", "seed_delta": "--seed-delta"},
    **{"variation": "--subseed or --resize-from", "mode": "--seed-mode", "options": "options of a stream"},
}
_TAKES: dict[str, tuple[str, ...]] = {
    "diffusers": ("draw", "options"),
    "swift": ("images",),
    "mochi": ("images",),
    "comfyui": ("batch_index", "options"),
    "a1111": ("draw", "variation", "seed_delta", "options"),
    "invokeai": ("options",),
    "draw-things": ("mode",),
}


def _one(asked: Asked, program: str) -> int:
    if len(asked.seeds) != 1:
        raise UsageError(f"several --seed: --like {program} has one; diffusers and a1111 have one for each image")
    return asked.seeds[0]


def _stream(asked: Asked, program: str, allowed: tuple[str, ...]) -> str:
    """The stream, the first one allowed by default."""
    rng = asked.rng or allowed[0]
    if rng not in allowed:
        raise UsageError(f"--rng {rng}: {program} draws from {' or '.join(allowed)}")
    return rng


def _dtype(asked: Asked, program: str, allowed: tuple[str, ...]) -> str:
    dtype = asked.dtype or allowed[0]
    if dtype not in allowed:
        raise UsageError(f"--dtype {dtype}: --like {program} draws {' or '.join(allowed)}")
    return dtype


_TORCH = ("float32", "float16", "bfloat16", "float64")
_SWIFT = ("swift-numpy", "swift-torch", "swift-nvidia")


def _diffusers(asked: Asked) -> Drawn:
    device = _stream(asked, "diffusers", ("torch-cpu", "torch-cuda", "torch-mps")).removeprefix("torch-")
    dtype = _dtype(asked, "diffusers", _TORCH)
    drawn = semantics.diffusers(
        list(asked.seeds), asked.shape, generator_device=device, dtype=dtype, draw=asked.draw, **asked.options
    )
    return drawn, dtype


def _python(asked: Asked) -> Drawn:
    _stream(asked, "python_coreml_stable_diffusion", ("numpy-legacy",))
    dtype = _dtype(asked, "python", ("float16",))
    return semantics.python_coreml_stable_diffusion(_one(asked, "python"), asked.shape), dtype


def _swift(asked: Asked) -> Drawn:
    rng, dtype = _stream(asked, "the Swift package", _SWIFT), _dtype(asked, "swift", ("float32",))
    return np.stack(semantics.swift(rng, _one(asked, "swift"), asked.shape, images=asked.images)), dtype


def _mochi(asked: Asked) -> Drawn:
    rng, dtype = _stream(asked, "MochiDiffusion", _SWIFT), _dtype(asked, "mochi", ("float32",))
    return np.stack(semantics.mochi(rng, _one(asked, "mochi"), asked.shape, images=asked.images)), dtype


def _comfyui(asked: Asked) -> Drawn:
    _stream(asked, "ComfyUI", ("torch-cpu",))
    dtype = _dtype(asked, "comfyui", _TORCH)
    seed = _one(asked, "comfyui")
    drawn = semantics.comfyui(seed, asked.shape, batch_index=asked.batch_index, dtype=dtype, **asked.options)
    return drawn, dtype


def _a1111(asked: Asked) -> Drawn:
    rng, dtype = _stream(asked, "the web UI", SOURCES), _dtype(asked, "a1111", ("float32",))
    drawn = webui(
        asked.seeds,
        asked.shape,
        rng=rng,
        variation=asked.variation,
        seed_delta=asked.seed_delta,
        draw=asked.draw,
        **asked.options,
    )
    return drawn, dtype


def _invokeai(asked: Asked) -> Drawn:
    cpu = _stream(asked, "InvokeAI", ("torch-cpu", "torch-cuda")) == "torch-cpu"
    dtype = _dtype(asked, "invokeai", ("float16", "float32", "bfloat16"))
    seed = _one(asked, "invokeai")
    return semantics.invokeai(seed, asked.shape, dtype=dtype, use_cpu=cpu, **asked.options), dtype


def _draw_things(asked: Asked) -> Drawn:
    if asked.rng:
        raise UsageError(f"--rng {asked.rng}: Draw Things' --seed-mode decides; leave out --rng")
    dtype = _dtype(asked, "draw-things", ("float16",))
    return draw_things(_one(asked, "draw-things"), asked.shape, mode=asked.mode), dtype


def _coreai(asked: Asked, *, fixed: bool = True) -> Drawn:
    rng, dtype = _stream(asked, "coreai-models", _SWIFT), _dtype(asked, "coreai", ("float32",))
    return semantics.coreai(rng, _one(asked, "coreai"), asked.shape, fixed=fixed), dtype


def _coreai_old(asked: Asked) -> Drawn:
    return _coreai(asked, fixed=False)


PROGRAMS: dict[str, Callable[[Asked], Drawn]] = {
    "diffusers": _diffusers,
    "python": _python,
    "swift": _swift,
    "mochi": _mochi,
    "comfyui": _comfyui,
    "a1111": _a1111,
    "invokeai": _invokeai,
    "draw-things": _draw_things,
    "coreai": _coreai,
    "coreai-before-fix": _coreai_old,
}
"""Programs by the names of ``--like``. Shapes are those of latents, batch first; of one image for swift, mochi and
coreai; without a batch, C,H,W, for a1111, whose batch is its seeds."""
