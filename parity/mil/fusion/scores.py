"""What stands between the product of queries and keys and their softmax?

Both forms of attention walk from the softmax back to the product: past a mask that is added, then past a scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from parity.mil.fusion.match import View
from parity.mil.graph import Node
from parity.mil.rounding import rounder

_LARGEST = 60_000.0  # of float16's 65504: leaves room for rounding of the bound itself
_MASKED = -30_000.0


@dataclass(frozen=True, slots=True)
class Scores:
    """What makes ``product * scale + mask``.

    Attributes
    ----------
    product : Node
        Computes the products of queries and keys.
    covered : tuple of Node
        The product and what follows it, in reverse order.
    scale : float
        1.0 where there is none.
    mask : str or None
        Name of the mask.
    """

    product: Node
    covered: tuple[Node, ...]
    scale: float
    mask: str | None


def find(view: View, name: str, kind: str, *, fits: Callable[[str], bool]) -> Scores | None:
    """Return how the value ``name`` follows from an operation of type ``kind``, or None where it does not.

    ``fits`` tells whether a value can be a mask.
    """
    covered: list[Node] = []
    mask: str | None = None
    scale = 1.0
    add = view.only(name, "add")
    if add is not None:
        x, y = add.inputs["x"][0], add.inputs["y"][0]
        name, mask = (x, y) if view.only(x, kind) or view.only(x, "mul") else (y, x)
        if not fits(mask) or not view.dtype(mask).startswith("fp"):
            return None
        covered.append(add)
    mul = view.only(name, "mul")
    if mul is not None:
        x, y = mul.inputs["x"][0], mul.inputs["y"][0]
        factor, name = (view.scalar(y), x) if view.scalar(y) is not None else (view.scalar(x), y)
        if factor is None:
            return None
        scale = factor
        covered.append(mul)
    product = view.only(name, kind)
    return None if product is None else Scores(product, (*covered, product), scale, mask)


def broadcasts(view: View, mask: str, scores: str) -> bool:
    """Tell whether the shape of ``mask`` broadcasts to that of ``scores`` and has an axis at all."""
    shape, whole = view.shape(mask), view.shape(scores)
    if shape is None or whole is None or len(shape) > len(whole) or not shape:
        return False
    return all(m == 1 or m == s for m, s in zip(shape[::-1], whole[::-1], strict=False))


def safe(query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, scale: float) -> bool:
    """Tell whether no score can leave float16's range and no row is masked out.

    Queries are (…, Q, C), keys (…, K, C), masks (…, Q, K); scores are bounded by the largest norms.
    """
    bound = torch.linalg.vector_norm(query, dim=-1).amax() * torch.linalg.vector_norm(key, dim=-1).amax()
    if mask is not None:
        rows = mask.amax(-1)
        if not bool(rows.amin() > _MASKED):
            return False
        bound = bound + rows.amax().abs()
    return bool(bound * max(1.0, abs(scale)) < _LARGEST)


def stepwise(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """Compute attention with every intermediate result rounded to float16; the last one is left to the caller."""
    half = rounder("fp16", in_place=True)
    assert half is not None
    scores = half(torch.matmul(query, key.mT))
    if scale != 1.0:
        scores = half(scores * scale)
    if mask is not None:
        scores = half(scores + mask)
    return torch.matmul(half(torch.softmax(scores, -1)), value)
