"""Which content does a part of a model have?

Three answers for three purposes: :func:`folder_hash` names files (for caches), :func:`module_hash` a loaded module (the
same, for models in memory), :func:`tensors_digest` the numbers alone, which stay when a library saves them anew (for
results that are compared over releases).

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
from parity.errors import FormatError
from parity.files import replacing, sha256

_LARGE: Final = 1 << 25  # bytes; below, hashing is faster than asking
_SETTLED: Final = 3.0  # seconds


def folder_hash(folder: Path) -> str:
    """Return the SHA-256 over names and contents of the JSON and safetensors files of a folder."""
    total = hashlib.sha256()
    for path in sorted(folder.glob("*")):
        if path.suffix in {".json", ".safetensors"}:
            total.update(f"{path.name}:{file_hash(path)}\n".encode())
    return total.hexdigest()


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    status = path.stat()
    if status.st_size < _LARGE:
        return sha256(path).hexdigest()
    identity = [str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ino]
    memo = cache.folder("hashes", cache.key(file=identity))
    if memo.is_file():
        return memo.read_text(encoding="ascii")
    digest = sha256(path).hexdigest()
    if time.time() - status.st_mtime > _SETTLED:
        with replacing(memo) as written:
            written.write_text(digest, encoding="ascii")
    return digest


def module_hash(config: Mapping[str, Any], module: Any) -> str:
    """Return the SHA-256 of a loaded module: its configuration, and its tensors by name."""
    total = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(module.state_dict().items()):
        total.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return total.hexdigest()


def tensors_digest(folder: Path) -> str:
    """Return the SHA-256 (16 hex digits) of the tensors in a folder's ``.safetensors`` files; empty if there are none.

    Names, metadata and the order of tensors do not count: releases of diffusers and transformers differ in
    them for the same weights.
    """
    files = sorted(folder.rglob("*.safetensors")) if folder.is_dir() else []
    tensors = sorted(found for file in files for found in _tensor_digests(file))
    return hashlib.sha256(b"".join(tensors)).hexdigest()[:16] if tensors else ""


def _tensor_digests(file: Path) -> list[bytes]:
    """Digest each tensor of a safetensors file: an 8-byte header length, a JSON header with offsets, then data."""
    try:
        with file.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
            start = stream.tell()
            digests = []
            for name, entry in header.items():
                if name != "__metadata__":
                    first, last = entry["data_offsets"]
                    stream.seek(start + first)
                    shape = f"{entry['dtype']}{entry['shape']}".encode()
                    digests.append(hashlib.sha256(shape + stream.read(last - first)).digest())
            return digests
    except (OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError, OverflowError) as error:
        raise FormatError(f"{file}: not a readable safetensors file: {error!r}") from None
