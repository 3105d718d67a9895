"""Replacing an overflowing causal mask.

Text encoders of some days of August 2023, and later ones with certain transformers releases, hold the smallest float32
as "minus infinity"; in float16 it overflows. The released converters patch it to -1e4, which a softmax turns into zero
just as well. The constant lies in the weight file (or, palettized, as a look-up table); its bytes are replaced in a
copy.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from parity.contracts.fingerprint import judge_mask, mask_values
from parity.contracts.repair.program import Editor
from parity.errors import ParityError, UnsupportedError
from parity.mil import Model, values

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
    found = []
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
