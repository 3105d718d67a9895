"""Which tensors do a folder's safetensors files hold, and how large are they?

Names and shapes are read from the files' headers alone, so a question about gigabytes is answered in milliseconds and
without torch. A folder may hold several copies (single and half precision, shards): :func:`files` chooses the ones that
diffusers would load, single precision first.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Final

from parity.errors import FormatError, MissingError
from parity.models import pickles

_NAME: Final = re.compile(
    r"(diffusion_pytorch_model|model)(?P<half>\.fp16)?(-\d{5}-of-\d{5})?(?P<old>\.fp16)?\.safetensors"
)
_HEADER_LIMIT: Final = 100_000_000  # bytes, the format's own


def files(folder: Path) -> list[Path]:
    """Return the safetensors files that hold a part's weights: one, or all shards.

    Raises
    ------
    MissingError
        There is none.
    """
    found = {path: match for path in sorted(folder.glob("*.safetensors")) if (match := _NAME.fullmatch(path.name))}
    full = [path for path, match in found.items() if not match["half"] and not match["old"]]
    if not found:
        pickled = next((path for path in sorted(folder.glob("*")) if path.suffix in pickles.SUFFIXES), None)
        how = (
            f"there is a pickle, which is not read; write it as safetensors:\n  {pickles.command(pickled)}"
            if pickled
            else ("save the model with safe_serialization=True")
        )
        raise MissingError(f"{folder}: no *.safetensors weights; {how}")
    return full or list(found)


def is_half(path: Path) -> bool:
    """Return whether a weight file is a half-precision variant by its name."""
    return ".fp16" in path.name


def shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a part by name.

    Raises
    ------
    MissingError
        No weights.
    FormatError
        A header is damaged.
    """
    result: dict[str, tuple[int, ...]] = {}
    for path in files(folder):
        for name, entry in header(path).items():
            if name != "__metadata__":
                result[name] = tuple(int(size) for size in entry["shape"])
    return result


def count(folder: Path) -> int:
    """Return the number of a part's parameters."""
    return sum(math.prod(shape) for shape in shapes(folder).values())


def header(path: Path) -> dict[str, dict[str, list[int]]]:
    """Return a safetensors file's header: tensor (or ``__metadata__``) to its entry.

    Raises
    ------
    FormatError
        It has none.
    """
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        data = stream.read(length) if length <= _HEADER_LIMIT else b""
    try:
        found = json.loads(data)
        assert all("shape" in entry for name, entry in found.items() if name != "__metadata__")
    except (ValueError, AttributeError, TypeError, AssertionError):
        raise FormatError(f"{path}: no safetensors header; the file is damaged, fetch it again") from None
    return dict(found)
