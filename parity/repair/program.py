"""Small, checked edits of an ML Program's protobuf: find, rename, cut, append.

An :class:`Editor` works on a copy of a model's specification. Each edit keeps three places in step: the operations of
the main block, the function's inputs and outputs, and the features of the description. Nothing here knows about Stable
Diffusion. Proved by tests: edited programs load and run in the reference runtime with equal values; not proved: that
Core ML accepts them, which needs a Mac.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from parity.errors import FormatError, UnsupportedError
from parity.mil import Model, dtypes, proto

_FEATURE_TYPES = {"fp16": 65552, "fp32": 65568, "int32": 131104}


class Editor:
    """An ML Program that is being edited.

    Parameters
    ----------
    model : Model
        Left as it is.

    Raises
    ------
    FormatError, UnsupportedError
        When it is no ML Program, or has several functions.
    """

    def __init__(self, model: Model) -> None:
        model.program  # noqa: B018 - an error when it is another kind of model
        self.path = model.path
        self.specification = proto.model.Model()
        self.specification.CopyFrom(model.specification)
        program = self.specification.mlProgram
        if list(program.functions) != ["main"]:
            raise UnsupportedError(f"{model.path}: functions {', '.join(program.functions)}; repair needs 'main' alone")
        self.function = program.functions["main"]
        self.block = self.function.block_specializations[self.function.opset]
        self.description = self.specification.description

    # --------------------------------------------------------------------------------------------------------- finding

    def producer(self, name: str) -> tuple[Any, int]:
        """Return the operation that computes a value, and which of its outputs it is."""
        for operation in self.block.operations:
            for index, output in enumerate(operation.outputs):
                if output.name == name:
                    return operation, index
        raise FormatError(f"{self.path}: no operation computes '{name}'")

    def computed(self, name: str) -> bool:
        """Tell whether an operation computes the value (otherwise it is an input)."""
        return any(output.name == name for operation in self.block.operations for output in operation.outputs)

    def consumers(self, name: str) -> list[Any]:
        """Return the operations that read a value."""
        return [op for op in self.block.operations if name in set(_reads(op))]

    def argument(self, operation: Any, parameter: str) -> str:
        """Return the name bound to a parameter; FormatError when it is missing, immediate or a list."""
        bindings = operation.inputs[parameter].arguments if parameter in operation.inputs else []
        if len(bindings) != 1 or bindings[0].WhichOneof("binding") != "name":
            raise FormatError(f"{self.path}: parameter '{parameter}' of {operation.type} is not one name")
        return str(bindings[0].name)

    def constant(self, operation: Any, parameter: str) -> Any:
        """Return the ``Value`` message of a constant parameter, given by name or at once; None when absent."""
        if parameter not in operation.inputs or len(operation.inputs[parameter].arguments) != 1:
            return None
        binding = operation.inputs[parameter].arguments[0]
        if binding.WhichOneof("binding") == "value":
            return binding.value
        if not self.computed(binding.name):
            return None
        source, _ = self.producer(binding.name)
        return source.attributes["val"] if source.type == "const" else None

    def type_of(self, name: str) -> tuple[str, tuple[int, ...]]:
        """Return dtype name (``fp16``) and shape of a value or input."""
        message = next((item.type for item in self.function.inputs if item.name == name), None)
        if message is None:
            operation, index = self.producer(name)
            message = operation.outputs[index].type
        tensor = message.tensorType
        return dtypes.BY_CODE[tensor.dataType].name, tuple(int(d.constant.size) for d in tensor.dimensions)

    # --------------------------------------------------------------------------------------------------------- editing

    def rename(self, old: str, new: str) -> None:
        """Give a value or input another name everywhere; a value that has the new name already steps aside."""
        if old == new:
            return
        if self._known(new):
            self.rename(new, self.fresh(f"{new}_before"))
        named = [item for operation in self.block.operations for item in (*bindings(operation), *operation.outputs)]
        for item in (*named, *self.function.inputs, *self.description.input, *self.description.output):
            if item.name == old:
                item.name = new
        for index, output in enumerate(self.block.outputs):
            if output == old:
                self.block.outputs[index] = new

    def redirect(self, old: str, new: str, *, but: Any) -> None:
        """Let all readers of a value read another one instead, one operation left out."""
        for operation in self.block.operations:
            if operation is not but:
                for binding in bindings(operation):
                    if binding.name == old:
                        binding.name = new

    def append(
        self,
        kind: str,
        name: str,
        inputs: Mapping[str, Any],
        *,
        dtype: str,
        shape: tuple[int, ...],
        first: bool = False,
    ) -> str:
        """Add an operation with one output at the end (or the beginning) and return the output's name.

        Parameters
        ----------
        kind : str
            Operator, e.g. ``mul``.
        name : str
            Output; made unique.
        inputs : mapping
            By parameter, names of values; numbers, other texts, booleans and lists of whole numbers become constants.
        dtype, shape
            Of the output.
        first : bool
            Put it before all other operations.
        """
        before = len(self.block.operations)
        bound = {
            key: value
            if isinstance(value, str) and self._known(value)
            else self._const(f"{name}_{key}", value, first=first)
            for key, value in inputs.items()
        }
        position = len(self.block.operations) - before if first else None  # behind its own constants
        operation = make(kind, self.fresh(name), bound, dtype=dtype, shape=shape)
        self._insert(operation, position)
        return str(operation.outputs[0].name)

    def append_split(self, source: str, names: tuple[str, str]) -> tuple[str, str]:
        """Add a split of a value into two halves along axis 1."""
        dtype, shape = self.type_of(source)
        half = (shape[0], shape[1] // 2, *shape[2:])
        axis, parts = self._const(f"{names[0]}_axis", 1), self._const(f"{names[0]}_num_splits", 2)
        fresh = (self.fresh(names[0]), self.fresh(names[1]))
        bound = {"axis": axis, "num_splits": parts, "x": source}
        operation = make("split", fresh[0], bound, dtype=dtype, shape=half)
        _declare(operation.outputs.add(name=fresh[1]).type, dtype, half)
        self.block.operations.append(operation)
        return fresh

    def set_outputs(self, names: list[str]) -> None:
        """Make these values the program's outputs and drop every operation and input that nothing needs."""
        del self.block.outputs[:]
        self.block.outputs.extend(names)
        needed, kept = set(names), []
        for operation in reversed(self.block.operations):
            if needed.intersection(output.name for output in operation.outputs):
                needed.update(_reads(operation))
                kept.append(operation)
        copies = []
        for operation in reversed(kept):
            copy = proto.mil.Operation()
            copy.CopyFrom(operation)
            copies.append(copy)
        del self.block.operations[:]
        self.block.operations.extend(copies)

    def set_inputs(self, features: list[tuple[str, str, tuple[int, ...], str]]) -> None:
        """Declare the program's inputs anew: (name, dtype, shape, text) each, in order."""
        del self.function.inputs[:]
        for name, dtype, shape, _ in features:
            _declare(self.function.inputs.add(name=name).type, dtype, shape)
        _describe(self.description.input, features)

    def describe_outputs(self, features: list[tuple[str, str, tuple[int, ...], str]]) -> None:
        """Declare the outputs of the description anew: (name, dtype, shape, text) each, in order."""
        _describe(self.description.output, features)

    def fresh(self, name: str) -> str:
        """Return the name, or the name with a number, whichever no value has yet."""
        number, candidate = 0, name
        while self._known(candidate):
            number += 1
            candidate = f"{name}_{number}"
        return candidate

    def _known(self, name: str) -> bool:
        return any(item.name == name for item in self.function.inputs) or self.computed(name)

    def _const(self, name: str, value: Any, *, first: bool = False) -> str:
        operation = make_constant(self.fresh(name), value)
        self._insert(operation, 0 if first else None)
        return str(operation.outputs[0].name)

    def _insert(self, operation: Any, position: int | None) -> None:
        if position is None:
            self.block.operations.append(operation)
        else:
            self.block.operations.insert(position, operation)


