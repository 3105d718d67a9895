"""Does this shape follow that formula, and which sizes does it imply?

A contract states shapes as text such as ``"1, 3, 8*h, 8*w"``. Steps:

1. parse each entry into an expression of whole numbers, names, ``+``, ``-`` and ``*`` (Python's own parser reads
   it, a fixed list of node types is accepted, nothing is ever evaluated as code);
2. :meth:`Shape.evaluate` computes the sizes from given names;
3. :meth:`Shape.solve` goes the other way: it reads names off a concrete shape (``512`` for ``8*h`` gives ``h = 64``).

Proved by tests: evaluation and solution are inverse to each other. Formulas must be
linear in each name; divisions, powers and functions are refused.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from parity.errors import FormatError, UsageError


@dataclass(frozen=True)
class Shape:
    """A shape as formulas.

    Attributes
    ----------
    text : str
        The formula as the table states it, entries separated by commas; empty text is a scalar's shape.
    """

    text: str

    def __post_init__(self) -> None:
        _parse(self.text)  # a malformed table fails when it is read, not when it is used

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(_parse(self.text))

    @property
    def names(self) -> tuple[str, ...]:
        """Names that occur, in order of appearance."""
        found: dict[str, None] = {}
        for entry in _parse(self.text):
            found.update(dict.fromkeys(_names(entry)))
        return tuple(found)

    def evaluate(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Compute the shape.

        Parameters
        ----------
        sizes : mapping of str to int
            A value for every name of the formula; further names are ignored.

        Returns
        -------
        tuple of int

        Raises
        ------
        UsageError
            When a name has no value or an entry comes out negative.

        Examples
        --------
        >>> Shape("1, 3, 8*h, 8*w").evaluate({"h": 64, "w": 96})
        (1, 3, 512, 768)
        """
        missing = [name for name in self.names if name not in sizes]
        if missing:
            raise UsageError(f"shape '{self.text}': no value for {', '.join(missing)}")
        shape = tuple(_value(entry, sizes) for entry in _parse(self.text))
        if min(shape, default=0) < 0:
            raise UsageError(f"shape '{self.text}' comes out as {shape}: sizes must not be negative")
        return shape

    def solve(self, shape: Sequence[int | None], *, known: Mapping[str, int] | None = None) -> dict[str, int] | None:
        """Read the names off a concrete shape.

        Parameters
        ----------
        shape : sequence of int or None
            None is a size that is not known; it contradicts nothing and determines nothing.
        known : mapping of str to int, optional
            Values that must be respected.

        Returns
        -------
        dict or None
            ``known`` and every name that one entry determines; None when the shape contradicts the formula.

        Examples
        --------
        >>> Shape("B, 4, 8*h").solve((2, 4, 512))
        {'B': 2, 'h': 64}
        >>> Shape("B, 4, 8*h").solve((2, 4, 511)) is None
        True
        """
        entries = _parse(self.text)
        if len(entries) != len(shape):
            return None
        values = dict(known or {})
        waiting = [(entry, size) for entry, size in zip(entries, shape, strict=True) if size is not None]
        while waiting:
            left = []
            for entry, size in waiting:
                open_names = [name for name in _names(entry) if name not in values]
                if len(open_names) > 1:
                    left.append((entry, size))
                elif open_names:
                    solution = _solve_linear(entry, open_names[0], size, values)
                    if solution is None:
                        return None
                    values[open_names[0]] = solution
                elif _value(entry, values) != size:
                    return None
            if len(left) == len(waiting):  # entries with several unknown names decide nothing
                break
            waiting = left
        return values


@cache
def _parse(text: str) -> tuple[ast.expr, ...]:
    if not text.strip():
        return ()
    try:
        tree = ast.parse(f"({text},)", mode="eval").body
    except SyntaxError as error:
        raise FormatError(f"shape '{text}' cannot be read: {error.msg}") from None
    if not isinstance(tree, ast.Tuple):
        raise FormatError(f"shape '{text}' is not a list of sizes separated by commas")
    for entry in tree.elts:
        for node in ast.walk(entry):
            number = isinstance(node, ast.Constant) and type(node.value) is int
            if not number and not isinstance(node, (ast.Name, ast.Load, ast.BinOp, ast.Add, ast.Sub, ast.Mult)):
                raise FormatError(f"shape '{text}': only whole numbers, names, +, - and * are allowed")
    return tuple(tree.elts)


def _names(entry: ast.expr) -> list[str]:
    return list(dict.fromkeys(node.id for node in ast.walk(entry) if isinstance(node, ast.Name)))


def _value(entry: ast.expr, sizes: Mapping[str, int]) -> int:
    if isinstance(entry, ast.Constant):
        return int(entry.value)  # type: ignore[arg-type]  # _parse lets whole numbers through only
    if isinstance(entry, ast.Name):
        return sizes[entry.id]
    assert isinstance(entry, ast.BinOp)
    left, right = _value(entry.left, sizes), _value(entry.right, sizes)
    if isinstance(entry.op, ast.Add):
        return left + right
    if isinstance(entry.op, ast.Sub):
        return left - right
    return left * right


def _solve_linear(entry: ast.expr, name: str, size: int, values: Mapping[str, int]) -> int | None:
    """Solve ``entry == size`` for ``name`` where the entry is linear in it (all of the tables' are)."""
    at = [_value(entry, {**values, name: point}) for point in (0, 1, 2)]
    slope = at[1] - at[0]
    if slope == 0 or at[2] - at[1] != slope or (size - at[0]) % slope:
        return None
    solution = (size - at[0]) // slope
    return solution if solution >= 0 else None
