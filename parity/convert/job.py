"""What is one package that is to be written: its settings, its concrete features, its file name and texts?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from parity.contracts import ComponentContract
from parity.convert import compress
from parity.models.source import Source

ATTENTION: Final = ("ORIGINAL", "SPLIT_EINSUM", "SPLIT_EINSUM_V2")
FLOAT32: Final = ("timestep-embedding", "all")
"""What can stay in float32 in a program that a release wrote in float16."""
TARGETS: Final = {"macOS13": 7, "macOS14": 8, "macOS15": 9}
"""Deployment targets, with the version of the specification that each gives."""


@dataclass(frozen=True)
class TensorSpec:
    """A concrete input or output: name, shape, dtype (``FLOAT16`` or ``FLOAT32``) and what it holds."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    role: str = ""


@dataclass(frozen=True)
class Settings:
    """How to convert; every field goes into the cache key.

    Attributes
    ----------
    contract : str
        Release (``0.3.0``), window id (``C6``) or ``main``.
    attention : str
        One of :data:`ATTENTION`.
    attention_rank : int, optional
        Rank of the batched products in text encoders and VAEs, 3 or 4; what the release's time had by default, see
        :mod:`parity.convert.ranks`.
    batch : int
        Batch of the denoiser, 2 or (from C8c on) 1.
    height, width : int, optional
        Size of the image in pixels; the model's own by default.
    tokens : int, optional
        Token length of the denoiser.
    target : str
        Deployment target, a key of :data:`TARGETS`.
    outputs : str, optional
        ``FLOAT16`` or ``FLOAT32``; what the release wrote by default.
    output_shapes : bool
        False leaves the outputs' shapes out of the description, as coremltools 6.1 to 7.0b1 did.
    compression : str, optional
        One of :data:`parity.convert.compress.NAMES`.
    recipe : tuple of (str, int), optional
        Bits of each UNet layer, see :mod:`parity.convert.mixed`; instead of ``compression``.
    float32 : str, optional
        One of :data:`FLOAT32`; what the release computed in by default.
    """

    contract: str = "main"
    attention: str = "SPLIT_EINSUM"
    attention_rank: int | None = None
    batch: int = 2
    height: int | None = None
    width: int | None = None
    tokens: int | None = None
    target: str = "macOS13"
    outputs: str | None = None
    output_shapes: bool = True
    compression: str | None = None
    recipe: tuple[tuple[str, int], ...] | None = None
    float32: str | None = None


@dataclass(frozen=True)
class Job:
    """One package to be written.

    Attributes
    ----------
    key : str
        Component, for a ControlNet ``controlnet:ID``.
    contract : ComponentContract
    source : Source
        Model whose part is converted.
    part : str
        Its folder in the diffusers pipeline.
    folder : pathlib.Path or None
        Where the part lies when it is no part of ``source`` (a ControlNet, a custom VAE).
    inputs, outputs : tuple of TensorSpec
    file_name : str
    labels : mapping
        Fields of :class:`parity.convert.lower.Labels`.
    vocabulary : mapping
        ``size`` and ``end`` for sampling token ids.
    """

    key: str
    contract: ComponentContract
    source: Source = field(repr=False)
    part: str
    folder: Path | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    file_name: str
    labels: Mapping[str, Any]
    vocabulary: Mapping[str, int]
    settings: Settings

    @property
    def component(self) -> str:
        """Component without a ControlNet's identifier."""
        return self.contract.component

    @property
    def compute(self) -> str:
        """Precision of the program, ``FLOAT16`` or ``FLOAT32``: the release's, unless all was to stay in float32."""
        return "FLOAT32" if self.settings.float32 == "all" else self.contract.compute

    @property
    def weights(self) -> Path | None:
        """Folder of the part's weights; None for a model in memory."""
        if self.folder is not None or self.source.folder is None:
            return self.folder
        return self.source.folder / self.part

    @property
    def compression(self) -> str | None:
        """The compression that this component gets; ``mixed`` with a recipe."""
        if self.settings.recipe is not None:
            return "mixed" if self.component in {"unet", "refiner"} else None
        return compress.applies(self.settings.compression, self.component)
