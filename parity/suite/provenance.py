"""Under which versions, on which machine, from which files was a result made?"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from importlib import metadata
from pathlib import Path

import numpy as np

from parity import __version__
from parity.errors import FormatError

_PACKAGES = ("torch", "diffusers", "transformers", "coremltools", "numpy")


def environment() -> dict[str, str]:
    """Return versions and platform, without importing any of the packages."""
    versions = {"parity": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    # away from macOS the C library is named: it decides the last bits of logarithms and sines
    mac = sys.platform == "darwin"
    system = f"macOS {platform.mac_ver()[0]}" if mac else " ".join((platform.system(), *platform.libc_ver()))
    return {**versions, "system": system, "machine": platform.machine()}


def digest(folder: Path) -> str:
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


def picture_digest(pixels: np.ndarray) -> str:
    """Return the SHA-256 of decoded pixels with their shape: independent of file format and metadata."""
    return hashlib.sha256(
        f"{pixels.shape}{pixels.dtype.name}".encode() + np.ascontiguousarray(pixels).tobytes()
    ).hexdigest()
