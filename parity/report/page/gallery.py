"""How does a page hold its pictures, each of them once?

Pictures are named by the SHA-256 of their PNG file, as in run folders and ``report.json``. The page holds each once as
lossless WebP, which is smaller than PNG. What exceeds the page's budget (pictures of full-size models) lies beside it
as ``pictures/SHA256.png``; pictures are given worst cells first, so those are in the page.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from parity.files import replacing

Maps = TypeVar("Maps")

BUDGET: Final = 9 << 19
"""Bytes of pictures that a page holds, before base64."""


@dataclass
class Gallery:
    """The pictures of a page.

    Attributes
    ----------
    folder : path
        The page's.
    budget : int
        Bytes of pictures that the page may hold.
    sources : dict of str to str
        What the page asks for: name to a data URI, or to a path beside the page.
    """

    folder: Path
    budget: int = BUDGET
    sources: dict[str, str] = field(default_factory=dict)
    _bytes: int = 0
    _pairs: dict[tuple[str, str], Any] = field(default_factory=dict)

    @property
    def beside(self) -> int:
        """Number of pictures that lie beside the page."""
        return sum(not source.startswith("data:") for source in self.sources.values())

    def add(self, png: bytes) -> str:
        """Take a PNG file and return its name."""
        name = hashlib.sha256(png).hexdigest()
        if name not in self.sources:
            kind, content = _smaller(png)
            self.sources[name] = self._held(name, kind, content) or self._laid(name, png)
        return name

    def draw(self, pixels: np.ndarray) -> str:
        """Take pixels, uint8 (height, width) or (height, width, 3), and return their name."""
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        return self.add(buffer.getvalue())

    def once(self, pair: tuple[str, str], make: Callable[[], Maps]) -> Maps:
        """Return what was made of two pictures before, or make it: cells of one case often show the same two."""
        if pair not in self._pairs:
            self._pairs[pair] = make()
        maps: Maps = self._pairs[pair]
        return maps

    def _held(self, name: str, kind: str, content: bytes) -> str:
        if self._bytes + len(content) > self.budget:
            return ""
        self._bytes += len(content)
        return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"

    def _laid(self, name: str, png: bytes) -> str:
        target = self.folder / "pictures" / f"{name}.png"
        if not target.is_file() or target.read_bytes() != png:
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target) as path:
                path.write_bytes(png)
        return f"pictures/{name}.png"


def _smaller(png: bytes) -> tuple[str, bytes]:
    """Return a picture as lossless WebP where that is smaller and Pillow can write it."""
    from PIL import Image, features

    if not features.check("webp"):
        return "png", png
    buffer = io.BytesIO()
    options: dict[str, Any] = {"lossless": True, "quality": 50, "method": 2, "exact": True}
    Image.open(io.BytesIO(png)).convert("RGB").save(buffer, "WEBP", **options)
    return ("webp", buffer.getvalue()) if len(buffer.getvalue()) < len(png) else ("png", png)
