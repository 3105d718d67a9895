"""What is a Core ML model as data: its functions and their features, its metadata, its weights, its digest?

:func:`parity.mil.load` makes one of a package or of a compiled folder. Weights are not read before they are asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity.errors import FormatError, UsageError
from parity.files import sha256
from parity.mil.blobs import Weights, weight_problem
from parity.mil.features import Feature, feature
from parity.mil.signature import Reconciled, reconcile

if TYPE_CHECKING:
    from hashlib import _Hash as Hash


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
        return self._with_weights(hashlib.sha256(self.specification.SerializeToString(deterministic=True)))

    def program_digest(self) -> str:
        """Return the SHA-256 of program and weight files: what is computed, whatever the description says of it."""
        return self._with_weights(hashlib.sha256(self.program.SerializeToString(deterministic=True)))

    def _with_weights(self, total: Hash) -> str:
        for name in self.weights.names():
            total.update(name.encode() + b"\0" + sha256(self.weights.path(name)).digest())
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
