"""How does a pattern look at the operations around it, and how is it replaced?

A :class:`View` knows who computes and who reads each value. A pattern starts at its last operation and walks back;
:meth:`View.only` steps to the operation that computes a value if nobody else needs that value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from parity.mil.constants import Constants
from parity.mil.graph import Graph, Node
from parity.mil.operators import Operator
from parity.mil.values import TensorType


class View:
    """Operations of a plan while they are rewritten.

    Parameters
    ----------
    graph : Graph
        Types of all values.
    nodes : list of Node
        Operations in order; replaced by :meth:`replace`.
    wanted : frozenset of str
        Values that must stay.
    fixed : frozenset of str
        Values that are constant.
    constants : Constants
        Their values.
    """

    def __init__(
        self, graph: Graph, nodes: list[Node], *, wanted: frozenset[str], fixed: frozenset[str], constants: Constants
    ) -> None:
        self.graph = graph
        self.nodes = nodes
        self.fixed = fixed
        self.constants = constants
        self._producers = {name: node for node in nodes for name in node.outputs}
        self._uses = Counter(name for node in nodes for name in node.dependencies())
        self._uses.update(wanted)

    def producer(self, name: str, kind: str) -> Node | None:
        """Return the operation that computes a value if it is of this kind."""
        node = self._producers.get(name)
        return node if node is not None and node.type == kind else None

    def only(self, name: str, kind: str, *, uses: int = 1) -> Node | None:
        """Return the operation as :meth:`producer` does, if the value is read exactly ``uses`` times."""
        return self.producer(name, kind) if self._uses[name] == uses else None

    def reader(self, name: str, kind: str) -> Node | None:
        """Return the only reader of a value if it is of this kind."""
        if self._uses[name] != 1:
            return None
        return next((n for n in self.nodes if n.type == kind and name in n.dependencies()), None)

    def constant(self, node: Node, parameter: str, default: Any = None) -> Any:
        """Return a parameter's constant as a Python value, or the default where it is left out or not constant."""
        names = node.inputs.get(parameter)
        if names is None or not self.fixed.issuperset(names):
            return default
        return self.constants.python(names[0])

    def vector(self, node: Node, parameter: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """Return a parameter's constant if it is a vector of whole numbers or truth values, or the default."""
        value = self.constant(node, parameter, default)
        whole = isinstance(value, tuple) and all(isinstance(item, int) for item in value)
        return value if whole else default

    def scalar(self, name: str) -> float | None:
        """Return a constant with one element as a number."""
        if (
            name not in self.fixed
            or not self.dtype(name).startswith("fp")
            or self.shape(name) is None
            or any(size != 1 for size in self.shape(name) or ())
        ):
            return None
        value = self.constants.python(name)
        while isinstance(value, tuple):
            (value,) = value
        return float(value)

    def shape(self, name: str) -> tuple[int | None, ...] | None:
        """Return the declared shape of a tensor."""
        declared = self.graph.types.get(name)
        return declared.shape if isinstance(declared, TensorType) and not declared.variadic else None

    def dtype(self, name: str) -> str:
        """Return the declared dtype of a tensor, ``""`` for anything else."""
        declared = self.graph.types.get(name)
        return declared.dtype.name if isinstance(declared, TensorType) else ""

    def replace(self, covered: list[Node], new: list[Node]) -> None:
        """Put ``new`` where the last of the ``covered`` operations was and remove those."""
        gone = {id(node) for node in covered}
        last = max(index for index, node in enumerate(self.nodes) if id(node) in gone)
        for node in covered:
            self._uses.subtract(node.dependencies())
            for name in node.outputs:
                self._producers.pop(name, None)
        for node in new:
            self._uses.update(node.dependencies())
            self._producers.update(dict.fromkeys(node.outputs, node))
        head = [node for node in self.nodes[: last + 1] if id(node) not in gone]
        self.nodes = head + new + self.nodes[last + 1 :]


def fused(
    kind: str,
    function: Callable[..., Any],
    inputs: dict[str, str],
    *,
    covered: list[Node],
    outputs: tuple[str, ...] | None = None,
    aliases: bool = False,
    exact: bool = False,
) -> Node:
    """Make the node that stands for ``covered`` operations; by default it computes what the last of them does."""
    parameters = tuple(inputs)
    none: frozenset[str] = frozenset()
    operator = Operator(
        type=kind,
        since="iOS15",
        function=function,
        exact=exact,
        aliases=aliases,
        static=none,
        variadic=none,
        parameters=parameters,
        required=frozenset(parameters),
    )
    bound: dict[str, tuple[str, ...]] = {parameter: (name,) for parameter, name in inputs.items()}
    names = tuple(name for node in covered for name in node.covers)
    last = covered[-1]
    return Node(last.name, kind, operator, bound, outputs or last.outputs, (), names)
