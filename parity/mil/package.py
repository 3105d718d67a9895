"""What is in a Core ML model on disk, and how is one written?

:func:`load` opens an ``.mlpackage`` (or a compiled ``.mlmodelc`` folder, by :mod:`parity.mil.compiled`, or a bare
``.mlmodel``) without reading its weights; :func:`save` writes an ``.mlpackage``. Nothing outside the named folder is
read: item paths of ``Manifest.json`` and weight file names that leave it, also by symbolic links, are errors.

No torch and no coremltools package is imported here.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parity.errors import FormatError, MissingError, UsageError
from parity.files import refuse_pointer, replacing, resolved
from parity.mil import compiled, proto
from parity.mil.blobs import Weights
from parity.mil.model import Model

_AUTHOR = "com.apple.CoreML"
_SPECIFICATION = f"{_AUTHOR}/model.mlmodel"
_WEIGHTS = f"{_AUTHOR}/weights"
_MANIFEST_LIMIT = 1 << 20  # bytes; a manifest has a few hundred


def load(path: Path | str) -> Model:
    """Open a model without reading its weights.

    Parameters
    ----------
    path : path
        An ``.mlpackage`` folder, a compiled ``.mlmodelc`` folder or an ``.mlmodel`` file.

    Raises
    ------
    MissingError
        When nothing is there.
    FormatError
        When it is not a model, is damaged, or refers to files outside itself.
    """
    path = Path(path)
    if not path.exists():
        raise MissingError(f"{path}: no such model")
    if path.is_file():
        return Model(path, _specification(path), Weights(path.parent))
    if (path / "Manifest.json").exists():
        root = _root(path)
        return Model(path, _specification(root), Weights(root.parent))
    if (path / "model.mil").exists():
        return compiled.load(path)
    raise FormatError(
        f"{path}: neither an .mlpackage (Manifest.json) nor a compiled ML Program (model.mil); compiled models of "
        "other kinds are not supported"
    )


def _specification(path: Path) -> Any:
    refuse_pointer(path)
    try:
        return proto.model.Model.FromString(path.read_bytes())
    except proto.DecodeError as error:
        raise FormatError(f"{path}: not a Core ML model, or damaged, or nested too deeply: {error}") from None


def _root(package: Path) -> Path:
    """Path of the file that holds the specification, as the manifest gives it."""
    manifest = package / "Manifest.json"
    refuse_pointer(manifest)
    if manifest.stat().st_size > _MANIFEST_LIMIT:
        raise FormatError(f"{manifest}: {manifest.stat().st_size} bytes is no manifest")
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        relative = content["itemInfoEntries"][content["rootModelIdentifier"]]["path"]
        items = [entry["path"] for entry in content["itemInfoEntries"].values()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(
            f"{manifest}: rootModelIdentifier and its entry in itemInfoEntries with a path are needed: {error!r}"
        ) from None
    if not isinstance(relative, str) or "\0" in relative:
        raise FormatError(f"{manifest}: path of the root model is {relative!r:.200}, expected text")
    data = resolved(package / "Data")
    if resolved(package) not in data.parents:
        raise FormatError(f"{package}: its Data folder lies outside the package")
    root = resolved(data / relative)
    if data not in root.parents:
        raise FormatError(f"{manifest}: root model path {relative[:200]!r} leaves the package")
    if not root.is_file():
        raise FormatError(f"{manifest}: root model {relative[:200]!r} is missing from the package")
    for item in items:  # Core ML and coremltools refuse a package that lacks any
        if isinstance(item, str) and "\0" not in item and not (data / item).exists():
            raise FormatError(f"{manifest}: item {item[:200]!r} is missing from the package")
    return package / "Data" / relative  # for messages: as the model was named


def save(specification: Any, weights: Weights | Mapping[str, Path] | None, path: Path | str) -> Path:
    """Write an ``.mlpackage``; equal input gives equal bytes.

    Parameters
    ----------
    specification : parity.mil.proto.model.Model
        The whole message.
    weights : Weights, mapping of str to path, or None
        Weight files to copy: those of a loaded model, or files by the name the program uses
        (``@model_path/weights/weight.bin``).
    path : path
        Target, ending in ``.mlpackage``. An existing one is replaced at the very end.

    Returns
    -------
    pathlib.Path
        The target.

    Raises
    ------
    UsageError
        When the name does not end in ``.mlpackage``.
    FormatError
        When a weight file's name does not lie in the package's weights folder.
    """
    path = Path(path)
    if path.suffix != ".mlpackage":
        raise UsageError(f"{path}: the name of a package must end in .mlpackage")
    if isinstance(weights, Weights):
        files: Mapping[str, Path] = {name: weights.path(name) for name in weights.names()}
    else:
        files = weights or {}
    with replacing(path) as package:
        data = package / "Data"
        target = data / _SPECIFICATION
        target.parent.mkdir(parents=True)
        target.write_bytes(specification.SerializeToString(deterministic=True))
        for name, source in files.items():
            parts = name.removeprefix("@model_path/").split("/")
            if parts[0] != "weights" or len(parts) < 2 or {"", ".", ".."} & set(parts):
                raise FormatError(f"{path}: weight file {name[:200]!r} must lie under @model_path/weights/")
            copy = target.parent.joinpath(*parts)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
        write_manifest(package)
    return path


def write_manifest(package: Path) -> None:
    """Write ``Manifest.json`` into a package whose specification, and weights if it has any, are in their places."""
    items = {_SPECIFICATION: "CoreML Model Specification", _WEIGHTS: "CoreML Model Weights"}
    # Identifiers must be UUIDs but mean nothing; derived from the path they are the same at every saving.
    names = {
        item: str(uuid.uuid5(uuid.NAMESPACE_URL, item)).upper() for item in items if (package / "Data" / item).exists()
    }
    manifest = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": {
            name: {"author": _AUTHOR, "description": items[item], "name": item.rpartition("/")[2], "path": item}
            for item, name in names.items()
        },
        "rootModelIdentifier": names[_SPECIFICATION],
    }
    (package / "Manifest.json").write_text(json.dumps(manifest, indent=4) + "\n", encoding="utf-8")
