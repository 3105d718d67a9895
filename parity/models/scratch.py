"""How does a network whose weights exceed the memory become a package?

Converting needs every weight three times: in float32 to trace the network, in float32 as constant of the program, in
float16 as constant of the final one. The first two share their memory, but SDXL's UNet (2.6 billion parameters) still
fills 15 GiB. For networks above :data:`LARGE` these arrays lie in a scratch file beside the output, mapped into
memory: the system can take their pages back at any time, and between stages they are given back.

Steps: the module is made without memory and its parameters are read, one at a time, from safetensors into the file
(:func:`parity.models.source.load_module`); coremltools takes them as they are; what it casts to float16 goes into the
same file (:func:`parity.convert.workarounds.converting`); the weights are written from there, one at a time. While
the network is traced freed buffers go back to the system at once (:func:`parity.mil.allocator.returning_memory`).

The file has no name, so nothing is left of it whatever ends the process. Proved by tests: packages of small networks
are identical with and without. Not proved: which share of the mapped pages a system keeps; it is free to keep all.
"""

from __future__ import annotations

import mmap
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np

LARGE: Final = 1_000_000_000  # parameters; below, memory is faster
BYTES: Final = 6  # of a parameter: float32 and float16
_SMALL: Final = 4096  # bytes; smaller arrays are not worth a place
_ALIGNMENT: Final = 64


class Scratch:
    """Arrays in an unnamed, memory-mapped file.

    Parameters
    ----------
    folder : pathlib.Path
        Where the file lies: on the file system of the output.
    capacity : int
        Bytes; the file is sparse, so only what is put takes room.
    """

    def __init__(self, folder: Path, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (lives as long as the arrays)
        self._file.truncate(capacity)
        self._map = mmap.mmap(self._file.fileno(), capacity)

    def put(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Copy an array into the file and return it from there; without room, or if it is small, as it is.

        Raises
        ------
        OSError
            The disk is full.
        """
        start = -(-self.used // _ALIGNMENT) * _ALIGNMENT
        if array.nbytes < _SMALL or start + array.nbytes > self.capacity:
            return array
        self._file.seek(start)  # written, not copied into the map: a full disk is an error then, not a signal
        self._file.write(np.ascontiguousarray(array).data)
        self._file.flush()
        self.used = start + array.nbytes
        return np.frombuffer(self._map, array.dtype, array.size, start).reshape(array.shape)

    def release(self) -> None:
        """Give the pages back to the system; they are read from the file again when needed."""
        self._map.madvise(mmap.MADV_DONTNEED)
