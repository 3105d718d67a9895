"""Planting defects in copies of packages."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from parity import mil

TINY = Path(__file__).with_name("tiny.toml")
"""Bounds for tests that ask something else of tiny-sd than whether it passes."""


def edited(package: Path, folder: Path, edit: Callable[[Any], None]) -> Path:
    """Copy a package with an edited program."""
    target = folder / package.name
    shutil.copytree(package, target)
    path = target / "Data" / "com.apple.CoreML" / "model.mlmodel"
    specification = mil.load(package).specification
    changed = type(specification)()
    changed.CopyFrom(specification)
    edit(changed)
    path.write_bytes(changed.SerializeToString())
    return target


def changed(package: Path, folder: Path, weight: str, value: float, *, count: int = 1) -> Path:
    """Copy a package with other first values of a weight."""
    target = folder / package.name
    shutil.copytree(package, target)
    weights = target / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
    stored = np.memmap(weights, dtype=np.float16, mode="r+")
    (constant,) = (
        operation.attributes["val"].blobFileValue
        for operation in operations(mil.load(target).specification)
        if operation.type == "const" and weight in operation.outputs[0].name
    )
    first = (constant.offset + 64) // 2  # the data follows 64 bytes of metadata
    stored[first : first + count] = value
    stored.flush()
    return target


def operations(specification: Any) -> list[Any]:
    function = specification.mlProgram.functions["main"]
    return list(function.block_specializations[function.opset].operations)
