"""What is in a Core ML model on disk, and how is one written?

:func:`load` opens an ``.mlpackage`` (or a compiled ``.mlmodelc`` folder, by :mod:`parity.mil.compiled`, or a bare
``.mlmodel``) without reading its weights; :func:`save` writes an ``.mlpackage``. Nothing outside the named folder is
read: item paths of ``Manifest.json`` and weight file names that leave it, also by symbolic links, are errors.

No torch and no coremltools package is imported here.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from parity.errors import FormatError, MissingError, UsageError
from parity.files import refuse_pointer, replacing
from parity.mil import proto
from parity.mil.blobs import Weights, weight_problem
from parity.mil.features import Feature, feature
from parity.mil.signature import Reconciled, reconcile

_AUTHOR = "com.apple.CoreML"
_SPECIFICATION = f"{_AUTHOR}/model.mlmodel"
_WEIGHTS = f"{_AUTHOR}/weights"
_MANIFEST_LIMIT = 1 << 20  # bytes; a manifest has a few hundred


@dataclass(frozen=True)
class Metadata:
    """What a model says about itself."""

    author: str
    license: str
    version: str
    short_description: str
    user_defined: Mapping[str, str]


@dataclass(frozen=True)
class Function:
    """What one function of a model takes, gives and remembers."""

    name: str
    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    states: tuple[Feature, ...]


@dataclass(frozen=True)
class Model:
    """A Core ML model as data.

    Attributes
    ----------
    path : pathlib.Path
        What the user named.
    specification : parity.mil.proto.model.Model
        The whole protobuf message; treat it as read-only or copy it.
    weights : Weights
        Its weight files, mapped when first used.
    compiled : bool
        True when it was read from a ``.mlmodelc`` folder.
    """

    path: Path
    specification: Any = field(repr=False)
    weights: Weights = field(repr=False)
    compiled: bool = False

    @cached_property
    def functions(self) -> dict[str, Function]:
        """All functions by name, in the description's order; one called ``main`` for models without several.

        What the description leaves out or says otherwise is taken from the program, see
        :mod:`parity.mil.signature`.
        """
        return {name: Function(name, it.inputs, it.outputs, it.states) for name, it in self._signatures.items()}

    @cached_property
    def contradictions(self) -> tuple[str, ...]:
        """Where the description says otherwise than the program, one sentence each; empty where they agree."""
        several = len(self._signatures) > 1
        return tuple(
            f"function {name!r}: {text}" if several else text
            for name, found in self._signatures.items()
            for text in found.contradictions
        )

    @cached_property
    def _signatures(self) -> dict[str, Reconciled]:
        description = self.specification.description
        listed = list(description.functions)
        if not listed:
            return {"main": self._signature("main", description)}
        return {item.name: self._signature(item.name, item) for item in listed}

    def _signature(self, name: str, message: Any) -> Reconciled:
        where = str(self.path)
        described = Reconciled(
            tuple(feature(item, where) for item in message.input),
            tuple(feature(item, where) for item in message.output),
            tuple(feature(item, where) for item in message.state),
        )
        functions = self.specification.mlProgram.functions if self.kind == "mlProgram" else {}
        return reconcile(described, functions[name]) if name in functions else described

    @property
    def default_function(self) -> str:
        """Name of the function that predictions use when none is named."""
        return self.specification.description.defaultFunctionName or next(iter(self.functions))

    def function(self, name: str | None = None) -> Function:
        """Return a function's features; UsageError names those that exist."""
        name = name or self.default_function
        if name not in self.functions:
            raise UsageError(f"{self.path}: no function {name!r}; it has {', '.join(self.functions)}")
        return self.functions[name]

    @property
    def inputs(self) -> tuple[Feature, ...]:
        """Inputs of the default function, in order."""
        return self.function().inputs

    @property
    def outputs(self) -> tuple[Feature, ...]:
        """Outputs of the default function, in order."""
        return self.function().outputs

    @property
    def states(self) -> tuple[Feature, ...]:
        """States of the default function, in order."""
        return self.function().states

    @property
    def kind(self) -> str:
        """Field of the protobuf that holds the model: ``mlProgram``, ``neuralNetwork``, ``pipeline``, …"""
        return self.specification.WhichOneof("Type") or "empty"

    @property
    def program(self) -> Any:
        """The ``MILSpec.Program`` message; FormatError when the model is of another kind."""
        if self.kind != "mlProgram":
            raise FormatError(f"{self.path}: {_no_program(self.kind)}")
        return self.specification.mlProgram

    @cached_property
    def metadata(self) -> Metadata:
        """Author, licence, version, description and user-defined entries."""
        message = self.specification.description.metadata
        return Metadata(
            message.author,
            message.license,
            message.versionString,
            message.shortDescription,
            dict(sorted(message.userDefined.items())),
        )

    def require_weights(self) -> None:
        """Check that the weight files that the program refers to are there and reach to its last weight.

        Raises
        ------
        FormatError
            When one is missing, cut off or damaged at its last record; the message names the file.
        """
        if self.kind == "mlProgram" and (problem := weight_problem(_last_weights(self.program), self.weights)):
            raise FormatError(problem)

    def digest(self) -> str:
        """Return the SHA-256 of specification and weight files, in hexadecimal digits.

        The specification is serialized deterministically, so identifiers that every saving invents and the order of
        maps do not count. A package and a copy of it have one digest; a compiled folder has another.
        """
        total = hashlib.sha256(self.specification.SerializeToString(deterministic=True))
        for name in self.weights.names():
            with self.weights.path(name).open("rb") as file:
                part = hashlib.sha256()
                while chunk := file.read(1 << 22):
                    part.update(chunk)
            total.update(name.encode() + b"\0" + part.digest())
        return total.hexdigest()


