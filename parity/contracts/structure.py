"""What is a program built of: which attention of how many axes, which operators of which sizes, which flexible inputs?

A :class:`Collector` is told every operation once, in order, and walks back from each ``matmul`` to the softmax that
feeds it and on to the product of the scores: names of values play no part. The same walk serves programs as protobuf
and as text of a compiled model; an operation becomes a :class:`Node` only when the walk meets it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import astuple, replace
from typing import Any, NamedTuple

from parity.contracts.inspection import Attention, Operator, Structure
from parity.mil import dtypes, proto

FUSED = "scaled_dot_product_attention"
RESHAPES = frozenset({"reshape", "squeeze", "expand_dims"})
ELEMENTWISE = frozenset({"add", "sub", "mul", "real_div", "maximum", "minimum", "select", "clip", "cast", "identity"})
"""Operations that may stand between the scores and their softmax (a scale, a mask) without mixing positions."""
_LINKS = frozenset({"matmul", "softmax", "transpose", "constexpr_lut_to_dense", *RESHAPES, *ELEMENTWISE})
_BEFORE = RESHAPES | ELEMENTWISE  # from the scores to the softmax
_BEHIND = frozenset({"transpose", "cast", "identity", "mul", *RESHAPES})  # from the softmax to the product
_STEPS = 8
_SCALED = "constexpr_blockwise_shift_scale"
# Words are entered at their beginning alone (\b), lists are bounded: text is searched in linear time, whatever it is
_OUTPUT = r"\b(?:tensor<(\w+),\s*\[([^\]\n]*)\]>|(\w+))\s+([\w.]+)"
_FURTHER = r"(?:\s*,\s*(?:tensor<[^>\n]*>|\w+)\s+[\w.]+){0,32}"
_STATEMENT = re.compile(_OUTPUT + _FURTHER + r"\s*=\s*(\w+)\(([^\n;]*)")
_BOUND = re.compile(r"\b(\w+)\s*=\s*([A-Za-z_][\w.]*)\s*[,)]")
_GIVEN = re.compile(r"\b(\w+)\s*=\s*tensor<(\w+),")
_FUNCTION = re.compile(r"\bfunc\s+[\w.]+<\w+>\(([^{]*)")
_PARAMETER = re.compile(r"tensor<\w+,\s*\[([^\]]*)\]>\s+([\w.]+)")


class Node(NamedTuple):
    """One operation: its name is that of its first output; ``shape`` has 0 for an axis that is not fixed.

    ``inputs`` are the parameters bound to one name, ``given`` the dtypes of those whose value is written at once.
    """

    kind: str
    name: str
    inputs: Mapping[str, str]
    given: Mapping[str, str]
    dtype: str
    shape: tuple[int, ...]


class Site(NamedTuple):
    """One attention made of products: the operations that give the scores, their softmax and the weighted values."""

    scores: Node
    softmax: Node
    product: Node
    bias: bool


class Collector:
    """Takes a program's operations in order.

    Parameters
    ----------
    node, name : callable
        Turn what :meth:`add` was given into a :class:`Node`, and into the name of its first output.
    """

    def __init__(self, node: Callable[[Any], Node], name: Callable[[Any], str]) -> None:
        self._node = node
        self._name = name
        self._made: dict[str, Any] = {}
        self._attention: Counter[Attention] = Counter()  # each with a count of 0
        self._operators: dict[tuple[str, Any], int] = {}
        self._scaled = 0

    def add(self, kind: str, type_: Any, operation: Any) -> Site | None:
        """Take one operation that is no constant.

        Parameters
        ----------
        kind : str
            Operator.
        type_ : hashable
            Type of its first output, decoded by :meth:`structure`'s argument once for each that differs.
        operation
            What the walk can ask for more.

        Returns
        -------
        Site or None
            The attention that this operation completes.
        """
        key = kind, type_
        self._operators[key] = self._operators.get(key, 0) + 1
        if kind in _LINKS:
            self._made[self._name(operation)] = operation
            if kind == "matmul":
                return self._product(self._node(operation))
        elif kind == FUSED:
            self._attention[_fused(self._node(operation))] += 1
        elif kind == _SCALED:
            self._scaled += self._scales_a_table(self._node(operation))
        return None

    def structure(self, decode: Callable[[Any], tuple[str, tuple[int, ...]]], flexible: tuple[str, ...]) -> Structure:
        """Return what was found; ``decode`` gives dtype and shape of a type."""
        operators: Counter[tuple[str, str, int, int]] = Counter()
        for (kind, type_), count in self._operators.items():
            dtype, shape = decode(type_)
            operators[kind, dtype, len(shape), max(shape, default=0)] += count
        largest: dict[tuple[str, str, int], list[int]] = {}
        for (kind, dtype, rank, size), count in operators.items():
            entry = largest.setdefault((kind, dtype, rank), [0, 0])
            entry[0], entry[1] = max(entry[0], size), entry[1] + count
        return Structure(
            attention=tuple(sorted((replace(item, count=n) for item, n in self._attention.items()), key=astuple)),
            operators=tuple(Operator(*key, *entry) for key, entry in sorted(largest.items())),
            flexible=flexible,
            scaled_palettes=self._scaled,
        )

    def _product(self, product: Node) -> Site | None:
        for side in ("x", "y"):
            softmax = self._back(product.inputs.get(side, ""), "softmax", _BEHIND, _STEPS)
            if softmax is None:
                continue
            scores = self._back(softmax[0].inputs.get("x", ""), "matmul", _BEFORE, _STEPS)
            if scores is not None:
                site = Site(scores[0], softmax[0], product, scores[1])
                self._attention[_decomposed(site)] += 1
                return site
        return None

    def _back(self, name: str, wanted: str, through: frozenset[str], steps: int) -> tuple[Node, bool] | None:
        """Walk from a value back to the operation of a kind; tell whether something is added on the way."""
        if steps == 0 or name not in self._made:
            return None
        node = self._node(self._made[name])
        if node.kind == wanted:
            return node, False
        if node.kind not in through:
            return None
        for source in dict.fromkeys(node.inputs.values()):
            found = self._back(source, wanted, through, steps - 1)
            if found is not None:
                return found[0], found[1] or node.kind in ("add", "sub")
        return None

    def _scales_a_table(self, node: Node) -> bool:
        """Tell whether fractions are scaled: the entries of a table, where quantized weights would be integers."""
        source = self._made.get(node.inputs.get("data", ""))
        dtype = node.given.get("data", "") if source is None else self._node(source).dtype
        return dtype in ("fp16", "fp32")


# ------------------------------------------------------------------------------------------------------------ protobuf


def of_operation(operation: Any) -> Node:
    """Read a protobuf operation; parameters that are lists are left out."""
    inputs, given = {}, {}
    for key, argument in operation.inputs.items():
        if len(argument.arguments) == 1:
            binding = argument.arguments[0]
            if binding.WhichOneof("binding") == "name":
                inputs[key] = binding.name
            else:
                given[key] = _type(binding.value.type)[0]
    output = operation.outputs[0]
    return Node(operation.type, output.name, inputs, given, *_type(output.type))


def name_of_operation(operation: Any) -> str:
    """Name of a protobuf operation's first output."""
    return str(operation.outputs[0].name)


