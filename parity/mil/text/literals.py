"""How do types and values of textual MIL become protobuf messages?

Two dialects are read: up to iOS 17 every scalar is a tensor of rank 0 (``tensor<int32, []>(1)``), from iOS 18 on
scalars are bare (``int32(1)``). Numbers are hexadecimal or decimal. A value is parsed by its type, so its shape and the
kind of every element are checked while reading.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from parity.mil import dtypes, proto
from parity.mil.text.lexer import Source

DEPTH = 32
"""Nesting that is accepted of types, values and blocks."""

_IN_BYTES = frozenset({"fp16", "bf16", "int8", "uint8", "uint32", "int4", "uint1", "uint2", "uint3", "uint4", "uint6"})
_UNKNOWN = -1


def dimension(source: Source) -> int:
    """Read a size; -1 stands for an open one."""
    if source.accept("?") or source.accept("*"):
        return _UNKNOWN
    token = source.peek()
    if token.kind != "number" or not token.text.isdigit() or len(token.text) > 19:
        raise source.error(f"expected a size or '?', found {token.text[:60]!r}")
    source.take()
    return int(token.text)


def _set_dimension(message: Any, size: int) -> None:
    if size == _UNKNOWN:
        message.unknown.variadic = False
    else:
        message.constant.size = size


def _tensor_type(source: Source, message: Any) -> None:
    source.expect("<")
    name = source.name("an element type")
    if name not in dtypes.BY_NAME:
        raise source.error(f"unknown element type {name!r}")
    source.expect(",")
    source.expect("[")
    tensor = message.tensorType
    tensor.dataType = dtypes.BY_NAME[name].code
    while not source.accept("]"):
        if tensor.dimensions:
            source.expect(",")
        if source.accept("..."):
            tensor.dimensions.add().unknown.variadic = True
        else:
            _set_dimension(tensor.dimensions.add(), dimension(source))
    tensor.rank = -1 if any(d.unknown.variadic for d in tensor.dimensions) else len(tensor.dimensions)
    source.expect(">")


def read_type(source: Source, message: Any, depth: int = 0) -> None:
    """Read a type into a ``ValueType`` message."""
    if depth > DEPTH:
        raise source.error(f"types are nested more than {DEPTH} deep")
    name = source.name("a type")
    if name == "tensor":
        _tensor_type(source, message)
    elif name in dtypes.BY_NAME:
        message.tensorType.dataType = dtypes.BY_NAME[name].code
    elif name == "list":
        source.expect("<")
        read_type(source, message.listType.type, depth + 1)
        source.expect(",")
        _set_dimension(message.listType.length, dimension(source))
        source.expect(">")
    elif name == "tuple":
        message.tupleType.SetInParent()
        source.expect("<")
        while not source.accept(">"):
            if message.tupleType.types:
                source.expect(",")
            read_type(source, message.tupleType.types.add(), depth + 1)
    elif name == "dict":
        source.expect("<")
        read_type(source, message.dictionaryType.keyType, depth + 1)
        source.expect(",")
        read_type(source, message.dictionaryType.valueType, depth + 1)
        source.expect(">")
    elif name == "state":
        source.expect("<")
        read_type(source, message.stateType.wrappedType, depth + 1)
        source.expect(">")
    else:
        raise source.error(f"unknown type {name[:60]!r}")


def read_value(source: Source, depth: int = 0) -> Any:
    """Read ``TYPE(VALUE)`` and return a ``Value`` message."""
    value = proto.mil.Value()
    read_type(source, value.type, depth)
    source.expect("(")
    _content(source, value, depth)
    source.expect(")")
    return value


def _content(source: Source, value: Any, depth: int) -> None:
    """Read what stands for a value of the type that ``value`` has."""
    if depth > DEPTH:
        raise source.error(f"values are nested more than {DEPTH} deep")
    kind = value.type.WhichOneof("type")
    if kind == "tensorType":
        if source.accept("BLOBFILE"):
            _blob(source, value, depth)
        else:
            _tensor(source, value)
    elif kind == "listType":
        value.immediateValue.list.SetInParent()
        _sequence(source, value.immediateValue.list, [value.type.listType.type], "[", "]", depth)
    elif kind == "tupleType":
        value.immediateValue.tuple.SetInParent()
        _sequence(source, value.immediateValue.tuple, list(value.type.tupleType.types), "(", ")", depth)
    elif kind == "dictionaryType":
        _dictionary(source, value, depth)
    else:
        raise source.error("a state has no value")


def _sequence(source: Source, message: Any, types: list[Any], start: str, end: str, depth: int) -> None:
    source.expect(start)
    while not source.accept(end):
        if message.values:
            source.expect(",")
        index = len(message.values)
        if start == "(" and index >= len(types):
            raise source.error(f"a tuple of {len(types)} elements has more")
        item = message.values.add()
        item.type.CopyFrom(types[index] if start == "(" else types[0])
        _content(source, item, depth + 1)


def _dictionary(source: Source, value: Any, depth: int) -> None:
    kind = value.type.dictionaryType
    pairs = value.immediateValue.dictionary
    pairs.SetInParent()
    source.expect("{")
    while not source.accept("}"):
        if pairs.values:
            source.expect(",")
        pair = pairs.values.add()
        pair.key.type.CopyFrom(kind.keyType)
        pair.value.type.CopyFrom(kind.valueType)
        source.expect("{")
        _content(source, pair.key, depth + 1)
        source.expect(",")
        _content(source, pair.value, depth + 1)
        source.expect("}")


def _blob(source: Source, value: Any, depth: int) -> None:
    source.expect("(")
    found = {}
    for index, word in enumerate(("path", "offset")):
        if index:
            source.expect(",")
        source.expect(word)
        source.expect("=")
        found[word] = read_value(source, depth + 1).immediateValue.tensor
    source.expect(")")
    offsets = [*found["offset"].longInts.values, *found["offset"].ints.values]
    if len(found["path"].strings.values) != 1 or len(offsets) != 1 or offsets[0] < 0:
        raise source.error("BLOBFILE needs path = string and offset = uint64")
    value.blobFileValue.fileName = found["path"].strings.values[0]
    value.blobFileValue.offset = offsets[0]


def _elements(source: Source, dtype: dtypes.DType, depth: int, shape: list[int], found: list[Any]) -> None:
    """Read nested brackets, appending elements to ``found`` and sizes to ``shape`` on the first way down."""
    if depth > DEPTH:
        raise source.error(f"values are nested more than {DEPTH} deep")
    if not source.accept("["):
        found.append(_scalar(source, dtype))
        return
    count = 0
    level = len(shape) if depth == len(shape) else None
    if level is not None:
        shape.append(_UNKNOWN)
    while not source.accept("]"):
        if count:
            source.expect(",")
        deeper = source.peek().text == "["
        if deeper != (depth + 1 < len(shape)) and not (count == 0 and level is not None):
            raise source.error("the brackets of a tensor are not a regular grid")
        _elements(source, dtype, depth + 1, shape, found)
        count += 1
    if level is not None:
        shape[level] = count
    elif shape[depth] != count:
        raise source.error(f"a row of {count} values where others have {shape[depth]}")


def _scalar(source: Source, dtype: dtypes.DType) -> Any:
    token = source.peek()
    if dtype.name == "string":
        return source.string()
    if dtype.name == "bool":
        if token.text not in ("true", "false"):
            raise source.error(f"expected true or false, found {token.text[:60]!r}")
        source.take()
        return token.text == "true"
    if token.kind != "number":
        raise source.error(f"expected a number, found {token.text[:60]!r}")
    source.take()
    text = token.text
    hexadecimal = "0x" in text.lower()
    try:
        if dtype.is_float:
            return float.fromhex(text) if hexadecimal else float(text)
        number = int(text, 16 if hexadecimal else 10) if len(text) < 40 else None
    except (ValueError, OverflowError):
        number = None
    signed = dtype.name.startswith("int")
    low, high = (-(1 << (dtype.bits - 1)), 1 << (dtype.bits - 1)) if signed else (0, 1 << dtype.bits)
    if number is None or not low <= number < high:
        raise source.error(f"{text[:60]!r} is no {dtype}", token.start)
    return number


def _tensor(source: Source, value: Any) -> None:
    declared = value.type.tensorType
    dtype = dtypes.BY_CODE[declared.dataType]
    start = source.peek().start
    shape: list[int] = []
    found: list[Any] = []
    _elements(source, dtype, 0, shape, found)
    sizes = [d.constant.size if d.WhichOneof("dimension") == "constant" else None for d in declared.dimensions]
    fits = len(shape) == len(sizes) and all(w in (None, s) for w, s in zip(sizes, shape, strict=True))
    if not fits and not (0 in sizes and not found):
        raise source.error(f"a value of shape {shape} for the declared shape {sizes}", start)
    if fits:
        for message, size in zip(declared.dimensions, shape, strict=True):
            message.constant.size = size
    encode(found, dtype, value.immediateValue.tensor)


def encode(found: list[Any], dtype: dtypes.DType, message: Any) -> None:
    """Store elements in a ``TensorValue`` message, in the field that coremltools uses for the dtype."""
    if dtype.name in _IN_BYTES:
        with np.errstate(over="ignore"):
            message.bytes.values = _pack(found, dtype)
        return
    field = {"string": "strings", "bool": "bools", "fp32": "floats", "fp64": "doubles"}.get(dtype.name)
    field = field or ("longInts" if dtype.bits == 64 else "ints")
    if field == "floats":
        found = [_float32(number) for number in found]
    if dtype.name == "uint64":  # the field is signed
        found = [number - (1 << 64) if number >> 63 else number for number in found]
    getattr(message, field).SetInParent()
    getattr(message, field).values.extend(found)


def _float32(number: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(number)) if math.isfinite(number) else number


def _pack(found: list[Any], dtype: dtypes.DType) -> bytes:
    if dtype.name == "bf16":
        return (np.array(found, np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
    return dtypes.pack(np.array(found, dtype.numpy), dtype)
