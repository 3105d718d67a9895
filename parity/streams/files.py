"""Reading and writing latents: ``.npy``, ``.npz`` and ``.safetensors``, each with one array.

bfloat16 has no NumPy dtype: ``.safetensors`` stores it as such, the other two as float32, which holds it exactly.
"""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path

import numpy as np

from parity.errors import FormatError, MissingError, UsageError
from parity.files import refuse_pointer, replacing

SUFFIXES = (".npy", ".npz", ".safetensors")
NAME = "latents"
"""Name of the array in files that name their arrays."""

_CODES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2"}
_HEADER_LIMIT = 1 << 20


def save(path: Path | str, values: np.ndarray, dtype: str) -> None:
    """Write an array; the file appears complete or not at all.

    Parameters
    ----------
    path : path
        With one of :data:`SUFFIXES`.
    values : array
        What is written.
    dtype : str
        What the values are; ``bfloat16`` for a float32 array of such numbers.
    """
    path = Path(path)
    check_suffix(path)
    with replacing(path) as target:
        if path.suffix == ".npy":
            np.save(target, values, allow_pickle=False)
        elif path.suffix == ".npz":
            np.savez(target, latents=values)
        else:
            target.write_bytes(_safetensors(values, dtype))


def check_suffix(path: Path) -> None:
    """Refuse, before anything is drawn, a name that :func:`save` would refuse.

    Raises
    ------
    UsageError
        Its suffix is none of :data:`SUFFIXES`.
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path}: cannot write {path.suffix or 'a file without a suffix'}; use {', '.join(SUFFIXES)}")


def load(path: Path | str) -> np.ndarray:
    """Read the one array of a file; bfloat16 comes as float32.

    Raises
    ------
    MissingError
        There is no such file.
    FormatError
        Not what its suffix says, no floating-point numbers, or not one array.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingError(f"{path}: no such file")
    if path.suffix not in SUFFIXES:
        raise FormatError(f"{path}: expected {', '.join(SUFFIXES)}")
    refuse_pointer(path)
    try:
        values = _read(path)
    except FormatError:
        raise
    except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise FormatError(f"{path}: damaged, or not a {path.suffix} file ({error})") from error
    if values.dtype.kind != "f":
        raise FormatError(f"{path}: holds {values.dtype}; latents are floating-point numbers")
    return values


def _read(path: Path) -> np.ndarray:
    if path.suffix == ".safetensors":
        return _from_safetensors(path)
    content = np.load(path, allow_pickle=False)
    if isinstance(content, np.ndarray):
        return content
    with content:
        if len(content.files) != 1:
            raise FormatError(f"{path}: expected one array, got {', '.join(content.files) or 'none'}")
        return np.asarray(content[content.files[0]])


def _safetensors(values: np.ndarray, dtype: str) -> bytes:
    if dtype == "bfloat16":
        code, data = "BF16", (values.view(np.uint32) >> np.uint32(16)).astype("<u2").tobytes()
    else:
        code = {"float16": "F16", "float32": "F32", "float64": "F64"}[dtype]
        data = values.astype(_CODES[code]).tobytes()
    header = {NAME: {"dtype": code, "shape": list(values.shape), "data_offsets": [0, len(data)]}}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def _from_safetensors(path: Path) -> np.ndarray:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    if not 2 <= length <= min(_HEADER_LIMIT, len(content) - 8):
        raise FormatError(f"{path}: the header's length {length} does not fit the file")
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    if len(header) != 1:
        raise FormatError(f"{path}: expected one tensor, got {', '.join(header) or 'none'}")
    (entry,) = header.values()
    if entry["dtype"] not in _CODES:
        raise FormatError(f"{path}: dtype {entry['dtype']} is none of {', '.join(_CODES)}")
    shape, (start, stop) = entry["shape"], entry["data_offsets"]
    data = content[8 + length :][start:stop]
    code = np.dtype(_CODES[entry["dtype"]])
    if any(not isinstance(size, int) or size < 0 for size in shape) or len(data) != math.prod(shape) * code.itemsize:
        raise FormatError(f"{path}: shape {shape} of {entry['dtype']} does not fit the {len(data)} bytes of data")
    values = np.frombuffer(data, code).reshape(shape)
    if entry["dtype"] == "BF16":
        return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return values.astype(code.newbyteorder("="))
