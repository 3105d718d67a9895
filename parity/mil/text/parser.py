"""How is a compiled program (``model.mil``, textual MIL) turned into the protobuf that packages hold?

:func:`parse` reads the program: build information, functions with opset, inputs and attributes, operations with
arguments, outputs, attributes and nested blocks. Every error has line and column.

Checked against a file that Core ML's compiler wrote (iOS 15 dialect) and against programs of coremltools printed by
the test suite in both dialects. The form of nested blocks has not been seen in a compiled file and is *not verified*.
Read is everything that coremltools' own printing and the rest of the grammar suggest: after the operation, before or
behind its attributes, ``{ … } -> (…)`` for each block, with or without a name, with or without inputs in parentheses
(``(TYPE name, …)``, where ``= value`` may say what a name starts as), separated by commas or not; results of an
operation may stand in parentheses.
"""

from __future__ import annotations

from typing import Any

from parity.mil import proto
from parity.mil.text.lexer import Source
from parity.mil.text.literals import DEPTH, read_type, read_value

_OPSETS = {"ios15": "CoreML5", "ios16": "CoreML6", "ios17": "CoreML7", "ios18": "CoreML8", "ios26": "CoreML9"}


def parse(text: str, where: str) -> Any:
    """Return the ``Program`` message of a textual program.

    Parameters
    ----------
    text : str
        Content of ``model.mil``.
    where : str
        File name, for messages.

    Raises
    ------
    FormatError
        Malformed text, with line and column.
    """
    source = Source(text, where)
    program = proto.mil.Program(version=1)
    source.expect("program")
    source.expect("(")
    version = source.take()
    if version.kind != "number":
        raise source.error(f"expected the program's version, found {version.text[:60]!r}", version.start)
    source.expect(")")
    _attributes(source, program.attributes)
    source.expect("{")
    while not source.accept("}"):
        _function(source, program)
    if source.peek().kind != "end":
        raise source.error(f"expected the end of the file, found {source.peek().text[:60]!r}")
    return program


def _attributes(source: Source, attributes: Any) -> None:
    if not source.accept("["):
        return
    first = True
    while not source.accept("]"):
        if not first:
            source.expect(",")
        first = False
        name = source.name("the name of an attribute")
        source.expect("=")
        attributes[name].CopyFrom(read_value(source))


def _function(source: Source, program: Any) -> None:
    source.expect("func")
    place = source.peek().start
    name = source.name("the name of a function")
    if name in program.functions:
        raise source.error(f"the function {name!r} is there twice", place)
    function = program.functions[name]
    source.expect("<")
    place = source.peek().start
    opset = source.name("an opset such as ios16")
    if opset.lower() not in _OPSETS:
        raise source.error(f"unknown opset {opset!r}; known are {', '.join(_OPSETS)}", place)
    function.opset = _OPSETS[opset.lower()]
    source.expect(">")
    _parameters(source, function.inputs)
    _attributes(source, function.attributes)
    _body(source, function.block_specializations[function.opset], 0)
    source.accept(";")


def _parameters(source: Source, inputs: Any) -> None:
    source.expect("(")
    while not source.accept(")"):
        if inputs:
            source.expect(",")
        _typed_name(source, inputs.add())


def _typed_name(source: Source, message: Any) -> None:
    read_type(source, message.type)
    message.name = source.name("the name of a value")


def _body(source: Source, block: Any, depth: int) -> None:
    if depth > DEPTH:
        raise source.error(f"blocks are nested more than {DEPTH} deep")
    source.expect("{")
    while not source.accept("}"):
        _operation(source, block.operations.add(), depth)
    source.expect("->")
    source.expect("(")
    while not source.accept(")"):
        if block.outputs:
            source.expect(",")
        block.outputs.append(source.name("the name of an output"))


def _operation(source: Source, operation: Any, depth: int) -> None:
    if source.peek().text == "(":
        _parameters(source, operation.outputs)
        source.expect("=")
    elif source.peek(1).text != "(":  # otherwise an operation without results, such as write_state(…)
        while True:
            _typed_name(source, operation.outputs.add())
            if not source.accept(","):
                break
        source.expect("=")
    operation.type = source.name("an operator")
    source.expect("(")
    first = True
    while not source.accept(")"):
        if not first:
            source.expect(",")
        first = False
        place = source.peek().start
        name = source.name("the name of an argument")
        if name in operation.inputs:
            raise source.error(f"the argument {name!r} is there twice", place)
        source.expect("=")
        _argument(source, operation.inputs[name].arguments)
    _attributes(source, operation.attributes)
    while source.peek().text not in (";", "["):
        _block(source, operation.blocks.add(), depth + 1)
        source.accept(",")
    if operation.blocks:
        _attributes(source, operation.attributes)
    source.expect(";")


def _block(source: Source, block: Any, depth: int) -> None:
    if source.peek().kind == "name":
        source.take()
    if source.accept("("):
        while not source.accept(")"):
            if block.inputs:
                source.expect(",")
            _typed_name(source, block.inputs.add())
            if source.accept("="):
                source.name("a value")  # the operation's own arguments say the same
    _body(source, block, depth)


def _argument(source: Source, arguments: Any) -> None:
    if not source.accept("("):
        _binding(source, arguments.add())
        return
    while not source.accept(")"):
        if arguments:
            source.expect(",")
        _binding(source, arguments.add())


def _binding(source: Source, binding: Any) -> None:
    if source.peek(1).text in ("<", "("):
        binding.value.CopyFrom(read_value(source))
    else:
        binding.name = source.name("a value")
