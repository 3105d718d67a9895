"""Where do the protobuf messages of Core ML models come from, without importing coremltools?

coremltools ships generated modules for its ``.proto`` files. Importing them by their own name runs
``coremltools/__init__``, which costs seconds and pulls torch. The generated modules need only ``google.protobuf``, so
they are loaded here under a private package name from coremltools' folder.

Proved by tests: a real ``import coremltools`` before or after this module works, and both see the same message classes
(protobuf keeps one class per descriptor of its default pool).
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

from parity.errors import MissingError

_ALIAS = "parity.mil._generated"


def _load(name: str) -> Any:
    if _ALIAS not in sys.modules:
        spec = importlib.util.find_spec("coremltools")  # finds the folder, runs nothing of it
        locations = list(spec.submodule_search_locations or ()) if spec is not None else []
        folder = next((path for path in (Path(place) / "proto" for place in locations) if path.is_dir()), None)
        if folder is None:
            raise MissingError(
                "coremltools is not installed; its protobuf messages are needed: pip install coremltools"
            )
        package = types.ModuleType(_ALIAS)
        package.__path__ = [str(folder)]
        package.__spec__ = importlib.machinery.ModuleSpec(_ALIAS, None, is_package=True)
        sys.modules[_ALIAS] = package
    return importlib.import_module(f"{_ALIAS}.{name}")


mil: Any = _load("MIL_pb2")
"""Messages of ML Programs: ``Program``, ``Function``, ``Block``, ``Operation``, ``Value``, ``ValueType``, …"""
model: Any = _load("Model_pb2")
"""Messages of models: ``Model``, ``ModelDescription``, ``FeatureDescription``, ``Metadata``, …"""
features: Any = _load("FeatureTypes_pb2")
"""Messages of feature types: ``FeatureType``, ``ArrayFeatureType``, ``ImageFeatureType``, …"""
DecodeError: type[Exception] = importlib.import_module("google.protobuf.message").DecodeError
"""What parsing a damaged message raises."""