def of_type(data: bytes) -> tuple[str, tuple[int, ...]]:
    """Read a serialized ``ValueType``."""
    return _type(proto.mil.ValueType.FromString(data))


def flexible_inputs(program: Any) -> tuple[str, ...]:
    """Names of the inputs of a program that have an axis without a fixed size."""
    return tuple(
        item.name
        for _, function in sorted(program.functions.items())
        for item in function.inputs
        if any(d.WhichOneof("dimension") == "unknown" for d in item.type.tensorType.dimensions)
    )


def sites(operations: Iterator[Any]) -> Iterator[Site]:
    """Iterate over the attention of a sequence of protobuf operations."""
    collector = Collector(of_operation, name_of_operation)
    for operation in operations:
        if operation.type != "const" and operation.outputs:
            site = collector.add(operation.type, b"", operation)
            if site is not None:
                yield site


def _type(message: Any) -> tuple[str, tuple[int, ...]]:
    tensor = message.tensorType
    dtype = dtypes.BY_CODE.get(tensor.dataType)
    return dtype.name if dtype else "", tuple([d.constant.size for d in tensor.dimensions])


# ---------------------------------------------------------------------------------------------------------------- text


def of_text(text: str) -> Structure:
    """Read the program text of a compiled model (one statement a line, as the compiler writes it)."""
    collector = Collector(_statement, lambda match: str(match[4]))
    for match in _STATEMENT.finditer(text):
        if match[5] != "const":
            collector.add(match[5], (match[1] or match[3], match[2] or ""), match)
    flexible = (
        name
        for head in _FUNCTION.finditer(text)
        for sizes, name in _PARAMETER.findall(head[1].partition(") [")[0])
        if "?" in sizes
    )
    return collector.structure(lambda type_: (type_[0], _sizes(type_[1])), tuple(flexible))


def _statement(match: re.Match[str]) -> Node:
    arguments = match[6].partition(")[")[0] + ")"
    bound, given = dict(_BOUND.findall(arguments)), dict(_GIVEN.findall(arguments))
    return Node(match[5], match[4], bound, given, match[1] or match[3], _sizes(match[2] or ""))


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(size) if size.strip().isdigit() else 0 for size in text.split(",") if size.strip())


# ------------------------------------------------------------------------------------------------------------- records


def _decomposed(site: Site) -> Attention:
    shape, out = site.scores.shape, site.product.shape
    queries, keys = (shape[-2], shape[-1]) if len(shape) > 1 else (0, 0)
    width = (out[-1] if out[-2] == queries else out[-2]) if len(out) > 1 else 0
    rank = min(len(shape), len(site.softmax.shape), len(out))
    batch, heads = _leading(shape)
    return Attention("products", rank, batch, heads, queries, keys, width, site.softmax.dtype, site.bias, 0)


def _fused(node: Node) -> Attention:
    shape = node.shape
    queries, width = (shape[-2], shape[-1]) if len(shape) > 1 else (0, 0)
    batch, heads = _leading(shape)
    return Attention("fused", len(shape), batch, heads, queries, 0, width, node.dtype, "attn_mask" in node.inputs, 0)


def _leading(shape: tuple[int, ...]) -> tuple[int, int]:
    """Batch and heads of (batch, heads, …); (heads, …) has a batch of 1."""
    if len(shape) > 3:
        return shape[-4], shape[-3]
    return 1, shape[0] if len(shape) == 3 else 1