def make(kind: str, name: str, inputs: Mapping[str, str], *, dtype: str, shape: tuple[int, ...]) -> Any:
    """Return an operation with one output; ``inputs`` are names of values by parameter."""
    operation = proto.mil.Operation(type=kind)
    for key, value in inputs.items():
        operation.inputs[key].arguments.add(name=value)
    _declare(operation.outputs.add(name=name).type, dtype, shape)
    _label(operation, name)
    return operation


def make_constant(name: str, value: Any) -> Any:
    """Return a constant: a truth value, a text, a number (a fraction becomes float16) or a list of whole numbers."""
    operation = proto.mil.Operation(type="const")
    dtype, shape = _constant(operation.attributes["val"], value)
    _declare(operation.outputs.add(name=name).type, dtype, shape)
    _label(operation, name)
    return operation


def make_again(operation: Any, name: str, inputs: Mapping[str, str], shape: tuple[int, ...]) -> Any:
    """Return a copy of an operation with one output, some parameters bound to other values; the dtype stays."""
    copy = proto.mil.Operation()
    copy.CopyFrom(operation)
    for key, value in inputs.items():
        del copy.inputs[key].arguments[:]
        copy.inputs[key].arguments.add(name=value)
    output = copy.outputs[0]
    output.name = name
    _declare(output.type, dtypes.BY_CODE[output.type.tensorType.dataType].name, shape)
    _label(copy, name)
    return copy