def _last_weights(program: Any) -> dict[str, tuple[int, int]]:
    """Offset of the last record that a program refers to, by weight file; sizes are left to the record."""
    last: dict[str, tuple[int, int]] = {}
    for function in program.functions.values():
        blocks = [block for opset, block in function.block_specializations.items() if opset == function.opset]
        while blocks:
            for operation in blocks.pop().operations:
                blocks.extend(operation.blocks)
                for value in stored_values(operation):
                    blob = value.blobFileValue
                    last[blob.fileName] = max(last.get(blob.fileName, (0, 0)), (blob.offset, 0))
    return last


def stored_values(operation: Any) -> Iterator[Any]:
    """Yield the values of an operation that lie in a weight file: of a constant, or of a compressed weight."""
    found = list(operation.attributes.values())
    found += [b.value for a in operation.inputs.values() for b in a.arguments if b.WhichOneof("binding") == "value"]
    yield from (value for value in found if value.WhichOneof("value") == "blobFileValue")


def _no_program(kind: str) -> str:
    if kind.startswith("pipeline"):
        return "a pipeline of several models; it has no program of its own, look at its models one by one"
    if kind == "empty":
        return "the file describes no model; it is damaged, or an unfinished download"
    return f"a model of kind {kind}, not an ML Program; convert it again for iOS 15 or later"


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
        from parity.mil import compiled

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
    data = (package / "Data").resolve()
    if package.resolve() not in data.parents:
        raise FormatError(f"{package}: its Data folder lies outside the package")
    root = (data / relative).resolve()
    if data not in root.parents:
        raise FormatError(f"{manifest}: root model path {relative[:200]!r} leaves the package")
    if not root.is_file():
        raise FormatError(f"{manifest}: root model {relative[:200]!r} is missing from the package")
    for item in items:  # Core ML and coremltools refuse a package that lacks any
        if isinstance(item, str) and "\0" not in item and not (data / item).exists():
            raise FormatError(f"{manifest}: item {item[:200]!r} is missing from the package")
    return root


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
        _write_manifest(package, with_weights=bool(files))
    return path


def _write_manifest(package: Path, *, with_weights: bool) -> None:
    items = {_SPECIFICATION: ("model.mlmodel", "CoreML Model Specification")}
    if with_weights:
        items[_WEIGHTS] = ("weights", "CoreML Model Weights")
    # Identifiers must be UUIDs but mean nothing; derived from the path they are the same at every saving.
    names = {item: str(uuid.uuid5(uuid.NAMESPACE_URL, item)).upper() for item in items}
    manifest = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": {
            names[item]: {"author": _AUTHOR, "description": text, "name": name, "path": item}
            for item, (name, text) in items.items()
        },
        "rootModelIdentifier": names[_SPECIFICATION],
    }
    (package / "Manifest.json").write_text(json.dumps(manifest, indent=4) + "\n", encoding="utf-8")
