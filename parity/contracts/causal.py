"""Does a text encoder's causal mask survive in its program?

The mask keeps each token from seeing later ones: it is added to the scores of attention, and is zero or very negative.
Three things befall it in files of old releases. As the smallest float32 it overflows in float16 (*unpatched*); the
released converters replace that by -1e4 (*patched*). And coremltools up to 6.x quantizes a constant whose elements are
all equal, which the mask is before its triangle is cut out, with the scale 0: nothing is left of it (*lost*), and every
token sees all others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from parity.errors import ParityError
from parity.mil import values

_OVERFLOW = -65504.0  # the smallest float16; masks below -1e4 by far were meant as minus infinity


def mask_values(operation: Any, tokens: int) -> list[Any]:
    """Return the ``Value`` messages that decide a constant of (…, tokens, tokens): its own, or its look-up table.

    Palettization turns a causal mask into indices and a table like any other large constant.
    """
    if operation.type not in ("const", "constexpr_lut_to_dense") or not _is_square(operation, tokens):
        return []
    wanted = "val" if operation.type == "const" else "lut"
    return [value for name, value in named_constants(operation) if name == wanted]


def is_lost(operation: Any, tokens: int) -> bool:
    """Tell whether an operation unpacks a constant of (…, tokens, tokens) by the scale 0, so to nothing but zeros."""
    if operation.type != "constexpr_affine_dequantize" or not _is_square(operation, tokens):
        return False
    scales = [value for name, value in named_constants(operation) if name == "scale"]
    try:
        return bool(scales) and not np.any(np.asarray(values.decode(scales[0], "scale")))
    except ParityError:  # in the weight file: a scale for each of several rows
        return False


def judge(masks: Sequence[Any], weights: Any, *, lost: bool) -> tuple[float | None, str]:
    """Name the mask of a text encoder, and give its smallest value.

    Parameters
    ----------
    masks : sequence of Value messages
        From :func:`mask_values` of all operations.
    weights : parity.mil.Weights
        Where the values are read.
    lost : bool
        Whether :func:`is_lost` of any operation.

    Returns
    -------
    minimum : float or None
    state : str
        ``patched``, ``unpatched``, ``lost``, ``none`` (no constant mask) or ``unread``.
    """
    if lost:
        return 0.0, "lost"
    minimum = None
    for value in masks:
        try:
            array = values.decode(value, "causal mask", weights)
        except ParityError:
            return None, "unread"
        if isinstance(array, np.ndarray) and array.dtype.kind == "f":
            smallest = float(array.min())
            minimum = smallest if minimum is None else min(minimum, smallest)
    return minimum, "none" if minimum is None else judge_mask(minimum)


def judge_mask(minimum: float) -> str:
    """Name a causal mask by its smallest value: ``patched`` when float16 can hold and add it, else ``unpatched``."""
    return "unpatched" if minimum <= _OVERFLOW or not math.isfinite(minimum) else "patched"


def named_constants(operation: Any) -> Iterator[tuple[str, Any]]:
    """Yield constants that an operation holds itself, as attributes or as arguments, by name."""
    yield from operation.attributes.items()
    for name, argument in operation.inputs.items():
        for binding in argument.arguments:
            if binding.WhichOneof("binding") == "value":
                yield name, binding.value


def _is_square(operation: Any, tokens: int) -> bool:
    if not operation.outputs:
        return False
    shape = [d.constant.size for d in operation.outputs[0].type.tensorType.dimensions]
    return shape[-2:] == [tokens, tokens] and math.prod(shape[:-2]) == 1
