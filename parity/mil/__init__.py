"""ML Programs as data and as something that runs.

Reading (:func:`load`, :func:`save`) needs neither torch nor coremltools' package; :class:`Session` imports torch when
it is first used.
"""

from __future__ import annotations

from parity.mil.blobs import BlobFile, Weights
from parity.mil.features import Feature, Range
from parity.mil.package import Function, Metadata, Model, load, save

__all__ = [
    "BlobFile",
    "Feature",
    "Function",
    "Metadata",
    "Model",
    "Range",
    "Weights",
    "load",
    "save",
]
