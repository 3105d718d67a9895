"""What does the message of an operation say: its name, its module, what it takes, and which weights it reads?

The protobuf is read, not the graph that runs. Where names of weights follow the module tree (programs converted from
TorchScript), the module of an operation is derived from them.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from parity.errors import UsageError
from parity.mil import values
from parity.mil.graph import specialization
from parity.mil.model import Model, stored_values

_PARAMETER = re.compile(
    r"_(?:weight|bias|gamma|beta|mean|variance|running_mean|running_var)"
    r"(?:_\d+)?(?:_promoted)?(?:_to_fp\d+)?(?:_(?:palettized|quantized|sparsified|compressed))*(?:_\d+)?$"
)
_SHORT = 8  # elements of a constant that are printed


def name_of(operation: Any) -> str:
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


def walk(block: Any, depth: int = 0) -> Iterator[tuple[Any, int]]:
    for operation in block.operations:
        yield operation, depth
        for inner in operation.blocks:
            if depth < 32:
                yield from walk(inner, depth + 1)


def blocks(model: Model, function: str | None) -> dict[str, Any]:
    functions = model.program.functions
    names = [function] if function else sorted(functions)
    for name in names:
        if name not in functions:
            raise UsageError(f"{model.path}: no function {name!r}; it has {', '.join(sorted(functions))}")
    return {name: specialization(functions[name], f"{model.path}: function {name!r}") for name in names}


def constant(message: Any, where: str) -> str:
    if message.WhichOneof("value") == "blobFileValue":
        return f"<{values.type_of(message.type, where)} at {message.blobFileValue.offset}>"
    value = values.decode(message, where)
    size = getattr(value, "size", 1)
    if size > _SHORT:
        return f"<{values.type_of(message.type, where)}>"
    return repr(value.tolist() if hasattr(value, "tolist") else value)


def attributes(operation: Any) -> Iterator[tuple[str, Any]]:
    """Yield attributes that are parameters: weights compressed for iOS 16 keep table, indices and shape there."""
    for key in sorted(operation.attributes):
        if key != "name" and not (key == "val" and operation.type == "const"):
            yield key, operation.attributes[key]


def arguments(operation: Any, constants: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Yield what an operation takes, by parameter: attributes, then inputs, those of constants with their values."""
    for key, value in attributes(operation):
        yield key, [constant(value, key)]
    for key in sorted(operation.inputs):
        parts = []
        for binding in operation.inputs[key].arguments:
            if binding.WhichOneof("binding") == "value":
                parts.append(constant(binding.value, key))
            elif binding.name in constants:
                parts.append(constant(constants[binding.name], binding.name))
            else:
                parts.append(f"%{binding.name}")
        yield key, parts


def is_constant(operation: Any) -> bool:
    return bool(operation.type == "const" and len(operation.outputs) == 1 and "val" in operation.attributes)


def result_types(operations: Sequence[Any]) -> Counter[str]:
    declared = (values.type_of(o.type, o.name) for op in operations if op.type != "const" for o in op.outputs)
    return Counter(it.dtype.name if isinstance(it, values.TensorType) else str(it) for it in declared)


def weight_types(operations: Sequence[Any]) -> tuple[Counter[str], Counter[str]]:
    """Return the number of stored weights and their bytes, by dtype."""
    weights: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for op in operations:
        for value in stored_values(op):
            declared = values.type_of(value.type, name_of(op))
            if isinstance(declared, values.TensorType):
                weights[declared.dtype.name] += 1
                sizes[declared.dtype.name] += math.prod(s or 0 for s in declared.shape) * declared.dtype.bits // 8
    return weights, sizes
