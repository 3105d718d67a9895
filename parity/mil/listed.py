"""What is in a program, as data? Its features, operations and counts, of which JSON is made.

Read from the protobuf alone, without torch; :mod:`parity.mil.describe` makes texts for readers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from parity.errors import ParityError, UsageError
from parity.mil import values
from parity.mil.features import Feature
from parity.mil.messages import (
    arguments,
    blocks,
    constant,
    is_constant,
    module_of,
    name_of,
    result_types,
    walk,
    weight_types,
)
from parity.mil.model import Metadata, Model


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes
    ----------
    name, operator : str
        Its name, and the operator that it applies.
    module : str
        The torch module whose weights it reads; empty where names do not say.
    depth : int
        0 in the function itself, more in blocks of conditions and loops.
    inputs : dict of str to tuple of str
        By parameter: ``%NAME`` for a value of the program, else the constant, a long one by its type.
    outputs : dict of str to str
        Type of each value that it gives.
    """

    name: str
    operator: str
    module: str
    depth: int
    inputs: dict[str, tuple[str, ...]]
    outputs: dict[str, str]


@dataclass(frozen=True)
class Stored:
    """Weights of one dtype in files: their number, and their bytes."""

    count: int
    bytes: int


@dataclass(frozen=True)
class ProgramFunction:
    """One function of a program.

    Attributes
    ----------
    name, opset : str
        E.g. ``main`` and ``CoreML5``.
    inputs, outputs, states : tuple of Feature
        What the model's description declares.
    returns : tuple of str
        Names of the values that the program gives.
    operators, results : dict of str to int
        Number of operations by operator, and of their results by dtype; constants left out.
    weights : dict of str to Stored
        By dtype.
    operations : tuple of Operation
        In the order of execution, constants left out; empty where counts alone were asked for.
    """

    name: str
    opset: str
    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    states: tuple[Feature, ...]
    returns: tuple[str, ...]
    operators: dict[str, int]
    results: dict[str, int]
    weights: dict[str, Stored]
    operations: tuple[Operation, ...]


@dataclass(frozen=True)
class WeightFile:
    """A file of weights; ``problem`` says why it cannot be read, and is empty where it can."""

    bytes: int
    records: int
    problem: str


@dataclass(frozen=True)
class Program:
    """A model's program.

    Attributes
    ----------
    path : str
        As the user wrote it.
    compiled : bool
        Whether it is a ``.mlmodelc``.
    specification : int
        Version of Core ML's format.
    metadata : Metadata
        Author, licence, version, description, and the user's own.
    functions : tuple of ProgramFunction
        By name.
    files : dict of str to WeightFile
        By their names in the model.
    """

    path: str
    compiled: bool
    specification: int
    metadata: Metadata
    functions: tuple[ProgramFunction, ...]
    files: dict[str, WeightFile]


def program(model: Model, function: str | None = None, *, only: str = "", counts: bool = False) -> Program:
    """Return a model's program as data.

    Parameters
    ----------
    model : Model
        An ML Program.
    function : str, optional
        Only this one.
    only : str
        Name of an operation or value: of the operations this one alone.
    counts : bool
        Leave the operations out.

    Raises
    ------
    UsageError
        No such function, or no such operation or value.
    FormatError
        The model is no ML Program, or its program is damaged.
    """
    found = tuple(_function(model, name, block, only, counts) for name, block in blocks(model, function).items())
    if only and not any(one.operations for one in found):
        raise no_operation(model, only)
    files = {file: _file(model, file) for file in model.weights.names()}
    version = model.specification.specificationVersion
    return Program(str(model.path), model.compiled, version, model.metadata, found, files)


def no_operation(model: Model, wanted: str) -> UsageError:
    """Return the error for a name that stands for nothing."""
    return UsageError(f"{model.path}: no operation or value {wanted!r}; 'parity mil show' lists them")


def _function(model: Model, name: str, block: Any, only: str, counts: bool) -> ProgramFunction:
    constants = {o.outputs[0].name: o.attributes["val"] for o, _ in walk(block) if is_constant(o)}
    every = [op for op, _ in walk(block)]
    weights, sizes = weight_types(every)
    wanted = [] if counts and not only else list(_wanted(block, only))
    features = model.functions.get(name)
    return ProgramFunction(
        name,
        model.program.functions[name].opset,
        features.inputs if features else (),
        features.outputs if features else (),
        features.states if features else (),
        returns=tuple(block.outputs),
        operators=dict(Counter(op.type for op in every if op.type != "const").most_common()),
        results=dict(result_types(every).most_common()),
        weights={kind: Stored(count, sizes[kind]) for kind, count in weights.most_common()},
        operations=tuple(_operation(op, depth, constants) for op, depth in wanted),
    )


def _wanted(block: Any, only: str) -> Iterator[tuple[Any, int]]:
    """Yield the operations that are no constants, or those that have a name or give a value of it."""
    for op, depth in walk(block):
        if only in (name_of(op), *(output.name for output in op.outputs)) if only else op.type != "const":
            yield op, depth


def _operation(op: Any, depth: int, constants: dict[str, Any]) -> Operation:
    outputs = {output.name: str(values.type_of(output.type, output.name)) for output in op.outputs}
    given = {key: tuple(parts) for key, parts in arguments(op, constants)}
    if is_constant(op):
        given["val"] = (constant(op.attributes["val"], name_of(op)),)
    return Operation(name_of(op), op.type, module_of(op), depth, given, outputs)


def _file(model: Model, name: str) -> WeightFile:
    try:
        file = model.weights.file(name)
        return WeightFile(file.size, file.count, "")
    except ParityError as error:
        return WeightFile(0, 0, str(error))
