"""Under which versions, on which machine, from which files was a result made?"""

from __future__ import annotations

import hashlib
import platform
import sys
from importlib import metadata

import numpy as np

from parity import __version__
from parity.models.content import tensors_digest as digest

__all__ = ["digest", "environment", "picture_digest"]

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


def picture_digest(pixels: np.ndarray) -> str:
    """Return the SHA-256 of decoded pixels with their shape: independent of file format and metadata."""
    return hashlib.sha256(
        f"{pixels.shape}{pixels.dtype.name}".encode() + np.ascontiguousarray(pixels).tobytes()
    ).hexdigest()
