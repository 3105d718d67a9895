"""Is this einsum, softmax, einsum an attention of one head? Then it runs blockwise and never holds all scores.

ml-stable-diffusion's SPLIT_EINSUM and SPLIT_EINSUM_V2 write, for each head and block of queries,
``einsum("bkhc,bchq->bkhq")``, a scale, ``softmax`` over axis 1 and ``einsum("bkhq,bchk->bchq")``. Which letter is what
follows from the equations, so any arrangement that MIL allows is recognised. Rounding and hazards are treated as in
:mod:`parity.mil.fusion.attention`. Blocks of queries that are sliced from one value and put together again become one:
the kernel has its own blocks, and larger ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch.nn.functional import scaled_dot_product_attention

from parity.mil.fusion import scores
from parity.mil.fusion.match import View, fused
from parity.mil.graph import Node
from parity.mil.operators import Context

_KEYS = 512
"""Fused where there are more keys than this. Measured on one core of an x86 server, widths of SD 1.5: 4096 keys take
0.4 to 0.5 of the single operations' time, 1024 keys 0.8 to 0.9, 512 about the same, 77 keys more."""

_Order = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Product:
    """An einsum of two operands: their names, letters, and the letters of the result."""

    operands: tuple[str, str]
    letters: tuple[str, str]
    result: str


@dataclass(frozen=True, slots=True)
class _Orders:
    """Permutations to (batch, …, query, size), (…, key, size), (…, key, size), (…, query, key), and of the result."""

    query: _Order
    key: _Order
    value: _Order
    mask: _Order
    result: _Order


def _attention(
    context: Context,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    orders: _Orders,
    scale: float,
    guarded: bool,
) -> torch.Tensor:
    query, key, value = query.permute(orders.query), key.permute(orders.key), value.permute(orders.value)
    mask = None if mask is None else mask.permute(orders.mask)
    if guarded and not scores.safe(query, key, mask, scale):
        return scores.stepwise(query, key, value, mask, scale).permute(orders.result)
    missing = (None,) * (4 - query.dim())  # the blockwise kernel wants four axes, the last one dense
    query, key, value = (x[missing].contiguous() for x in (query, key, value))
    mask = None if mask is None else mask[missing]
    result = scaled_dot_product_attention(query, key, value, mask, scale=scale)
    return result[(0,) * len(missing)].permute(orders.result)


def rewrite(view: View, *, rounded: bool) -> None:
    """Replace every such attention in ``view``; ``rounded`` says that float16 results are rounded."""
    for node in [n for n in view.nodes if n.type == "einsum"]:
        _try(view, node, rounded=rounded)
    for node in [n for n in view.nodes if n.type == "concat"]:
        _join(view, node)


def _parse(view: View, node: Node) -> _Product | None:
    equation = view.constant(node, "equation")
    operands = node.inputs.get("values", ())
    if not isinstance(equation, str) or len(operands) != 2:
        return None
    left, _, result = equation.replace(" ", "").partition("->")
    x, _, y = left.partition(",")
    for letters, name in ((x, operands[0]), (y, operands[1]), (result, node.outputs[0])):
        shape = view.shape(name)
        if not letters.isalpha() or shape is None or len(shape) != len(letters) or len(set(letters)) != len(letters):
            return None
    return _Product((operands[0], operands[1]), (x, y), result)


def _try(view: View, node: Node, *, rounded: bool) -> None:
    second = _parse(view, node)
    if second is None:
        return
    place = next((i for i in (0, 1) if view.only(second.operands[i], "softmax")), None)
    softmax = None if place is None else view.only(second.operands[place], "softmax")
    if place is None or softmax is None:
        return
    name = softmax.inputs["x"][0]
    shape = view.shape(name) or ()
    rank = len(shape)
    axis = view.constant(softmax, "axis", -1)
    if (
        not 3 <= rank <= 4
        or len(second.letters[place]) != rank
        or not isinstance(axis, int)
        or not -rank <= axis < rank
    ):
        return
    if (shape[axis] or 0) <= _KEYS:
        return
    found = scores.find(
        view, name, "einsum", fits=lambda m: len(view.shape(m) or ()) == rank and scores.broadcasts(view, m, name)
    )
    first = _parse(view, found.product) if found is not None else None
    if found is None or first is None or len(first.result) != rank:
        return
    key_letter = first.result[axis]
    key_place = next((i for i in (0, 1) if key_letter in first.letters[i]), None)
    if key_place is None:
        return
    value, result = _in_letters_of(first, second, place)
    orders = _orders(first.letters[1 - key_place], first.letters[key_place], value, first.result, result, key_letter)
    if orders is None:
        return
    covered = [*reversed(found.covered), softmax, node]
    function = partial(_attention, orders=orders, scale=found.scale, guarded=rounded and view.dtype(name) == "fp16")
    inputs = {
        "query": first.operands[1 - key_place],
        "key": first.operands[key_place],
        "value": second.operands[1 - place],
    } | ({"mask": found.mask} if found.mask is not None else {})
    view.replace(covered, [fused("fused_attention", function, inputs, covered=covered)])


