"""What do the types and constants of a program mean as Python and NumPy objects?

Types become small frozen dataclasses; constants become NumPy arrays (rank 0 included), ``str``, lists, tuples or
dictionaries. A constant's declared type, element count and encoding are checked against each other before anything of
its size is allocated, so a damaged program cannot make the process allocate more than the file holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from parity.errors import FormatError, UnsupportedError
from parity.mil import dtypes

_DEPTH = 32  # nesting of types and constants; what coremltools writes needs 3


@dataclass(frozen=True)
class TensorType:
    """Tensor of a dtype; a size is None where the program leaves it open, ``variadic`` leaves the rank open too."""

    dtype: dtypes.DType
    shape: tuple[int | None, ...]
    variadic: bool = False

    def __str__(self) -> str:
        sizes = ["?" if size is None else str(size) for size in self.shape] + ["..."] * self.variadic
        return f"{self.dtype.name}[{', '.join(sizes)}]"


@dataclass(frozen=True)
class ListType:
    """List of values of one type; ``length`` None where open."""

    element: Type
    length: int | None

    def __str__(self) -> str:
        return f"list<{self.element}, {'?' if self.length is None else self.length}>"


@dataclass(frozen=True)
class TupleType:
    """Tuple of values."""

    elements: tuple[Type, ...]

    def __str__(self) -> str:
        return f"tuple<{', '.join(map(str, self.elements))}>"


@dataclass(frozen=True)
class DictType:
    """Dictionary; only attributes have this type."""

    key: Type
    value: Type

    def __str__(self) -> str:
        return f"dict<{self.key}, {self.value}>"


@dataclass(frozen=True)
class StateType:
    """Memory that outlives a prediction."""

    wrapped: Type

    def __str__(self) -> str:
        return f"state<{self.wrapped}>"


Type = TensorType | ListType | TupleType | DictType | StateType


class WeightReader(Protocol):
    """What :func:`decode` needs of :class:`parity.mil.blobs.Weights`."""

    def read(self, offset: int, name: str = ..., *, writable: bool = ...) -> np.ndarray:
        """Return the weight whose record is at ``offset`` of file ``name``."""
        ...


def _dimension(dimension: Any) -> int | None:
    return int(dimension.constant.size) if dimension.WhichOneof("dimension") == "constant" else None


def type_of(message: Any, where: str, *, depth: int = 0) -> Type:
    """Convert a ``ValueType`` message.

    Parameters
    ----------
    message : parity.mil.proto.mil.ValueType
        The type.
    where : str
        What has this type, for messages.
    depth : int
        How many types this one lies in.

    Raises
    ------
    FormatError
        When the type is empty, unknown, nested too deeply or its rank disagrees with its dimensions.
    """
    if depth > _DEPTH:
        raise FormatError(f"{where}: its type is nested more than {_DEPTH} deep")
    kind = message.WhichOneof("type")
    if kind == "tensorType":
        tensor = message.tensorType
        dtype = dtypes.BY_CODE.get(tensor.dataType)
        if dtype is None:
            raise FormatError(f"{where}: unknown element type {tensor.dataType}")
        variadic = any(d.unknown.variadic for d in tensor.dimensions)
        shape = tuple(_dimension(d) for d in tensor.dimensions if not d.unknown.variadic)
        if not variadic and tensor.rank not in (len(shape), -1):
            raise FormatError(f"{where}: rank {tensor.rank} but {len(shape)} dimensions")
        return TensorType(dtype, shape, variadic)
    if kind == "listType":
        return ListType(type_of(message.listType.type, where, depth=depth + 1), _dimension(message.listType.length))
    if kind == "tupleType":
        return TupleType(tuple(type_of(element, where, depth=depth + 1) for element in message.tupleType.types))
    if kind == "dictionaryType":
        dictionary = message.dictionaryType
        key = type_of(dictionary.keyType, where, depth=depth + 1)
        return DictType(key, type_of(dictionary.valueType, where, depth=depth + 1))
    if kind == "stateType":
        return StateType(type_of(message.stateType.wrappedType, where, depth=depth + 1))
    raise FormatError(f"{where}: it has no type")


_FIELDS = {"floats": "fp32", "doubles": "fp64", "longInts": "int64", "bools": "bool"}


def _tensor(message: Any, declared: TensorType, where: str) -> Any:
    if declared.variadic or None in declared.shape:
        raise FormatError(f"{where}: a constant of type {declared} has no fixed shape")
    count = math.prod(size for size in declared.shape if size is not None)
    dtype = declared.dtype
    field = message.WhichOneof("value")
    if field is None:
        raise FormatError(f"{where}: the constant has no value")
    content = getattr(message, field).values
    if field == "bytes":
        return _unpacked(content, declared, count, where)
    if len(content) != count:
        raise FormatError(f"{where}: {len(content)} values for {declared}, which needs {count}")
    if field == "strings":
        if dtype.name != "string":
            raise FormatError(f"{where}: strings for the type {declared}")
        return content[0] if declared.shape == () else np.array(list(content), object).reshape(declared.shape)
    _check_field(field, declared, where)
    wide = np.array(content, np.int64 if dtype.is_int else dtype.numpy)
    return wide.astype(dtype.numpy).reshape(declared.shape)


def _unpacked(content: bytes, declared: TensorType, count: int, where: str) -> np.ndarray:
    dtype = declared.dtype
    if dtype.name in ("bool", "string"):
        raise FormatError(f"{where}: raw bytes cannot hold {dtype}")
    expected = -(-count * dtype.bits // 8)
    if len(content) != expected:
        raise FormatError(f"{where}: {len(content)} bytes for {declared}, which needs {expected}")
    return dtypes.unpack(np.frombuffer(content, np.uint8), dtype, count).reshape(declared.shape)


def _check_field(field: str, declared: TensorType, where: str) -> None:
    """Refuse numbers that lie in a field of another kind than their declared type."""
    dtype = declared.dtype
    if field == "ints":
        if not (dtype.is_int or dtype.name == "bool"):
            raise FormatError(f"{where}: integers for the type {declared}")
    elif _FIELDS[field] != dtype.name and not (field == "longInts" and dtype.is_int):
        raise FormatError(f"{where}: field {field} for the type {declared}")


def _immediate(message: Any, declared: Type, where: str, weights: WeightReader | None, depth: int) -> Any:
    kind = message.WhichOneof("value")
    if kind == "tensor" and isinstance(declared, TensorType):
        return _tensor(message.tensor, declared, where)
    if kind == "list" and isinstance(declared, ListType):
        return [decode(value, where, weights, depth=depth + 1) for value in message.list.values]
    if kind == "tuple" and isinstance(declared, TupleType):
        return tuple(decode(value, where, weights, depth=depth + 1) for value in message.tuple.values)
    if kind == "dictionary" and isinstance(declared, DictType):
        pairs = [(decode(p.key, where, weights, depth=depth + 1), p.value) for p in message.dictionary.values]
        if not all(isinstance(key, str) or (isinstance(key, np.ndarray) and key.ndim == 0) for key, _ in pairs):
            raise FormatError(f"{where}: keys of a dictionary must be scalars")
        return {
            key if isinstance(key, str) else key.item(): decode(value, where, weights, depth=depth + 1)
            for key, value in pairs
        }
    raise FormatError(f"{where}: a {kind or 'missing'} value for the type {declared}")


def decode(message: Any, where: str, weights: WeightReader | None = None, *, depth: int = 0) -> Any:
    """Convert a ``Value`` message.

    Parameters
    ----------
    message : parity.mil.proto.mil.Value
        The constant.
    where : str
        What it is the value of, for messages.
    weights : WeightReader, optional
        Where weights are read; without it a constant in a weight file is an error.
    depth : int
        How many values this one lies in.

    Returns
    -------
    numpy.ndarray, str, list, tuple or dict
        Arrays have the NumPy type of :class:`parity.mil.dtypes.DType`. Weights are writable views of a private mapping
        (writes never reach the file).

    Raises
    ------
    FormatError
        When value and declared type disagree.
    """
    if depth > _DEPTH:
        raise FormatError(f"{where}: its value is nested more than {_DEPTH} deep")
    declared = type_of(message.type, where)
    kind = message.WhichOneof("value")
    if kind == "immediateValue":
        return _immediate(message.immediateValue, declared, where, weights, depth)
    if kind != "blobFileValue":
        raise FormatError(f"{where}: it has no value")
    if not isinstance(declared, TensorType) or declared.variadic or None in declared.shape:
        raise FormatError(f"{where}: a weight of type {declared}; only tensors of fixed shape lie in weight files")
    if weights is None:
        raise UnsupportedError(f"{where}: its value lies in a weight file, which is not at hand here")
    blob = message.blobFileValue
    array = weights.read(blob.offset, blob.fileName, writable=True)
    count = math.prod(size for size in declared.shape if size is not None)
    if array.dtype != declared.dtype.numpy or array.size != count:
        raise FormatError(
            f"{where}: declared {declared} ({count} elements), but the weight at offset {blob.offset} of "
            f"{blob.fileName} has {array.size} elements of {array.dtype}"
        )
    return array.reshape(declared.shape)
