"""What does Core ML accept for an input, what does it refuse, and what does it hand back?

:func:`check` compares a dictionary of inputs with the model's description before anything runs: missing features,
types, shapes. :func:`accept` gives arrays of the declared dtypes. :func:`give_back` turns the program's results into
what Core ML's Python binding returns: float32 arrays for float16 outputs, shape (1,) for rank-0 results, PIL images,
dictionaries for classifiers.

Errors are ``RuntimeError`` with the framework's wording where coremltools' own tests quote it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from parity.coreml import images
from parity.mil import dtypes
from parity.mil.features import Feature

_ACCEPTED_KINDS = "biuf"  # bool, signed and unsigned integers, floating point


def check(values: Mapping[str, Any], inputs: Sequence[Feature]) -> None:
    """Refuse inputs that the model does not allow. Names that the model does not have are ignored, as Core ML does.

    Parameters
    ----------
    values : mapping
        Input name to array, PIL image or number.
    inputs : sequence of Feature
        What the model declares.

    Raises
    ------
    RuntimeError
        A required input is missing, or has a type, shape or size that the model does not allow.
    """
    needed = [f.name for f in inputs if not f.optional]
    missing = [name for name in needed if name not in values]
    if missing:
        raise RuntimeError(
            f"Feature {missing[0]} is required but not specified. "
            f"The model needs {', '.join(needed)}; given: {', '.join(values) or 'nothing'}."
        )
    for feature in inputs:
        if feature.name in values:
            _check(values[feature.name], feature)


def accept(values: Mapping[str, Any], inputs: Sequence[Feature], *, rounded: bool = True) -> dict[str, Any]:
    """Return the arrays that a program is given for a user's inputs, after :func:`check`.

    Parameters
    ----------
    values : mapping
        Input name to array, PIL image or number.
    inputs : sequence of Feature
        What the model declares.
    rounded : bool
        Whether floating-point values take the declared precision; False (profile ``float32``) keeps at least float32.

    Returns
    -------
    dict
        Every declared input: arrays of the declared dtype; images as they are, `parity.mil` makes tensors of them.
    """
    check(values, inputs)
    return {f.name: _tensor(values[f.name], f, rounded=rounded) if f.name in values else _default(f) for f in inputs}


def numpy_dtype(feature: Feature) -> np.dtype:
    """Return the declared element type: uint8 for images, float16 for grayscale float16 ones, object for strings."""
    if feature.kind == "image":
        return np.dtype(np.float16 if feature.color == "grayscale_fp16" else np.uint8)
    if feature.dtype:
        return dtypes.BY_NAME[feature.dtype].numpy
    return np.dtype({"int64": np.int64, "double": np.float64}.get(feature.kind, np.object_))


def _default(feature: Feature) -> np.ndarray:
    return np.full(feature.shape, feature.default or 0, numpy_dtype(feature))


def _check(value: Any, feature: Feature) -> None:
    if feature.kind == "image":
        if not images.is_image(value):
            raise RuntimeError(f"Feature {feature.name} is an image; give a PIL image, not {type(value).__name__}.")
        images.check_mode(value, feature)
        check_shape((value.height, value.width), feature)
        return
    if feature.kind != "array":
        raise RuntimeError(f"Input {feature.name} has type {feature.kind}, which ML Programs do not take.")
    if images.is_image(value):
        raise RuntimeError(f"Feature {feature.name} is a multi-array; give an array, not a PIL image.")
    array = np.asarray(value)
    if array.dtype.kind not in _ACCEPTED_KINDS:
        raise RuntimeError(
            f"Unsupported array type for feature {feature.name}: {array.dtype}; give floating point, integers or bool."
        )
    check_shape(array.shape, feature)


def _tensor(value: Any, feature: Feature, *, rounded: bool) -> Any:
    return value if feature.kind == "image" else convert(np.asarray(value), _precision(feature, rounded=rounded))


def _precision(feature: Feature, *, rounded: bool) -> np.dtype:
    """Return the declared element type; float32 for float16 where nothing is rounded."""
    declared = numpy_dtype(feature)
    return np.dtype(np.float32) if declared == np.float16 and not rounded else declared


def convert(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return an array in a declared dtype: floats to integers truncate, too large ones become infinite in float16."""
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(dtype)


def check_shape(shape: tuple[int, ...], feature: Feature) -> None:
    """Refuse a shape that the model's description does not allow.

    Raises
    ------
    RuntimeError
        Names the feature, the shape and what is allowed.
    """
    kind = "Image size" if feature.kind == "image" else "MultiArray Shape"
    shown = f"({' x '.join(map(str, shape))})"
    if feature.ranges:
        if len(shape) != len(feature.ranges):
            raise _refused(feature, f"{kind} {shown} has {len(shape)} dimensions, expected {len(feature.ranges)}")
        for axis, (size, allowed) in enumerate(zip(shape, feature.ranges, strict=True)):
            if size not in allowed:
                raise _refused(feature, f"Size ({size}) of dimension ({axis}) is not in allowed range ({allowed})")
    elif feature.shapes:
        if shape not in feature.shapes:
            listed = ", ".join(" x ".join(map(str, each)) for each in feature.shapes)
            raise _refused(feature, f"{kind} {shown} was not in enumerated set of allowed shapes ({listed})")
    elif feature.shape and shape != feature.shape:
        expected = f"({' x '.join(map(str, feature.shape))})"
        raise _refused(
            feature, f"{kind} {shown} does not match the shape {expected} specified in the model description"
        )


def _refused(feature: Feature, reason: str) -> RuntimeError:
    return RuntimeError(
        f"For {feature.kind} feature '{feature.name}', the provided value is not compatible with the model's feature "
        f"description: {reason}."
    )


def give_back(results: Mapping[str, Any], outputs: Sequence[Feature], *, rounded: bool = True) -> dict[str, Any]:
    """Return a prediction as Core ML's Python binding does.

    Parameters
    ----------
    results : mapping
        Output name to what the program computed.
    outputs : sequence of Feature
        What the model declares: names, order and types.
    rounded : bool
        As in :func:`accept`.

    Returns
    -------
    dict
        Arrays (float16 as float32, rank 0 as shape (1,)), PIL images, numbers, strings or dictionaries.
    """
    return {feature.name: _output(results[feature.name], feature, rounded=rounded) for feature in outputs}


def _output(value: Any, feature: Feature, *, rounded: bool) -> Any:
    if feature.kind == "image":
        return images.from_tensor(np.asarray(value), feature)
    if feature.kind == "dictionary":
        return {key: float(weight) for key, weight in value.items()}
    if feature.kind == "string":
        return str(_scalar(value))
    if feature.kind == "int64":
        return int(_scalar(value))
    if feature.kind == "double":
        return float(_scalar(value))
    return visible(convert(np.asarray(value), _precision(feature, rounded=rounded)))


def _scalar(value: Any) -> Any:
    return value if isinstance(value, str) else np.asarray(value).reshape(-1)[0]


def visible(array: np.ndarray) -> np.ndarray:
    """Return an array as Core ML's Python binding shows it: float16 as float32, rank 0 as shape (1,)."""
    wide = array.astype(np.float32) if array.dtype == np.float16 else array
    return wide.reshape(1) if wide.ndim == 0 else wide
