"""How is one weight read from a weight file ("blob version 2") without reading the file?

Layout, little endian, records aligned to 64 bytes: a 64-byte header (u32 count, u32 version = 2, reserved); then for
each weight a 64-byte record (u32 sentinel 0xDEADBEEF, u32 element type, u64 size in bytes, u64 absolute offset of the
data, u64 unused bits at the end, reserved) and its data. A program refers to the *record*.

The count of unused bits exists since coremltools 8.0b1 and tells something for packed elements (below a byte) alone.
Up to 7.2 these bytes are uninitialised memory; coremltools' own reader ignores them, and so does this one.

The file is mapped copy-on-write: nothing is copied, unread weights cost nothing, and the mapping stays valid when the
file is deleted. Every field is checked against the file's size before it is used, so damaged files give an error,
never a crash. Not checked: whether the values are meaningful.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from parity.errors import FormatError, ParityError
from parity.files import refuse_pointer
from parity.mil import dtypes

SENTINEL = 0xDEADBEEF
VERSION = 2
ALIGNMENT = 64
_HEADER = struct.Struct("<II")
_RECORD = struct.Struct("<IIQQQ")


@dataclass(frozen=True)
class Record:
    """One weight's record: its own offset, what it holds and where the data lie (bytes, absolute)."""

    offset: int
    dtype: dtypes.DType
    size: int
    data_offset: int
    padding_bits: int

    @property
    def count(self) -> int:
        """Number of elements."""
        return (self.size * 8 - self.padding_bits) // self.dtype.bits


