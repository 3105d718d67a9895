"""What does a program's function compute, as checked operations over named values?

:func:`build` turns a ``Function`` message into a :class:`Graph`: operations in order, constants apart, every name
resolved. On the way it finds what makes a program meaningless: a name that is used before it is computed (a cycle),
never computed or computed twice, an operator that the opset lacks, inputs that the operator does not have, missing
types, nesting without end.

Not proved: that declared types follow from the operators; that shows when the program runs (:mod:`parity.mil.plan`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from parity.errors import FormatError, UnsupportedError
from parity.mil import operators, values
from parity.mil.operators import Operator

_DEPTH = 32  # nested blocks; a loop in a condition in a loop has 3
_LARGEST = 1 << 40  # bytes of one declared value; beyond it a size is damage, not data


@dataclass(slots=True)
class Node:
    """One operation.

    Attributes
    ----------
    name, type : str
        Its name (or its first output's) and operator.
    operator : Operator
        What computes it.
    inputs : dict of str to tuple of str
        Names of values by parameter; more than one only for variadic parameters.
    outputs : tuple of str
        Names of its results.
    blocks : tuple of Graph
        Nested blocks of cond and while_loop.
    covers : tuple of str
        Names of the operations that a fused node stands for; its own name otherwise.
    """

    name: str
    type: str
    operator: Operator
    inputs: dict[str, tuple[str, ...]]
    outputs: tuple[str, ...]
    blocks: tuple[Graph, ...] = ()
    covers: tuple[str, ...] = ()

    def dependencies(self) -> Iterator[str]:
        """Names of all values that it reads, those of its nested blocks included."""
        for names in self.inputs.values():
            yield from names
        for block in self.blocks:
            yield from block.captured


@dataclass(slots=True)
class Graph:
    """Operations of one block.

    Attributes
    ----------
    where : str
        File and function, for messages.
    inputs, outputs : tuple of str
        Names of what the block takes and gives.
    nodes : list of Node
        In an order in which they can run.
    constants : dict of str to message
        ``Value`` messages by name: `const` operations, and immediate arguments under made-up names with a ``%``.
    types : dict of str to Type
        Declared type of every value.
    captured : tuple of str
        For a nested block, names that it reads from the blocks around it.
    """

    where: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Any] = field(default_factory=dict)
    types: dict[str, values.Type] = field(default_factory=dict)
    captured: tuple[str, ...] = ()

    def consumers(self) -> dict[str, list[Node]]:
        """Map each name to the operations that read it, one entry for each reading."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.dependencies():
                found.setdefault(name, []).append(node)
        return found


def specialization(function: Any, where: str) -> Any:
    """Return the block of a ``Function`` message for the opset that it names."""
    blocks = function.block_specializations
    if function.opset in blocks:
        return blocks[function.opset]
    raise FormatError(
        f"{where}: it names the opset {function.opset!r} but has blocks for {', '.join(sorted(blocks)) or 'none'}"
    )


def _size(declared: values.Type) -> int:
    if isinstance(declared, values.TensorType):
        return math.prod(size for size in declared.shape if size is not None) * max(1, declared.dtype.bits // 8)
    return 0


class _Builder:
    def __init__(self, where: str, opset: str) -> None:
        self.where = where
        self.opset = opset
        self.later: set[str] = set()  # names computed somewhere in the function, for telling a cycle from a typo

    def declare(self, graph: Graph, message: Any) -> str:
        name = message.name
        where = f"{self.where}: value {name!r}"
        if not name:
            raise FormatError(f"{self.where}: a value without a name")
        if name in graph.types:
            raise FormatError(f"{where}: it is computed twice")
        declared = values.type_of(message.type, where)
        if _size(declared) > _LARGEST:
            raise FormatError(f"{where}: type {declared} would need more than {_LARGEST >> 40} TiB")
        graph.types[name] = declared
        return str(name)

    def block(self, message: Any, inputs: Any, outer: tuple[Graph, ...]) -> Graph:
        if len(outer) > _DEPTH:
            raise FormatError(f"{self.where}: blocks are nested more than {_DEPTH} deep")
        graph = Graph(self.where)
        graph.inputs = tuple(self.declare(graph, item) for item in inputs)
        scope = (*outer, graph)
        captured: dict[str, None] = {}
        for operation in message.operations:
            self.later.update(output.name for output in operation.outputs)
        for operation in message.operations:
            node = self.operation(operation, scope)
            if node is not None:
                graph.nodes.append(node)
                captured.update(dict.fromkeys(n for n in node.dependencies() if n not in graph.types))
        for name in message.outputs:
            self.resolve(name, scope, "an output of the block")
        graph.outputs = tuple(message.outputs)
        captured.update(dict.fromkeys(n for n in graph.outputs if n not in graph.types))
        graph.captured = tuple(captured)
        return graph

    def resolve(self, name: str, scope: tuple[Graph, ...], user: str) -> None:
        if not any(name in graph.types for graph in scope):
            reason = (
                "is computed only later: a cycle, or operations out of order" if name in self.later else "is unknown"
            )
            raise FormatError(f"{self.where}: {user} reads the value {name!r}, which {reason}")

    def operation(self, message: Any, scope: tuple[Graph, ...]) -> Node | None:
        graph = scope[-1]
        kind = message.type
        name = _name(message)
        user = f"operation {name!r} ({kind})"
        if kind == "const":
            if "val" not in message.attributes or len(message.outputs) != 1:
                raise FormatError(f"{self.where}: {user} needs one output and the attribute val")
            graph.constants[self.declare(graph, message.outputs[0])] = message.attributes["val"]
            return None
        try:
            operator = operators.get(kind, self.opset, value=name)
            # before iOS 18 the inputs of constexpr operators stand among the attributes
            attributes = sorted(set(operator.parameters).intersection(message.attributes).difference(message.inputs))
            operator.check([*message.inputs, *attributes], value=name)
        except UnsupportedError as error:
            raise UnsupportedError(f"{self.where}: {error}") from None
        inputs = {
            parameter: self.bindings(argument, scope, user, parameter)
            for parameter, argument in sorted(message.inputs.items())
        }
        for parameter in attributes:
            inputs[parameter] = (self.immediate(message.attributes[parameter], graph, user, parameter),)
        for parameter, names in inputs.items():
            if len(names) != 1 and parameter not in operator.variadic:
                raise FormatError(f"{self.where}: {user}: input {parameter} has {len(names)} values, expected one")
        blocks = tuple(self.block(block, block.inputs, scope) for block in message.blocks)
        outputs = tuple(self.declare(graph, output) for output in message.outputs)
        return Node(name, kind, operator, inputs, outputs, blocks, (name,))

    def bindings(self, argument: Any, scope: tuple[Graph, ...], user: str, parameter: str) -> tuple[str, ...]:
        names = []
        for binding in argument.arguments:
            kind = binding.WhichOneof("binding")
            if kind == "name":
                self.resolve(binding.name, scope, user)
                names.append(binding.name)
            elif kind == "value":
                names.append(self.immediate(binding.value, scope[-1], user, parameter))
            else:
                raise FormatError(f"{self.where}: {user}: input {parameter} has neither a name nor a value")
        return tuple(names)

    def immediate(self, value: Any, graph: Graph, user: str, parameter: str) -> str:
        """Make a value that stands in the operation itself a constant of the block, and return its name."""
        name = f"%{len(graph.constants)}:{parameter}"
        graph.types[name] = values.type_of(value.type, f"{self.where}: {user}: input {parameter}")
        graph.constants[name] = value
        return name


def _name(message: Any) -> str:
    if "name" in message.attributes:
        strings = message.attributes["name"].immediateValue.tensor.strings.values
        if strings:
            return str(strings[0])
    return str(message.outputs[0].name) if message.outputs else str(message.type)


def build(function: Any, where: str) -> Graph:
    """Check a ``Function`` message and return what it computes.

    Parameters
    ----------
    function : parity.mil.proto.mil.Function
        The function.
    where : str
        File and function name, for messages.

    Raises
    ------
    FormatError
        When the function is not a program: see the module's docstring.
    UnsupportedError
        When an operator is unknown or younger than the opset.
    """
    builder = _Builder(where, function.opset)
    return builder.block(specialization(function, where), function.inputs, ())
