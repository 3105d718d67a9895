"""What does a model take and give, as declared in its description?

The protobuf's feature types become one frozen :class:`Feature`: name, kind, shape with flexible sizes, dtype, whether
it may be left out, and its default. Images keep colour space and size in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from parity.errors import FormatError

_ARRAY_TYPES = {65552: "fp16", 65568: "fp32", 65600: "fp64", 131104: "int32", 131080: "int8"}
_COLORS = {10: "grayscale", 20: "rgb", 30: "bgr", 40: "grayscale_fp16"}
_CHANNELS = {"grayscale": 1, "grayscale_fp16": 1, "rgb": 3, "bgr": 3}


@dataclass(frozen=True)
class Range:
    """Allowed sizes of one dimension; ``upper`` None is unbounded."""

    lower: int
    upper: int | None

    def __contains__(self, size: object) -> bool:
        return isinstance(size, int) and self.lower <= size and (self.upper is None or size <= self.upper)

    def __str__(self) -> str:
        return f"{self.lower}..{'' if self.upper is None else self.upper}"


@dataclass(frozen=True)
class Feature:
    """One input, output or state of a model.

    Attributes
    ----------
    name : str
        Its name.
    kind : str
        ``array``, ``image``, ``state``, ``int64``, ``double``, ``string``, ``dictionary`` or ``sequence``.
    shape : tuple of int
        Default shape of an array or state; (height, width) of an image; empty when not declared.
    dtype : str
        ``fp16``, ``fp32``, ``fp64``, ``int32`` or ``int8``; empty for kinds without one.
    optional : bool
        May be left out.
    default : int, float or None
        Value of every element when it is left out.
    ranges : tuple of Range
        Allowed sizes by dimension where declared as ranges.
    shapes : tuple of tuple of int
        Allowed shapes where enumerated; the default comes first.
    color : str
        Colour space of an image: ``grayscale``, ``rgb``, ``bgr`` or ``grayscale_fp16``.
    description : str
        Text for readers.
    """

    name: str
    kind: str
    shape: tuple[int, ...] = ()
    dtype: str = ""
    optional: bool = False
    default: float | None = None
    ranges: tuple[Range, ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()
    color: str = ""
    description: str = ""

    @property
    def flexible(self) -> bool:
        """True when more than one shape is allowed."""
        return len(set(self.shapes)) > 1 or any(r.lower != r.upper for r in self.ranges)

    @property
    def channels(self) -> int:
        """Number of colour channels of an image, otherwise 0."""
        return _CHANNELS.get(self.color, 0)

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Tell whether a value of this shape is allowed (height and width for images)."""
        if self.ranges:
            return len(shape) == len(self.ranges) and all(s in r for s, r in zip(shape, self.ranges, strict=True))
        if self.shapes:
            return shape in self.shapes
        return not self.shape or shape == self.shape

    def __str__(self) -> str:
        if self.shapes and self.flexible:
            size = " | ".join("×".join(map(str, shape)) for shape in self.shapes)
        elif self.flexible:
            size = "×".join(str(r.lower) if r.lower == r.upper else str(r) for r in self.ranges)
        else:
            size = "×".join(map(str, self.shape))
        words = [self.kind, self.color or self.dtype, size, "optional" if self.optional else ""]
        return f"{self.name}: {' '.join(word for word in words if word)}"


def _range(message: Any) -> Range:
    return Range(int(message.lowerBound), None if message.upperBound < 0 else int(message.upperBound))


def _array(message: Any, where: str) -> dict[str, Any]:
    dtype = _ARRAY_TYPES.get(message.dataType)
    if dtype is None:
        raise FormatError(f"{where}: unknown array data type {message.dataType}")
    shape = tuple(int(size) for size in message.shape)
    flexibility = message.WhichOneof("ShapeFlexibility")
    ranges: tuple[Range, ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()
    if flexibility == "shapeRange":
        ranges = tuple(_range(r) for r in message.shapeRange.sizeRanges)
        shape = shape or tuple(r.lower for r in ranges)
    elif flexibility == "enumeratedShapes":
        listed = [tuple(int(size) for size in s.shape) for s in message.enumeratedShapes.shapes]
        shape = shape or (listed[0] if listed else ())
        shapes = tuple(dict.fromkeys([shape, *listed]))
    field = message.WhichOneof("defaultOptionalValue")
    default = None if field is None else getattr(message, field)
    return {"shape": shape, "dtype": dtype, "ranges": ranges, "shapes": shapes, "default": default}


def _image(message: Any, where: str) -> dict[str, Any]:
    color = _COLORS.get(message.colorSpace)
    if color is None:
        raise FormatError(f"{where}: unknown colour space {message.colorSpace}")
    shape = (int(message.height), int(message.width))
    flexibility = message.WhichOneof("SizeFlexibility")
    ranges: tuple[Range, ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()
    if flexibility == "imageSizeRange":
        ranges = (_range(message.imageSizeRange.heightRange), _range(message.imageSizeRange.widthRange))
    elif flexibility == "enumeratedSizes":
        listed = [(int(size.height), int(size.width)) for size in message.enumeratedSizes.sizes]
        shapes = tuple(dict.fromkeys([shape, *listed]))
    return {"shape": shape, "color": color, "ranges": ranges, "shapes": shapes}


_PLAIN = {
    "int64Type": "int64",
    "doubleType": "double",
    "stringType": "string",
    "dictionaryType": "dictionary",
    "sequenceType": "sequence",
}


def feature(message: Any, where: str) -> Feature:
    """Convert a ``FeatureDescription`` message.

    Parameters
    ----------
    message : parity.mil.proto.model.FeatureDescription
        The declaration.
    where : str
        The file, for messages.

    Raises
    ------
    FormatError
        When the type is missing or not known.
    """
    where = f"{where}: feature {message.name!r}"
    kind = message.type.WhichOneof("Type")
    if kind == "multiArrayType":
        details = {"kind": "array", **_array(message.type.multiArrayType, where)}
    elif kind == "imageType":
        details = {"kind": "image", **_image(message.type.imageType, where)}
    elif kind == "stateType":
        details = {"kind": "state", **_array(message.type.stateType.arrayType, where)}
    elif kind in _PLAIN:
        details = {"kind": _PLAIN[kind]}
    else:
        raise FormatError(f"{where}: it has no type")
    return Feature(name=message.name, optional=message.type.isOptional, description=message.shortDescription, **details)
