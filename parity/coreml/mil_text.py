"""How does a program look as text, as Core ML's compiler writes it to ``model.mil``?

:func:`write_program` prints the protobuf of a program in the two dialects that compiled models have: up to iOS 17
scalars are tensors of rank 0 (``tensor<int32, []>(1)``), from iOS 18 on they are bare (``int32(1)``). Weights stay in
their file: ``BLOBFILE(path = …, offset = …)``.

Proved: ``parity.mil.text`` reads back an equal program; coremltools' tests find the lines that they look for. Checked
against a file of the real compiler: statements, order of arguments, numbers. The form of nested blocks has not been
seen in a compiled file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from parity.mil import values

_OPSETS = {"CoreML5": "ios15", "CoreML6": "ios16", "CoreML7": "ios17", "CoreML8": "ios18", "CoreML9": "ios26"}
_BARE = ("CoreML8", "CoreML9")  # opsets whose dialect writes bare scalars
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "\t": r"\t", "\r": r"\r", "\0": r"\0"})


def write_program(program: Any) -> str:
    """Return the text of a program.

    Parameters
    ----------
    program : parity.mil.proto.mil.Program
        The program.

    Returns
    -------
    str
        Content of ``model.mil``.

    Raises
    ------
    FormatError
        A constant's value and declared type disagree.
    """
    return _Printer(bare=any(function.opset in _BARE for function in program.functions.values())).program(program)


class _Printer:
    def __init__(self, *, bare: bool) -> None:
        self._bare = bare

    def program(self, program: Any) -> str:
        lines = [f"program({'1.3' if self._bare else '1.0'})"]
        if program.attributes:
            lines.append(self._attributes(program.attributes))
        lines.append("{")
        for name, function in sorted(program.functions.items()):
            block = function.block_specializations[function.opset]
            head = f"    func {name}<{_OPSETS[function.opset]}>({self._parameters(function.inputs)})"
            lines.append(f"{head} {self._attributes(function.attributes)} {{" if function.attributes else f"{head} {{")
            lines.extend(self._body(block, "    "))
            lines.append(f"        }} -> ({', '.join(block.outputs)});")
        lines.append("}")
        return "\n".join(lines) + "\n"

    def _body(self, block: Any, indent: str) -> Iterator[str]:
        for operation in block.operations:
            yield from self._operation(operation, indent + "        ")

    def _operation(self, operation: Any, indent: str) -> Iterator[str]:
        results = self._parameters(operation.outputs)
        arguments = ", ".join(f"{name} = {self._argument(each)}" for name, each in sorted(operation.inputs.items()))
        line = f"{indent}{results}{' = ' if results else ''}{operation.type}({arguments})"
        if operation.attributes:
            line += self._attributes(operation.attributes)
        for number, block in enumerate(operation.blocks):
            yield f"{line} {operation.type}_block{number}({self._parameters(block.inputs)}) {{"
            yield from self._body(block, indent[:-4])
            line = f"{indent}}} -> ({', '.join(block.outputs)}){',' if number + 1 < len(operation.blocks) else ''}"
        yield f"{line};"

    def _parameters(self, messages: Iterable[Any]) -> str:
        return ", ".join(f"{self._type(values.type_of(each.type, each.name))} {each.name}" for each in messages)

    def _argument(self, argument: Any) -> str:
        bindings = [
            each.name if each.WhichOneof("binding") == "name" else self._value(each.value, "an argument")
            for each in argument.arguments
        ]
        return bindings[0] if len(bindings) == 1 else f"({', '.join(bindings)})"

    def _attributes(self, attributes: Mapping[str, Any]) -> str:
        return "[" + ", ".join(f"{name} = {self._value(each, name)}" for name, each in sorted(attributes.items())) + "]"

    def _type(self, declared: values.Type) -> str:
        if isinstance(declared, values.TensorType):
            if self._bare and declared.shape == () and not declared.variadic:
                return declared.dtype.name
            sizes = ["?" if size is None else str(size) for size in declared.shape] + ["..."] * declared.variadic
            return f"tensor<{declared.dtype.name}, [{', '.join(sizes)}]>"
        if isinstance(declared, values.ListType):
            return f"list<{self._type(declared.element)}, {'?' if declared.length is None else declared.length}>"
        if isinstance(declared, values.TupleType):
            return f"tuple<{', '.join(self._type(each) for each in declared.elements)}>"
        if isinstance(declared, values.DictType):
            return f"dict<{self._type(declared.key)}, {self._type(declared.value)}>"
        return f"state<{self._type(declared.wrapped)}>"

    def _value(self, message: Any, where: str) -> str:
        declared = values.type_of(message.type, where)
        if message.WhichOneof("value") == "blobFileValue":
            blob = message.blobFileValue
            path, offset = (self._scalar(name) for name in ("string", "uint64"))
            content = f'BLOBFILE(path = {path}("{_escaped(blob.fileName)}"), offset = {offset}({blob.offset}))'
        else:
            content = _content(values.decode(message, where))
        return f"{self._type(declared)}({content})"

    def _scalar(self, dtype: str) -> str:
        return dtype if self._bare else f"tensor<{dtype}, []>"


def _content(value: Any) -> str:
    if isinstance(value, str):
        return f'"{_escaped(value)}"'
    if isinstance(value, np.ndarray):
        return _nested(value.tolist(), floating=value.dtype.kind == "f")
    if isinstance(value, dict):
        return "{" + ", ".join(f"{{{_content(key)}, {_content(item)}}}" for key, item in value.items()) + "}"
    inner = ", ".join(_content(item) for item in value)
    return f"[{inner}]" if isinstance(value, list) else f"({inner})"


def _nested(value: Any, *, floating: bool) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_nested(item, floating=floating) for item in value)}]"
    if isinstance(value, str):
        return f'"{_escaped(value)}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    return _hexadecimal(value) if floating else str(value)


def _hexadecimal(value: float) -> str:
    """Return a float as C's ``%a`` prints it: exact and short."""
    mantissa, mark, exponent = value.hex().partition("p")  # inf and nan have no exponent
    if not mark:
        return mantissa
    digits = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{digits}p{exponent}"


def _escaped(text: str) -> str:
    return text.translate(_ESCAPES)