def _in_letters_of(first: _Product, second: _Product, place: int) -> tuple[str, str]:
    """Return the other operand and the result of ``second`` in the letters of ``first``'s result, which it reads."""
    renamed = dict(zip(second.letters[place], first.result, strict=True))
    spare = iter(sorted(set("ABCDEFGH").difference(*first.letters)))
    for letter in second.letters[1 - place] + second.result:
        if letter not in renamed:
            renamed[letter] = next(spare)
    other, result = ("".join(renamed[x] for x in letters) for letters in (second.letters[1 - place], second.result))
    return other, result


def _only(letters: set[str]) -> str:
    return letters.pop() if len(letters) == 1 else ""


def _orders(query: str, key: str, value: str, products: str, result: str, key_letter: str) -> _Orders | None:
    """Return the permutations if the letters are those of an attention; None for any other pair of products."""
    batch = "".join(letter for letter in query if letter in key and letter in products)
    size, row, width = map(
        _only, (set(query) & set(key) - set(products), set(query) - set(key), set(value) - set(products))
    )
    sides = ((query, batch + row + size), (key, batch + key_letter + size), (value, batch + key_letter + width))
    if not all((size, row, width)) or row == key_letter or sorted(products) != sorted(batch + row + key_letter):
        return None
    if any(sorted(have) != sorted(want) for have, want in sides) or sorted(result) != sorted(batch + row + width):
        return None
    q, k, v = (tuple(have.index(letter) for letter in want) for have, want in sides)
    last = batch + row + width
    return _Orders(
        query=q,
        key=k,
        value=v,
        mask=tuple(products.index(letter) for letter in batch + row + key_letter),
        result=tuple(last.index(letter) for letter in result),
    )


def _join(view: View, concat: Node) -> None:
    """Replace attentions of consecutive slices of one value, put together again, by one attention of that value."""
    blocks = [view.only(name, "fused_attention") for name in concat.inputs["values"]]
    first = blocks[0]
    if first is None or len(blocks) < 2 or view.constant(concat, "interleave", False):
        return
    shared = first.operator.function
    if not isinstance(shared, partial) or shared.func is not _attention or "mask" in first.inputs:
        return
    orders: _Orders = shared.keywords["orders"]
    axis, rows, rank = view.constant(concat, "axis"), orders.query[-2], len(orders.result)
    if not isinstance(axis, int) or not -rank <= axis < rank or orders.result[axis] != rank - 2:
        return
    source, start, covered = "", 0, []
    for block in blocks:
        cut = view.only(block.inputs["query"][0], "slice_by_index") if block is not None else None
        if (
            block is None
            or cut is None
            or not _alike(block, first)
            or cut.inputs["x"][0] != (source or cut.inputs["x"][0])
        ):
            return
        source = cut.inputs["x"][0]
        size = _cut(view, cut, rows, start)
        if size is None:
            return
        start += size
        covered += [cut, block]
    if start != (view.shape(source) or ())[rows]:
        return
    inputs = {"query": source, "key": first.inputs["key"][0], "value": first.inputs["value"][0]}
    covered.append(concat)
    view.replace(covered, [fused("fused_attention", shared, inputs, covered=covered)])


def _alike(one: Node, other: Node) -> bool:
    """Tell whether two nodes are such attentions with equal options, keys and values."""
    a, b = one.operator.function, other.operator.function
    same = isinstance(a, partial) and isinstance(b, partial) and a.func is b.func and a.keywords == b.keywords
    return same and all(one.inputs.get(name) == other.inputs.get(name) for name in ("key", "value", "mask"))


def _cut(view: View, node: Node, axis: int, start: int) -> int | None:
    """Return how long a slice is along ``axis`` if it begins at ``start`` there and is whole along all others."""
    whole, part = view.shape(node.inputs["x"][0]), view.shape(node.outputs[0])
    names = ("begin", "end", "stride", "begin_mask", "end_mask", "squeeze_mask")
    if whole is None or part is None or len(whole) != len(part) or None in whole or None in part:
        return None
    if any(name in node.inputs and not view.fixed.issuperset(node.inputs[name]) for name in names):
        return None
    begins, masks = view.vector(node, "begin", ()), view.vector(node, "begin_mask", (0,) * len(whole))
    plain = set(view.vector(node, "stride", (1,))) == {1} and not any(view.vector(node, "squeeze_mask", ()))
    if not plain or len(begins) != len(whole) or len(masks) != len(whole):
        return None
    begin = 0 if masks[axis] else begins[axis]
    others = all(size == full for i, (size, full) in enumerate(zip(part, whole, strict=True)) if i != axis)
    return part[axis] if others and begin == start else None
