"""Which content does a part of a model have?

The SHA-256 over configuration and weights names a part wherever it lies. Hashing a full-size UNet takes seconds, so
the hash of a large file is kept in the cache under its path, size, time and inode, as build tools do; a file that was
written in the last seconds is hashed again, since a clock's tick could hide a change.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from parity import cache
from parity.files import replacing

_LARGE: Final = 1 << 25  # bytes; below, hashing is faster than asking
_SETTLED: Final = 3.0  # seconds


def folder_hash(folder: Path) -> str:
    """Return the SHA-256 over names and contents of the JSON and safetensors files of a folder."""
    total = hashlib.sha256()
    for path in sorted(folder.glob("*")):
        if path.suffix in {".json", ".safetensors"}:
            total.update(f"{path.name}:{_file_hash(path)}\n".encode())
    return total.hexdigest()


def _file_hash(path: Path) -> str:
    status = path.stat()
    if status.st_size < _LARGE:
        return _read_hash(path)
    identity = [str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ino]
    memo = cache.folder("hashes", cache.key(file=identity))
    if memo.is_file():
        return memo.read_text(encoding="ascii")
    digest = _read_hash(path)
    if time.time() - status.st_mtime > _SETTLED:
        with replacing(memo) as written:
            written.write_text(digest, encoding="ascii")
    return digest


def _read_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def module_hash(config: Mapping[str, Any], module: Any) -> str:
    """Return the SHA-256 of a loaded module: its configuration, and its tensors by name."""
    total = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(module.state_dict().items()):
        total.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return total.hexdigest()
