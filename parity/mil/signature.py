"""What does a function take and give, where the model's description leaves it out or says otherwise?

A description is written beside the program, and old converters wrote it with holes: coremltools 6.1 to 7.0b1 give no
shape for any output of an ML Program. :func:`reconcile` completes the described features from the program, which is
what runs. Where the two contradict each other the program counts, and the contradiction is named.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from parity.errors import ParityError
from parity.mil import values
from parity.mil.features import Feature, Range

_ARRAYS = ("fp16", "fp32", "fp64", "int32", "int8")  # element types that a description can state


@dataclass(frozen=True)
class Reconciled:
    """Features of one function after the program was asked.

    Attributes
    ----------
    inputs, outputs, states : tuple of Feature
        In the description's order; what it lacks follows in the program's.
    contradictions : tuple of str
        What the description says otherwise, one sentence each.
    """

    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    states: tuple[Feature, ...]
    contradictions: tuple[str, ...] = ()


def reconcile(described: Reconciled, function: Any) -> Reconciled:
    """Complete and correct described features by the program's function.

    Parameters
    ----------
    described : Reconciled
        Features as the description has them.
    function : parity.mil.proto.mil.Function
        The function that is described; one that is damaged leaves everything as described.

    Returns
    -------
    Reconciled
        Shapes and dtypes of arrays and states are those of the program wherever it states them. Kinds other than
        arrays (images, dictionaries) are kept as described.
    """
    block = function.block_specializations.get(function.opset)
    if block is None:
        return described
    taken = _types((item.name, item.type) for item in function.inputs)
    given = _types(_outputs(block, taken.keys()))
    given.update({name: taken[name] for name in block.outputs if name in taken and name not in given})
    states = {name: item.wrapped for name, item in taken.items() if isinstance(item, values.StateType)}
    arrays = {name: item for name, item in taken.items() if name not in states}
    if len(arrays) + len(states) < len(function.inputs) or not given.keys() >= set(block.outputs):
        return described  # a damaged type: whoever runs the program gets the message
    problems: list[str] = []
    return Reconciled(
        tuple(_all(described.inputs, arrays, "input", problems)),
        tuple(_all(described.outputs, {name: given[name] for name in block.outputs}, "output", problems)),
        tuple(_all(described.states, states, "state", problems)),
        tuple(problems),
    )


def _types(named: Iterable[tuple[str, Any]]) -> dict[str, values.Type]:
    found = {}
    for name, message in named:
        try:
            found[name] = values.type_of(message, name)
        except ParityError:
            continue
    return found


def _outputs(block: Any, inputs: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Yield name and type message of the block's outputs, from the end on: there they are in every real program."""
    missing = set(block.outputs).difference(inputs)
    for operation in reversed(block.operations):
        if not missing:
            return
        for output in operation.outputs:
            if output.name in missing:
                missing.discard(output.name)
                yield output.name, output.type


def _all(
    described: tuple[Feature, ...], types: dict[str, values.Type], what: str, problems: list[str]
) -> Iterator[Feature]:
    for feature in described:
        if feature.name in types:
            yield _one(feature, types[feature.name], what, problems)
        elif feature.kind in ("array", "state"):
            problems.append(f"the description has {what} {feature.name!r}, the program has none of that name")
        else:
            yield feature
    names = {feature.name for feature in described}
    for name, found in types.items():
        if name in names or not _plain(found):
            continue
        if described:
            problems.append(f"the program has {what} {name!r}, the description has none of that name")
        yield _from_program(Feature(name, "state" if what == "state" else "array"), found)


def _plain(found: values.Type) -> bool:
    return isinstance(found, values.TensorType) and not found.variadic


def _one(feature: Feature, found: values.Type, what: str, problems: list[str]) -> Feature:
    if feature.kind not in ("array", "state") or not isinstance(found, values.TensorType) or found.variadic:
        return feature
    if found.dtype.name in _ARRAYS and feature.dtype and feature.dtype != found.dtype.name:
        text = f"{what} {feature.name!r} is {feature.dtype} in the description and {found.dtype.name} in the program"
        problems.append(text)
    if _undeclared(feature):
        return _from_program(feature, found)
    if not _fits(feature, found.shape):
        size = "×".join("?" if size is None else str(size) for size in found.shape) or "a scalar"
        text = f"{what} {feature.name!r} is {'×'.join(map(str, feature.shape))} in the description"
        problems.append(f"{text} and {size} in the program")
        return _from_program(feature, found)
    return replace(feature, dtype=_dtype(feature, found))


def _undeclared(feature: Feature) -> bool:
    return not feature.shape and not feature.ranges and not feature.shapes


def _fits(feature: Feature, shape: tuple[int | None, ...]) -> bool:
    """Tell whether what is described can be the program's shape; sizes that the program leaves open fit anything."""
    candidates = [feature.shape, *feature.shapes]
    if len(feature.shape) != len(shape):
        # A scalar of the program is described with one element, since arrays have at least one axis.
        return shape == () and math.prod(feature.shape) == 1
    return any(
        all(size is None or size == other for size, other in zip(shape, candidate, strict=True))
        for candidate in candidates
        if len(candidate) == len(shape)
    )


def _dtype(feature: Feature, found: values.TensorType) -> str:
    return found.dtype.name if found.dtype.name in _ARRAYS else feature.dtype


def _from_program(feature: Feature, found: values.Type) -> Feature:
    assert isinstance(found, values.TensorType)
    dtype = _dtype(feature, found) or found.dtype.name
    ranges = tuple(Range(size or 1, size) for size in found.shape) if None in found.shape else ()
    return replace(feature, shape=tuple(size or 1 for size in found.shape), dtype=dtype, ranges=ranges, shapes=())
