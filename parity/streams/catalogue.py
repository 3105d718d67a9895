"""Which streams are there, and how is one opened by name?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from parity.errors import UsageError
from parity.streams.jax import JAX
from parity.streams.mlx import MLX
from parity.streams.numpy_generator import NumpyPCG64
from parity.streams.numpy_legacy import NumpyLegacy
from parity.streams.stream import Stream
from parity.streams.swift import SwiftNumPy, SwiftNvidia, SwiftTorch
from parity.streams.torch_cpu import TorchCPU
from parity.streams.torch_cuda import TorchCUDA
from parity.streams.torch_mps import TorchMPS
from parity.streams.webui_nv import NVStream

_STREAMS: dict[str, type[Stream]] = {
    kind.name: kind
    for kind in (
        *(NumpyLegacy, NumpyPCG64, TorchCPU, TorchCUDA, TorchMPS, MLX, JAX),
        *(SwiftNumPy, SwiftTorch, SwiftNvidia, NVStream),
    )
}


def names() -> list[str]:
    """Return the names that :func:`open` knows."""
    return list(_STREAMS)


def dtypes(name: str) -> tuple[str, ...]:
    """Return the dtypes whose normal values a stream draws, the default first."""
    return _kind(name).dtypes


def options(name: str) -> list[str]:
    """Return the options that :func:`open` takes for a name."""
    return list(_kind(name).__init__.__kwdefaults__ or ())


def open(name: str, seed: int | Sequence[int], **chosen: Any) -> Stream:
    """Open a stream, seeded.

    Parameters
    ----------
    name : str
        One of :func:`names`.
    seed : int or sequence of int
        What the producer would be seeded with; refused where the producer refuses it, with its exception type.
    **chosen
        Options of the stream, for example ``kernel="libm"`` for ``torch-cpu``; :func:`options` lists them.

    Raises
    ------
    UsageError
        The name is unknown, or an option or the seed is not one that this stream takes.

    Examples
    --------
    >>> from parity import streams
    >>> streams.open("numpy-legacy", seed=93).normal(2).round(6).tolist()
    [1.630198, 1.100736]
    """
    kind = _kind(name)
    known = options(name)
    for option in chosen:
        if option not in known:
            raise UsageError(f"{name} has no option {option!r}; it has {', '.join(known) or 'none'}")
    return kind(seed, **chosen)  # type: ignore[call-arg]


def _kind(name: str) -> type[Stream]:
    try:
        return _STREAMS[name]
    except KeyError:
        raise UsageError(f"unknown stream {name!r}; there are {', '.join(_STREAMS)}") from None
