"""Shapes as formulas: evaluation, solution, and that nothing but arithmetic is accepted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.contracts import Shape, converters
from parity.errors import FormatError, UsageError

FORMULAS = sorted(
    {
        rule.shape_formula.text
        for window in converters().windows
        for contract in window.components
        for rule in (*contract.inputs, *contract.outputs)
    }
)


@pytest.mark.parametrize("text", FORMULAS)
@given(data=st.data())
def test_solving_inverts_evaluating(text: str, data: st.DataObject) -> None:
    shape = Shape(text)
    sizes = {name: data.draw(st.integers(1, 4096), label=name) for name in shape.names}
    added = {name.strip() for term in text.split(",") if "+" in term for name in term.split("+")}  # none by itself
    assert shape.solve(shape.evaluate(sizes)) == {name: size for name, size in sizes.items() if name not in added}


@given(st.integers(0, 2000))
def test_a_size_that_is_no_multiple_contradicts(size: int) -> None:
    assert (Shape("8*h").solve((size,)) is None) == (size % 8 != 0)


def test_known_values_are_respected() -> None:
    assert Shape("B, 4").solve((2, 4), known={"B": 1}) is None
    assert Shape("B*T").solve((12,), known={"B": 2}) == {"B": 2, "T": 6}
    assert Shape("B*T").solve((12,)) == {}
    assert Shape("B, h").solve((2,)) is None


@pytest.mark.parametrize(
    "text", ["__import__('os')", "h**2", "h/2", "f(h)", "h, [1]", "1.5", "True", "a b", "h if w else 1"]
)
def test_only_arithmetic_is_accepted(text: str) -> None:
    with pytest.raises(FormatError, match="shape"):
        Shape(text)


def test_a_missing_name_and_a_negative_size_are_named() -> None:
    with pytest.raises(UsageError, match="no value for w"):
        Shape("h, w").evaluate({"h": 1})
    with pytest.raises(UsageError, match="negative"):
        Shape("h - 9").evaluate({"h": 1})
