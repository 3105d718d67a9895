"""Under which versions, on which machine, from which files was a result made?"""

from __future__ import annotations

import hashlib
import platform
import sys
from importlib import metadata
from pathlib import Path

import numpy as np

from parity import __version__

_PACKAGES = ("torch", "diffusers", "transformers", "coremltools", "numpy")


def environment() -> dict[str, str]:
    """Return versions and platform, without importing any of the packages."""
    versions = {"parity": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    system = (
        f"macOS {platform.mac_ver()[0]}" if sys.platform == "darwin" else f"{platform.system()} {platform.release()}"
    )
    return {**versions, "system": system, "machine": platform.machine()}


def digest(folder: Path, pattern: str = "*.safetensors") -> str:
    """Return the SHA-256 (16 hex digits) over names and contents of a model's weight files; empty if there are none."""
    sha = hashlib.sha256()
    files = sorted(folder.rglob(pattern)) if folder.is_dir() else []
    for file in files:
        sha.update(file.relative_to(folder).as_posix().encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                sha.update(block)
    return sha.hexdigest()[:16] if files else ""


def picture_digest(pixels: np.ndarray) -> str:
    """Return the SHA-256 of decoded pixels with their shape: independent of file format and metadata."""
    return hashlib.sha256(
        f"{pixels.shape}{pixels.dtype.name}".encode() + np.ascontiguousarray(pixels).tobytes()
    ).hexdigest()
