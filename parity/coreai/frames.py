"""How do arrays travel between this process and the one that runs Core AI?

A frame is eight bytes of length (little endian), a JSON object of that length, then the bytes of the arrays that its
``arrays`` list describes (name, dtype, shape), one after the other, in C order.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

_LENGTH = 8


def write(stream: IO[bytes], message: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> None:
    """Write a message with named arrays."""
    dense = {name: np.ascontiguousarray(array).reshape(np.shape(array)) for name, array in (arrays or {}).items()}
    described = [[name, array.dtype.str, list(array.shape)] for name, array in dense.items()]
    head = json.dumps({**message, "arrays": described}).encode()
    stream.write(len(head).to_bytes(_LENGTH, "little") + head)
    for array in dense.values():
        stream.write(array.tobytes())
    stream.flush()


def read(stream: IO[bytes]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read a message and its arrays.

    Raises
    ------
    EOFError
        The stream ended: the process on the other side is gone.
    """
    message = json.loads(_exactly(stream, int.from_bytes(_exactly(stream, _LENGTH), "little")))
    arrays = {}
    for name, dtype, shape in message.pop("arrays"):
        kind = np.dtype(dtype)
        data = bytearray(_exactly(stream, kind.itemsize * math.prod(shape)))
        arrays[name] = np.frombuffer(data, kind).reshape(shape)
    return message, arrays


def _exactly(stream: IO[bytes], count: int) -> bytes:
    parts, left = [], count
    while left:
        part = stream.read(min(left, 1 << 24))
        if not part:
            raise EOFError
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
