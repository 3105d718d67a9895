"""How do NumPy arrays, numbers and images enter and leave a program?

Inputs are checked against the declared feature before anything runs: presence, shape, dtype. Numeric dtypes convert
when no value changes its meaning (integers to floats; floats to integers only when they are whole and in range; float16
rounds as the declaration says). Images become tensors of shape (1, channels, height, width) in the declared order.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from parity.errors import UsageError
from parity.mil import dtypes, values
from parity.mil.features import Feature
from parity.mil.operators import CARRIERS, State
from parity.mil.rounding import rounder


def closest(name: str, known: Iterable[str]) -> str:
    """Return a hint with the names most like ``name``, or nothing."""
    found = difflib.get_close_matches(name, list(known), n=3)
    return f"; did you mean {', '.join(found)}?" if found else ""


def dtype_of(declared: values.Type) -> str:
    """Return the MIL dtype of a tensor type, ``""`` for other types."""
    return declared.dtype.name if isinstance(declared, values.TensorType) else ""


def zeros(declared: values.Type, where: str) -> torch.Tensor:
    """Return zeros of a tensor type of fixed shape, in the carrier of its dtype."""
    if not isinstance(declared, values.TensorType) or declared.variadic or None in declared.shape:
        raise UsageError(f"{where}: a state of type {declared} has no fixed shape")
    shape = [size for size in declared.shape if size is not None]
    return torch.zeros(shape, dtype=getattr(torch, CARRIERS[declared.dtype.name]))


def to_torch(array: np.ndarray, dtype: str, where: str, *, rounded: bool) -> torch.Tensor:
    """Convert an array to a MIL dtype's carrier; UsageError when it does not convert.

    ``rounded`` says whether floating-point values take the precision of the dtype or keep that of the carrier.
    """
    kind = array.dtype.kind
    wanted = dtypes.BY_NAME[dtype]
    if kind not in "biuf":
        raise UsageError(f"{where}: an array of {array.dtype} is not numeric; {dtype} was expected")
    carrier = getattr(torch, CARRIERS.get(dtype, "float32"))
    if wanted.is_float:
        wide = np.float64 if dtype == "fp64" else np.float32
        tensor = torch.from_numpy(np.array(array, wide, order="C"))
        finish = rounder(dtype, in_place=True) if rounded else None
        return tensor if finish is None else finish(tensor)
    if kind == "f" and not (np.isfinite(array).all() and (array == np.trunc(array)).all()):
        raise UsageError(f"{where}: {dtype} was expected, but the array of {array.dtype} has values that are not whole")
    if wanted.is_int and array.size:
        signed = dtype.startswith("int")
        low, high = (-(1 << (wanted.bits - 1)), 1 << (wanted.bits - 1)) if signed else (0, 1 << wanted.bits)
        if array.min() < low or array.max() >= high:
            raise UsageError(f"{where}: values from {array.min()} to {array.max()} do not fit {dtype}")
    return torch.from_numpy(np.array(array, np.int64, order="C")).to(carrier)


def to_numpy(tensor: torch.Tensor, dtype: str, *, rounded: bool) -> np.ndarray:
    """Convert a value from its carrier to the NumPy type of a MIL dtype (floats only if ``rounded``); always a copy."""
    array = tensor.detach().contiguous().numpy()
    keep = dtype not in dtypes.BY_NAME or (dtypes.BY_NAME[dtype].is_float and not rounded)
    wanted = array.dtype if keep else dtypes.BY_NAME[dtype].numpy
    with np.errstate(over="ignore"):  # float16 overflows to infinity, as declared
        return np.array(array, wanted, order="C")


def typed(declared: values.Type, value: Any, where: str, *, rounded: bool) -> Any:
    """Convert what a caller gives to a value of the declared type."""
    if isinstance(declared, values.ListType):
        if not isinstance(value, (list, tuple)):
            raise UsageError(f"{where}: a list was expected")
        return [typed(declared.element, item, where, rounded=rounded) for item in value]
    if isinstance(declared, values.StateType):
        if not isinstance(value, State):
            raise UsageError(f"{where}: states are passed by state=, not as inputs")
        return value
    if not isinstance(declared, values.TensorType):
        raise UsageError(f"{where}: values of type {declared} cannot be given")
    if declared.dtype.name == "string":
        return value
    array = np.asarray(value.detach().numpy() if isinstance(value, torch.Tensor) else value)
    sizes = declared.shape
    if not declared.variadic and (
        len(sizes) != array.ndim
        or any(want is not None and want != size for want, size in zip(sizes, array.shape, strict=True))
    ):
        raise UsageError(f"{where}: shape {list(array.shape)}, but the program declares {declared}")
    return to_torch(array, declared.dtype.name, where, rounded=rounded)


def result(declared: values.Type, value: Any, *, rounded: bool) -> Any:
    """Convert a program's value to NumPy arrays, lists, strings or dictionaries."""
    if isinstance(value, torch.Tensor):
        return to_numpy(value, dtype_of(declared), rounded=rounded)
    if isinstance(value, (list, tuple)):
        element = declared.element if isinstance(declared, values.ListType) else declared
        return [result(element, item, rounded=rounded) for item in value]
    return value.value if isinstance(value, State) else value


def _image(feature: Feature, value: Any, where: str) -> np.ndarray:
    if hasattr(value, "convert") and hasattr(value, "mode"):  # a PIL image
        value = value.convert({"grayscale": "L", "grayscale_fp16": "F"}.get(feature.color, "RGB"))
    array = np.asarray(value)
    if array.ndim == 4:
        return array  # already (1, channels, height, width) in the declared order
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] != feature.channels:
        raise UsageError(
            f"{where}: an image of shape {list(np.shape(value))}; expected height × width"
            + (f" × {feature.channels}" if feature.channels > 1 else "")
        )
    if feature.color == "bgr":
        array = array[..., ::-1]
    return array.transpose(2, 0, 1)[None]


def input_value(feature: Feature, value: Any, where: str) -> Any:
    """Check one input against its declaration and return it as an array (images: batch, channels, height, width)."""
    where = f"{where}: input {feature.name!r}"
    if feature.kind == "image":
        array = _image(feature, value, where)
        shape: tuple[int, ...] = array.shape[2:]
    elif feature.kind in ("string", "dictionary", "sequence"):
        return value
    else:
        array = np.asarray(value.detach().numpy() if isinstance(value, torch.Tensor) else value)
        shape = array.shape
        if array.dtype.kind not in "biuf":
            raise UsageError(f"{where}: an array of {array.dtype} is not numeric; {feature.dtype} was expected")
    if not feature.accepts(shape):
        raise UsageError(f"{where}: shape {list(shape)} is not allowed; declared is {feature}")
    return array


def inputs(features: tuple[Feature, ...], given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check all inputs of a prediction; optional ones that are missing get their default (zero where none is declared).

    Raises
    ------
    UsageError
        Missing, unknown or unfitting inputs, each by name with what is declared.
    """
    known = {feature.name: feature for feature in features}
    if unknown := [name for name in given if name not in known]:
        raise UsageError(f"{where}: no input {unknown[0]!r}; declared are {'; '.join(map(str, features)) or 'none'}")
    checked = {}
    for feature in features:
        if feature.name in given:
            checked[feature.name] = input_value(feature, given[feature.name], where)
        elif feature.optional:
            dtype = dtypes.BY_NAME[feature.dtype].numpy if feature.dtype else np.dtype(np.float32)
            checked[feature.name] = np.full(feature.shape, feature.default or 0, dtype)
        else:
            raise UsageError(f"{where}: input {feature.name!r} is missing; declared is {feature}")
    return checked
