"""How does a person read a program?

Lines of text from the protobuf alone, without torch: what the model takes and gives, its operations with types, the
constants that matter, and counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from parity import quiet
from parity.errors import ParityError
from parity.mil import values
from parity.mil.listed import no_operation
from parity.mil.messages import (
    arguments,
    attributes,
    blocks,
    constant,
    is_constant,
    module_of,
    name_of,
    result_types,
    walk,
    weight_types,
)
from parity.mil.model import Model


def _arguments(operation: Any, constants: dict[str, Any]) -> str:
    found = arguments(operation, constants)
    return ", ".join(f"{key}={parts[0] if len(parts) == 1 else '(' + ', '.join(parts) + ')'}" for key, parts in found)


def header(model: Model) -> Iterator[str]:
    """Yield what the model takes, gives and says about itself."""
    form = "compiled" if model.compiled else "package"
    yield f"{model.path}: {model.kind}, {form}, specification {model.specification.specificationVersion}"
    about = model.metadata
    for label, text in (("author", about.author), ("version", about.version), ("licence", about.license)):
        if text:
            yield f"  {label}: {text}"
    if about.short_description:
        yield f"  {about.short_description}"
    for key, value in about.user_defined.items():
        yield f"  {key}: {value}"
    for function in model.functions.values():
        yield f"function {function.name}"
        for label, features in (("in", function.inputs), ("out", function.outputs), ("state", function.states)):
            for feature in features:
                yield f"  {label:<6}{feature}"


def operations(model: Model, function: str | None = None) -> Iterator[str]:
    """Yield one line for each operation that is not a constant."""
    for name, block in blocks(model, function).items():
        yield f"function {name} ({model.program.functions[name].opset})"
        constants = {o.outputs[0].name: o.attributes["val"] for o, _ in walk(block) if is_constant(o)}
        for operation, depth in walk(block):
            if operation.type == "const":
                continue
            outputs = ", ".join(f"%{o.name}: {values.type_of(o.type, o.name)}" for o in operation.outputs)
            module = module_of(operation)
            line = f"{outputs}{' = ' if outputs else ''}{operation.type}({_arguments(operation, constants)})"
            yield "  " * (depth + 1) + line + (f"  # {module}" if module else "")
        yield f"  -> ({', '.join(f'%{name}' for name in block.outputs)})"


def operation(model: Model, wanted: str, function: str | None = None) -> Iterator[str]:
    """Yield everything about the operation or value ``wanted``."""
    found = False
    for name, block in blocks(model, function).items():
        constants = {o.outputs[0].name: o.attributes["val"] for o, _ in walk(block) if is_constant(o)}
        for op, _ in walk(block):
            if wanted != name_of(op) and wanted not in [output.name for output in op.outputs]:
                continue
            found = True
            yield f"{op.type} {name_of(op)!r} in function {name}"
            if module := module_of(op):
                yield f"  module  {module}"
            if is_constant(op):
                yield f"  value   {constant(op.attributes['val'], wanted)}"
                yield from _statistics(model, op.attributes["val"], wanted)
            yield from _read(op, constants)
            yield from _given(op, block)
    if not found:
        raise no_operation(model, wanted)


def _read(op: Any, constants: Mapping[str, Any]) -> Iterator[str]:
    """Yield what an operation takes: its attributes, and its inputs with the values of those that are constants."""
    for key, value in attributes(op):
        yield f"  in      {key} {constant(value, key)}"
    for key in sorted(op.inputs):
        for binding in op.inputs[key].arguments:
            known = constants.get(binding.name)
            if binding.WhichOneof("binding") == "value":
                known = binding.value
            shown = constant(known, key) if known is not None else ""
            yield f"  in      {key} = {binding.name} {shown}".rstrip()


def _given(op: Any, block: Any) -> Iterator[str]:
    """Yield what an operation gives, and who reads it."""
    for output in op.outputs:
        yield f"  out     {output.name}: {values.type_of(output.type, output.name)}"
        for reader, _ in walk(block):
            if any(b.name == output.name for a in reader.inputs.values() for b in a.arguments):
                yield f"  used by {reader.type} {name_of(reader)!r}"
        if output.name in block.outputs:
            yield "  is an output of the function"


def _statistics(model: Model, message: Any, where: str) -> Iterator[str]:
    array = values.decode(message, where, model.weights)
    if getattr(array, "size", 0) > 1 and array.dtype.kind in "fiu":
        wide = quiet.float64(array)
        yield f"  range   {wide.min():.6g} to {wide.max():.6g}, mean {wide.mean():.6g}, deviation {wide.std():.6g}"


def statistics(model: Model, function: str | None = None) -> Iterator[str]:
    """Yield counts: operations by type, results by dtype, weights by dtype with their size."""
    for name, block in blocks(model, function).items():
        operations = [op for op, _ in walk(block)]
        kinds = Counter(op.type for op in operations if op.type != "const")
        yield f"function {name} ({model.program.functions[name].opset}): {sum(kinds.values())} operations"
        yield from _counted(kinds)
        yield "results"
        yield from _counted(result_types(operations))
        yield "weights in files"
        weights, sizes = weight_types(operations)
        for kind, count in weights.most_common():
            yield f"  {count:>6}  {kind:<10}{sizes[kind] / 1e6:>12,.3f} MB"
    for file in model.weights.names():
        try:
            yield f"{file}: {model.weights.file(file).size / 1e6:,.3f} MB, {model.weights.file(file).count} records"
        except ParityError as error:
            yield f"{file}: {error}"


def _counted(counts: Counter[str]) -> Iterator[str]:
    for kind, count in counts.most_common():
        yield f"  {count:>6}  {kind}"
