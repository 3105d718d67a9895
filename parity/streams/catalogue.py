"""Which streams are there, and how is one opened by name?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from parity.errors import UsageError
from parity.streams.numpy_legacy import NumpyLegacy
from parity.streams.stream import Stream
from parity.streams.torch_cpu import TorchCPU

_STREAMS: dict[str, Callable[..., Stream]] = {kind.name: kind for kind in (NumpyLegacy, TorchCPU)}


def names() -> list[str]:
    """Return the names that :func:`open` knows."""
    return list(_STREAMS)


def open(name: str, seed: int | Sequence[int], **options: Any) -> Stream:
    """Open a stream, seeded.

    Parameters
    ----------
    name : str
        One of :func:`names`.
    seed : int or sequence of int
        What the producer would be seeded with; refused where the producer refuses it, with its exception type.
    **options
        Named by the stream, for example ``kernel="avx2"`` for ``torch-cpu``.

    Raises
    ------
    UsageError
        The name is unknown, or an option or the seed is not one that this stream takes.
    """
    try:
        kind = _STREAMS[name]
    except KeyError:
        raise UsageError(f"unknown stream {name!r}; there are {', '.join(_STREAMS)}") from None
    return kind(seed, **options)
