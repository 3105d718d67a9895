"""Replacing a causal mask that overflows, or that quantization lost.

Text encoders of some days of August 2023, and later ones with certain transformers releases, hold the smallest float32
as "minus infinity"; in float16 it overflows. The released converters patch it to -1e4, which a softmax turns into zero
just as well. The constant lies in the weight file (or, palettized, as a look-up table); its bytes are replaced in a
copy. Where 8-bit quantization gave the constant the scale 0, the operation that unpacks it becomes the constant again:
-1e4 everywhere, of which the program cuts the triangle.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from parity.contracts.causal import is_lost, judge_mask, mask_values
from parity.errors import ParityError, UnsupportedError
from parity.mil import Model, dtypes, values
from parity.repair.program import Editor

PATCHED = -1e4  # what the released converters write


@dataclass(frozen=True)
class Replacement:
    """Elements of a weight that become :data:`PATCHED`: file name, offset of its record, how many."""

    file: str
    offset: int
    count: int


def find(editor: Editor, model: Model, tokens: int) -> tuple[Replacement, ...]:
    """Find the weights that hold an overflowing mask of (…, tokens, tokens); immediate constants are patched at once.

    Raises
    ------
    UnsupportedError
        When a mask is computed in the program, so there is no constant to replace.
    """
    found = [Replacement("", 0, _restore(operation)) for operation in lost(editor.block, tokens)]
    for operation in editor.block.operations:
        for value in mask_values(operation, tokens):
            array = _decode(value, model)
            if array is None or array.dtype.kind != "f" or judge_mask(float(array.min())) == "patched":
                continue
            if value.WhichOneof("value") == "blobFileValue":
                blob = value.blobFileValue
                count = int((array <= PATCHED).sum())
                found.append(Replacement(blob.fileName, int(blob.offset), count))
            else:
                patched = np.maximum(array, np.array(PATCHED, array.dtype))
                value.immediateValue.tensor.Clear()
                value.immediateValue.tensor.bytes.values = patched.tobytes()
                found.append(Replacement("", 0, int((array <= PATCHED).sum())))
    if not found:
        raise UnsupportedError(
            f"{editor.path}: no constant mask of {tokens}x{tokens} that overflows; nothing to replace"
        )
    return tuple(found)


def lost(block: Any, tokens: int) -> list[Any]:
    """Return the operations that unpack a lost mask whose triangle the program cuts out (``band_part`` reads it)."""
    cut = {
        binding.name
        for operation in block.operations
        if operation.type == "band_part"
        for binding in operation.inputs["x"].arguments
    }
    return [op for op in block.operations if is_lost(op, tokens) and op.outputs[0].name in cut]


def _restore(operation: Any) -> int:
    """Turn the operation into the constant that was lost; return its number of elements."""
    declared = operation.outputs[0].type
    dtype = dtypes.BY_CODE[declared.tensorType.dataType].numpy
    shape = [dimension.constant.size for dimension in declared.tensorType.dimensions]
    for name in [name for name in operation.attributes if name != "name"]:
        del operation.attributes[name]
    for name in list(operation.inputs):
        del operation.inputs[name]
    operation.type = "const"
    value = operation.attributes["val"]
    value.type.CopyFrom(declared)
    value.immediateValue.tensor.bytes.values = np.full(shape, PATCHED, dtype).tobytes()
    return int(np.prod(shape))


def patch(source: Path, target: Path, model: Model, replacements: tuple[Replacement, ...], name: str) -> None:
    """Copy one weight file and replace the masks' elements in the copy."""
    shutil.copyfile(source, target)
    with target.open("r+b") as file:
        for replacement in replacements:
            if replacement.file != name:
                continue
            array = model.weights.read(replacement.offset, name)
            record = model.weights.file(name).record(replacement.offset)
            file.seek(record.data_offset)
            file.write(np.maximum(array, np.array(PATCHED, array.dtype)).tobytes())


def _decode(value: Any, model: Model) -> np.ndarray | None:
    try:
        array = values.decode(value, "causal mask", model.weights)
    except ParityError:
        return None
    return array if isinstance(array, np.ndarray) else None