def _label(operation: Any, name: str) -> None:
    label = operation.attributes["name"]
    _declare(label.type, "string", ())
    del label.immediateValue.tensor.strings.values[:]
    label.immediateValue.tensor.strings.values.append(name)


def bindings(operation: Any) -> Iterator[Any]:
    """Iterate over all named bindings of an operation and of the operations nested in it."""
    for argument in operation.inputs.values():
        for binding in argument.arguments:
            if binding.WhichOneof("binding") == "name":
                yield binding
    for block in operation.blocks:
        for nested in block.operations:
            yield from bindings(nested)


def _reads(operation: Any) -> Iterator[str]:
    for binding in bindings(operation):
        yield binding.name
    for block in operation.blocks:
        yield from block.outputs


def _declare(message: Any, dtype: str, shape: tuple[int, ...]) -> None:
    message.tensorType.dataType = dtypes.BY_NAME[dtype].code
    message.tensorType.rank = len(shape)
    del message.tensorType.dimensions[:]
    for size in shape:
        message.tensorType.dimensions.add().constant.size = size


def _describe(features: Any, entries: list[tuple[str, str, tuple[int, ...], str]]) -> None:
    del features[:]
    for name, dtype, shape, text in entries:
        feature = features.add(name=name, shortDescription=text)
        array = feature.type.multiArrayType
        array.dataType = _FEATURE_TYPES[dtype]
        array.shape.extend(shape)


def _constant(message: Any, value: Any) -> tuple[str, tuple[int, ...]]:
    """Fill a ``Value`` message; floating point numbers become float16."""
    tensor = message.immediateValue.tensor
    shape: tuple[int, ...] = ()
    if isinstance(value, bool):
        dtype = "bool"
        tensor.bools.values.append(value)
    elif isinstance(value, str):
        dtype = "string"
        tensor.strings.values.append(value)
    elif isinstance(value, int):
        dtype = "int32"
        tensor.ints.values.append(value)
    elif isinstance(value, float):
        import numpy as np

        dtype = "fp16"
        tensor.bytes.values = np.float16(value).tobytes()
    else:
        dtype, shape = "int32", (len(value),)
        tensor.ints.values.extend(value)
    _declare(message.type, dtype, shape)
    return dtype, shape
