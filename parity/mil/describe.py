"""How does a person read a program?

Lines of text from the protobuf alone, without torch: what the model takes and gives, its operations with types, the
constants that matter, and counts. Where names of weights follow the module tree (programs converted from TorchScript),
the module of an operation is derived from them.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from parity.errors import ParityError, UsageError
from parity.mil import values
from parity.mil.graph import specialization
from parity.mil.model import Model, stored_values

_PARAMETER = re.compile(
    r"_(?:weight|bias|gamma|beta|mean|variance|running_mean|running_var)"
    r"(?:_\d+)?(?:_promoted)?(?:_to_fp\d+)?(?:_(?:palettized|quantized|sparsified|compressed))*(?:_\d+)?$"
)
_SHORT = 8  # elements of a constant that are printed


def _name(operation: Any) -> str:
    strings = ()
    if "name" in operation.attributes:
        strings = operation.attributes["name"].immediateValue.tensor.strings.values
    return str(strings[0]) if strings else ", ".join(output.name for output in operation.outputs)


def module_of(operation: Any) -> str:
    """Return the torch module that an operation's weights belong to, ``""`` where the names do not say.

    Dots of the module path are underscores in the names, as the converter writes them; before a leading digit, as in
    members of a Sequential, it puts ``var_``, which is taken off.
    """
    for argument in operation.inputs.values():
        for binding in argument.arguments:
            if found := _PARAMETER.search(binding.name):
                return re.sub(r"^var_(?=\d)", "", binding.name[: found.start()])
    return ""


def _walk(block: Any, depth: int = 0) -> Iterator[tuple[Any, int]]:
    for operation in block.operations:
        yield operation, depth
        for inner in operation.blocks:
            if depth < 32:
                yield from _walk(inner, depth + 1)


def _blocks(model: Model, function: str | None) -> dict[str, Any]:
    functions = model.program.functions
    names = [function] if function else sorted(functions)
    for name in names:
        if name not in functions:
            raise UsageError(f"{model.path}: no function {name!r}; it has {', '.join(sorted(functions))}")
    return {name: specialization(functions[name], f"{model.path}: function {name!r}") for name in names}


def _constant(message: Any, where: str) -> str:
    if message.WhichOneof("value") == "blobFileValue":
        return f"<{values.type_of(message.type, where)} at {message.blobFileValue.offset}>"
    value = values.decode(message, where)
    size = getattr(value, "size", 1)
    if size > _SHORT:
        return f"<{values.type_of(message.type, where)}>"
    return repr(value.tolist() if hasattr(value, "tolist") else value)


def _attributes(operation: Any) -> Iterator[tuple[str, Any]]:
    """Yield attributes that are parameters: weights compressed for iOS 16 keep table, indices and shape there."""
    for key in sorted(operation.attributes):
        if key != "name" and not (key == "val" and operation.type == "const"):
            yield key, operation.attributes[key]


def _arguments(operation: Any, constants: dict[str, Any]) -> str:
    shown = [f"{key}={_constant(value, key)}" for key, value in _attributes(operation)]
    for key in sorted(operation.inputs):
        parts = []
        for binding in operation.inputs[key].arguments:
            if binding.WhichOneof("binding") == "value":
                parts.append(_constant(binding.value, key))
            elif binding.name in constants:
                parts.append(_constant(constants[binding.name], binding.name))
            else:
                parts.append(f"%{binding.name}")
        shown.append(f"{key}={parts[0] if len(parts) == 1 else '(' + ', '.join(parts) + ')'}")
    return ", ".join(shown)


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
    for name, block in _blocks(model, function).items():
        yield f"function {name} ({model.program.functions[name].opset})"
        constants = {o.outputs[0].name: o.attributes["val"] for o, _ in _walk(block) if _is_constant(o)}
        for operation, depth in _walk(block):
            if operation.type == "const":
                continue
            outputs = ", ".join(f"%{o.name}: {values.type_of(o.type, o.name)}" for o in operation.outputs)
            module = module_of(operation)
            line = f"{outputs}{' = ' if outputs else ''}{operation.type}({_arguments(operation, constants)})"
            yield "  " * (depth + 1) + line + (f"  # {module}" if module else "")
        yield f"  -> ({', '.join(f'%{name}' for name in block.outputs)})"


def _is_constant(operation: Any) -> bool:
    return bool(operation.type == "const" and len(operation.outputs) == 1 and "val" in operation.attributes)


def operation(model: Model, wanted: str, function: str | None = None) -> Iterator[str]:
    """Yield everything about the operation or value ``wanted``."""
    found = False
    for name, block in _blocks(model, function).items():
        constants = {o.outputs[0].name: o.attributes["val"] for o, _ in _walk(block) if _is_constant(o)}
        for op, _ in _walk(block):
            if wanted != _name(op) and wanted not in [output.name for output in op.outputs]:
                continue
            found = True
            yield f"{op.type} {_name(op)!r} in function {name}"
            if module := module_of(op):
                yield f"  module  {module}"
            if _is_constant(op):
                yield f"  value   {_constant(op.attributes['val'], wanted)}"
                yield from _statistics(model, op.attributes["val"], wanted)
            yield from _read(op, constants)
            yield from _given(op, block)
    if not found:
        raise UsageError(f"{model.path}: no operation or value {wanted!r}; 'parity mil show' lists them")


def _read(op: Any, constants: Mapping[str, Any]) -> Iterator[str]:
    """Yield what an operation takes: its attributes, and its inputs with the values of those that are constants."""
    for key, value in _attributes(op):
        yield f"  in      {key} {_constant(value, key)}"
    for key in sorted(op.inputs):
        for binding in op.inputs[key].arguments:
            constant = constants.get(binding.name)
            if binding.WhichOneof("binding") == "value":
                constant = binding.value
            shown = _constant(constant, key) if constant is not None else ""
            yield f"  in      {key} = {binding.name} {shown}".rstrip()


def _given(op: Any, block: Any) -> Iterator[str]:
    """Yield what an operation gives, and who reads it."""
    for output in op.outputs:
        yield f"  out     {output.name}: {values.type_of(output.type, output.name)}"
        for reader, _ in _walk(block):
            if any(b.name == output.name for a in reader.inputs.values() for b in a.arguments):
                yield f"  used by {reader.type} {_name(reader)!r}"
        if output.name in block.outputs:
            yield "  is an output of the function"


def _statistics(model: Model, message: Any, where: str) -> Iterator[str]:
    array = values.decode(message, where, model.weights)
    if getattr(array, "size", 0) > 1 and array.dtype.kind in "fiu":
        wide = array.astype("float64")
        yield f"  range   {wide.min():.6g} to {wide.max():.6g}, mean {wide.mean():.6g}, deviation {wide.std():.6g}"


def statistics(model: Model, function: str | None = None) -> Iterator[str]:
    """Yield counts: operations by type, results by dtype, weights by dtype with their size."""
    for name, block in _blocks(model, function).items():
        operations = [op for op, _ in _walk(block)]
        kinds = Counter(op.type for op in operations if op.type != "const")
        yield f"function {name} ({model.program.functions[name].opset}): {sum(kinds.values())} operations"
        yield from _counted(kinds)
        yield "results"
        yield from _counted(_result_types(operations))
        yield "weights in files"
        weights, sizes = _weight_types(operations)
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


def _result_types(operations: Sequence[Any]) -> Counter[str]:
    declared = (values.type_of(o.type, o.name) for op in operations if op.type != "const" for o in op.outputs)
    return Counter(it.dtype.name if isinstance(it, values.TensorType) else str(it) for it in declared)


def _weight_types(operations: Sequence[Any]) -> tuple[Counter[str], Counter[str]]:
    """Return the number of stored weights and their bytes, by dtype."""
    weights: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for op in operations:
        for value in stored_values(op):
            declared = values.type_of(value.type, _name(op))
            if isinstance(declared, values.TensorType):
                weights[declared.dtype.name] += 1
                sizes[declared.dtype.name] += math.prod(s or 0 for s in declared.shape) * declared.dtype.bits // 8
    return weights, sizes
