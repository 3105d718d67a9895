"""Which element types do ML Programs have, and how do their three encodings relate?

One table: the name in textual MIL, the number in the protobuf enumeration ``MILSpec.DataType``, the number in the
weight file ("blob version 2"), the width in bits and the NumPy type that holds the unpacked values.

bfloat16 and the float8 types have no NumPy type; they are held as float32, which represents all their values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class DType:
    """One element type.

    Attributes
    ----------
    name : str
        Name in textual MIL, for example ``fp16``.
    code : int
        Number in ``MILSpec.DataType``.
    blob : int or None
        Number in the weight file, or None where a weight file cannot hold the type.
    bits : int
        Width of one packed element; 0 for strings.
    numpy : numpy.dtype
        Type that holds unpacked elements.
    """

    name: str
    code: int
    blob: int | None
    bits: int
    numpy: np.dtype

    @property
    def is_float(self) -> bool:
        """True for floating-point types."""
        return self.name.startswith(("fp", "bf"))

    @property
    def is_int(self) -> bool:
        """True for signed and unsigned integers of all widths."""
        return self.name.startswith(("int", "uint"))

    @property
    def packed(self) -> bool:
        """True where several elements share a byte."""
        return 0 < self.bits < 8 and self.name != "bool"

    def __str__(self) -> str:
        return self.name


def _row(name: str, code: int, blob: int | None, bits: int, numpy: type) -> DType:
    return DType(name, code, blob, bits, np.dtype(numpy))


ALL: tuple[DType, ...] = (
    _row("bool", 1, None, 8, np.bool_),
    _row("string", 2, None, 0, np.object_),
    _row("fp16", 10, 1, 16, np.float16),
    _row("fp32", 11, 2, 32, np.float32),
    _row("fp64", 12, None, 64, np.float64),
    _row("bf16", 13, 5, 16, np.float32),
    _row("int8", 21, 4, 8, np.int8),
    _row("int16", 22, 6, 16, np.int16),
    _row("int32", 23, 14, 32, np.int32),
    _row("int64", 24, None, 64, np.int64),
    _row("int4", 25, 8, 4, np.int8),
    _row("uint8", 31, 3, 8, np.uint8),
    _row("uint16", 32, 7, 16, np.uint16),
    _row("uint32", 33, 15, 32, np.uint32),
    _row("uint64", 34, None, 64, np.uint64),
    _row("uint4", 35, 11, 4, np.uint8),
    _row("uint2", 36, 10, 2, np.uint8),
    _row("uint1", 37, 9, 1, np.uint8),
    _row("uint6", 38, 13, 6, np.uint8),
    _row("uint3", 39, 12, 3, np.uint8),
    _row("fp8e4m3fn", 40, 16, 8, np.float32),
    _row("fp8e5m2", 41, 17, 8, np.float32),
)
BY_NAME: dict[str, DType] = {row.name: row for row in ALL}
BY_CODE: dict[int, DType] = {row.code: row for row in ALL}
BY_BLOB: dict[int, DType] = {row.blob: row for row in ALL if row.blob is not None}


def _float8(exponent_bits: int, mantissa_bits: int, bias: int, *, finite: bool) -> np.ndarray:
    """Values of all 256 codes of a float8 type (OCP 8-bit floating point specification, revision 1.0)."""
    codes = np.arange(256)
    sign = np.where(codes & 0x80, -1.0, 1.0)
    exponent = (codes >> mantissa_bits) & ((1 << exponent_bits) - 1)
    mantissa = (codes & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    values = np.where(exponent == 0, mantissa * 2.0 ** (1 - bias), (1 + mantissa) * 2.0 ** (exponent - bias))
    top = exponent == (1 << exponent_bits) - 1
    if finite:  # e4m3fn: only the all-ones pattern is NaN, there is no infinity
        values = np.where(top & (codes & 0x07 == 0x07), np.nan, values)
    else:
        values = np.where(top, np.where(mantissa == 0, np.inf, np.nan), values)
    return (sign * values).astype(np.float32)


_FLOAT8 = {
    "fp8e4m3fn": _float8(4, 3, 7, finite=True),
    "fp8e5m2": _float8(5, 2, 15, finite=False),
}


def unpack(raw: np.ndarray, dtype: DType, count: int) -> np.ndarray:
    """Turn bytes into ``count`` elements; a view where the type has a NumPy type, otherwise a new array.

    Parameters
    ----------
    raw : numpy.ndarray
        uint8, shape (n,), little endian, sub-byte values packed least significant bits first.
    dtype : DType
        What the bytes hold.
    count : int
        Number of elements; ``raw`` must hold at least as many.

    Returns
    -------
    numpy.ndarray
        Shape (count,), of type ``dtype.numpy``.
    """
    if dtype.packed:
        bits = np.unpackbits(raw, count=count * dtype.bits, bitorder="little").reshape(count, dtype.bits)
        values = np.zeros(count, np.uint8)
        for bit in range(dtype.bits):
            values |= bits[:, bit] << bit
        if dtype.name.startswith("int"):
            sign = 1 << (dtype.bits - 1)
            return ((values.astype(np.int16) ^ sign) - sign).astype(np.int8)
        return values
    if dtype.name in _FLOAT8:
        return _FLOAT8[dtype.name][raw[:count]]
    if dtype.name == "bf16":
        return (raw[: 2 * count].view("<u2").astype(np.uint32) << 16).view(np.float32)
    return raw[: count * dtype.bits // 8].view(dtype.numpy)


def pack(values: np.ndarray, dtype: DType) -> bytes:
    """Encode integers, bool, float16, float32 or float64 elements as bytes, the inverse of :func:`unpack`."""
    flat = np.ascontiguousarray(values).reshape(-1)
    if dtype.packed:
        codes = flat.astype(np.int16) & ((1 << dtype.bits) - 1)
        bits = (codes[:, None] >> np.arange(dtype.bits)) & 1
        return np.packbits(bits.astype(np.uint8).reshape(-1), bitorder="little").tobytes()
    return flat.astype(dtype.numpy.newbyteorder("<")).tobytes()