class BlobFile:
    """A mapped weight file.

    Parameters
    ----------
    path : path
        The file.

    Raises
    ------
    FormatError
        When the file is too short or is not of version 2.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        with self.path.open("rb") as file:
            size = file.seek(0, 2)
            refuse_pointer(self.path)
            if size < ALIGNMENT:
                raise FormatError(f"{self.path}: {size} bytes; a weight file has a header of {ALIGNMENT} bytes")
            self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self.size = size
        self.count, version = _HEADER.unpack_from(self._mapped)
        if version != VERSION:
            raise FormatError(f"{self.path}: weight file version {version} at byte 4; only version {VERSION} is known")

    def record(self, offset: int) -> Record:
        """Read and check the record at ``offset`` (bytes from the start of the file)."""
        where = f"{self.path}: weight record at offset {offset}"
        if offset % ALIGNMENT == 0 and offset > self.size - ALIGNMENT:
            raise FormatError(f"{where}: the file ends before, at byte {self.size}; it is cut off, or another model's")
        if offset % ALIGNMENT or offset < ALIGNMENT:
            raise FormatError(f"{where}: not a multiple of {ALIGNMENT} behind the file's header")
        sentinel, code, size, data_offset, padding_bits = _RECORD.unpack_from(self._mapped, offset)
        if sentinel != SENTINEL:
            raise FormatError(f"{where}: sentinel 0x{sentinel:08X}, expected 0x{SENTINEL:08X}: no record starts there")
        dtype = dtypes.BY_BLOB.get(code)
        if dtype is None:
            raise FormatError(f"{where}: unknown element type {code}")
        if data_offset + size > self.size or data_offset < ALIGNMENT:
            raise FormatError(
                f"{where}: data at bytes {data_offset} to {data_offset + size}, but the file has {self.size} bytes"
            )
        if not dtype.packed:
            padding_bits = 0
        if padding_bits > min(7, size * 8):
            raise FormatError(f"{where}: {padding_bits} unused bits are not possible for {size} bytes of {dtype}")
        if (size * 8 - padding_bits) % dtype.bits:
            raise FormatError(f"{where}: {size} bytes do not hold a whole number of {dtype} elements")
        return Record(offset, dtype, size, data_offset, padding_bits)

    def records(self) -> Iterator[Record]:
        """Walk all records in file order, as many as the header counts."""
        offset = ALIGNMENT
        for _ in range(self.count):
            record = self.record(offset)
            yield record
            end = record.data_offset + record.size
            offset = -(-end // ALIGNMENT) * ALIGNMENT
            if offset <= record.offset:
                raise FormatError(f"{self.path}: weight record at offset {record.offset}: its data lie before it")

    def read(self, offset: int, *, writable: bool = False) -> np.ndarray:
        """Return the weight whose record is at ``offset``.

        Parameters
        ----------
        offset : int
            Offset of the record in bytes, as programs give it.
        writable : bool
            False gives a read-only array. True gives one that torch accepts; it must not be written to all the same
            (the file would not change, but other readers of this object would see it).

        Returns
        -------
        numpy.ndarray
            Shape (count,): a view of the mapping, or a new array for sub-byte, bfloat16 and float8 elements.

        Raises
        ------
        FormatError
            When the record is damaged or lies outside the file.
        """
        record = self.record(offset)
        raw = np.frombuffer(self._mapped, np.uint8, record.size, record.data_offset)
        values = dtypes.unpack(raw, record.dtype, record.count)
        if not writable:
            values.flags.writeable = False
        return values

    def release(self, offset: int) -> None:
        """Give the memory of a weight that was read back to the system; it is read from the file again when needed."""
        if not hasattr(mmap, "MADV_DONTNEED"):
            return
        record = self.record(offset)
        start = -(-record.data_offset // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (record.data_offset + record.size - start) // mmap.PAGESIZE * mmap.PAGESIZE
        if length > 0:
            self._mapped.madvise(mmap.MADV_DONTNEED, start, length)


class Weights:
    """The weight files of a model by the names under which its program refers to them.

    Parameters
    ----------
    folder : pathlib.Path
        The folder that ``@model_path`` stands for. No file outside it is ever opened.
    """

    _PREFIX = "@model_path/"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, BlobFile] = {}

    def path(self, name: str) -> Path:
        """Return where the weight file ``name`` lies; FormatError when that is outside the model or does not exist."""
        relative = name.removeprefix(self._PREFIX)
        root = self.folder.resolve()
        try:
            path = (root / relative).resolve()
            exists = path.is_file()
        except (OSError, ValueError, RuntimeError) as error:  # too long, NUL bytes, symbolic links in a circle
            raise FormatError(f"{self.folder}: weight file name {name[:200]!r} is not usable: {error}") from None
        if not relative or path == root or root not in path.parents:
            raise FormatError(f"{self.folder}: weight file {name[:200]!r} lies outside the model's folder")
        if not exists:
            raise FormatError(f"{self.folder}: weight file {name[:200]!r} is missing from the model")
        return self.folder / relative  # for messages: as the model was named

    def file(self, name: str = "@model_path/weights/weight.bin") -> BlobFile:
        """Return the mapped weight file ``name``."""
        if name not in self._files:
            self._files[name] = BlobFile(self.path(name))
        return self._files[name]

    def read(self, offset: int, name: str = "@model_path/weights/weight.bin", *, writable: bool = False) -> np.ndarray:
        """Return a weight, see :meth:`BlobFile.read`."""
        return self.file(name).read(offset, writable=writable)

    def names(self) -> tuple[str, ...]:
        """Return the names of all weight files that the model has, whether its program uses them or not."""
        folder = self.folder / "weights"
        if not folder.is_dir():
            return ()
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        return tuple(self._PREFIX + path.relative_to(self.folder).as_posix() for path in found)


def weight_problem(last: Mapping[str, tuple[int, int]], weights: Weights, *, records: bool = True) -> str:
    """Say what is wrong with the weight files that a program refers to, without reading the weights.

    Parameters
    ----------
    last : mapping of str to (int, int)
        Name of a file to the offset of its last record and the bytes of the weight behind it.
    weights : Weights
        The model's weight files.
    records : bool
        False where only the file's beginning and size are real: then the last weight must fit in.

    Returns
    -------
    str
        The message, which names the file; empty if nothing is wrong.
    """
    for name, (offset, size) in sorted(last.items()):
        try:
            file = weights.file(name)
            if records:
                file.record(offset)
            elif offset + ALIGNMENT + size > file.size:
                return f"{file.path}: {file.size} bytes, but its last weight ends at byte {offset + ALIGNMENT + size}"
        except ParityError as error:
            return str(error)
    return ""
