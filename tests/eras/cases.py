"""What is expected of each era's packages; the windows are those of docs/contracts.md, by the rules told there."""

from __future__ import annotations

from typing import Final

BEFORE_KEY: Final = ("C1", "C2", "C3", "C4a", "C4b", "C4c")  # no version key on the UNet
SHAPELESS: Final = (*BEFORE_KEY, "C5", "C6")  # an output without shape excludes coremltools 7.0b2 and later
HALF: Final = (*SHAPELESS, "C6b")  # float16 outputs: left to coremltools
MODERN: Final = ("C7", "C8a", "C8b", "C8c", "C8d", "C8e", "C8f")  # float32 outputs asked for

FOLDERS: Final = {
    "5.2": ("ios15",),
    "6.1": ("0.2.0", "0.2.0-affine8"),
    "6.3": ("0.4.0", "0.4.0-affine8"),
    "7.0b1": ("1.0.0", "1.0.0-palette4"),
    "7.0": ("C6b", "0.3.0-late"),
    "7.2": ("1.1.1", "1.1.1-palette6"),
    "8.0": ("main",),
    "8.3": ("batch-one", "batch-one-palette8"),
    "9.0": ("main", "macos15"),
}
OLD: Final = ("5.2", "6.1", "6.3", "7.0b1", "7.0", "7.2")  # coremltools before 8.0
ERAS: Final = tuple(FOLDERS)
