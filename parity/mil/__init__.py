"""ML Programs as data and as something that runs.

Reading (:func:`load`, :func:`save`) needs neither torch nor coremltools' package; :class:`Session` imports torch when
it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from parity.mil.blobs import BlobFile, Weights
from parity.mil.features import Feature, Range
from parity.mil.model import Function, Metadata, Model
from parity.mil.package import load, save
from parity.mil.profiles import PROFILES

if TYPE_CHECKING:
    from parity.mil.events import Event
    from parity.mil.session import Session, States

__all__ = [
    "PROFILES",
    "BlobFile",
    "Event",
    "Feature",
    "Function",
    "Metadata",
    "Model",
    "Range",
    "Session",
    "States",
    "Weights",
    "load",
    "save",
]

_LATE = {"Session": "session", "States": "session", "Event": "events"}  # they import torch


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(importlib.import_module(f"parity.mil.{_LATE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
