"""Is this matmul, softmax, matmul an attention? Then it runs blockwise and never holds all scores.

``matmul(softmax([matmul(q, k) · scale] [+ mask]), v)`` becomes torch's scaled dot product attention. The result is
rounded once; scores and probabilities are not, which is what a fused kernel does. Where float16 scores could overflow
(bounded by the largest norms of q and k), or a row is masked out entirely, the operations run one by one and every
result is rounded, so hazards stay visible.
"""

from __future__ import annotations

from functools import partial

import torch
from torch.nn.functional import scaled_dot_product_attention

from parity.mil.fusion.match import View, fused
from parity.mil.graph import Node
from parity.mil.operators import Context
from parity.mil.rounding import rounder

_LARGEST = 60_000.0  # of float16's 65504: leaves room for rounding of the bound itself
_MASKED = -30_000.0


def _safe(query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, scale: float) -> bool:
    """Tell whether no score can leave float16's range and no row is masked out."""
    bound = torch.linalg.vector_norm(query, dim=-1).amax() * torch.linalg.vector_norm(key, dim=-1).amax()
    if mask is not None:
        rows = mask.amax(-1)
        if not bool(rows.amin() > _MASKED):
            return False
        bound = bound + rows.amax().abs()
    return bool(bound * max(1.0, abs(scale)) < _LARGEST)


def _stepwise(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    half = rounder("fp16", in_place=True)
    assert half is not None
    scores = half(torch.matmul(query, key.mT))
    if scale != 1.0:
        scores = half(scores * scale)
    if mask is not None:
        scores = half(scores + mask)
    return torch.matmul(half(torch.softmax(scores, -1)), value)


def attention(
    context: Context,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    scale: float,
    transposed: bool,
    guarded: bool,
) -> torch.Tensor:
    """Compute ``softmax(query @ key.T * scale + mask) @ value``; ``transposed`` keys have shape (…, E, S)."""
    if transposed:
        key = key.mT
    if guarded and not _safe(query, key, mask, scale):
        return _stepwise(query, key, value, mask, scale)
    missing = 4 - query.dim()  # the blockwise kernel wants (batch, heads, length, size)
    if missing > 0:
        query, key, value = (x[(None,) * missing] for x in (query, key, value))
    if mask is not None and mask.dim() < 2:  # torch's kernel wants rows and columns
        mask = mask[None]
    result = scaled_dot_product_attention(query, key, value, mask, scale=scale)
    return result[(0,) * missing] if missing > 0 else result


def _mask_fits(view: View, mask: str, scores: str) -> bool:
    shape, whole = view.shape(mask), view.shape(scores)
    if shape is None or whole is None or len(shape) > len(whole) or not shape:
        return False
    return all(m == 1 or m == s for m, s in zip(shape[::-1], whole[::-1], strict=False))


def rewrite(view: View, *, rounded: bool) -> None:
    """Replace every attention in ``view``; ``rounded`` says that float16 results are rounded."""
    for node in [n for n in view.nodes if n.type == "matmul"]:
        _try(view, node, rounded=rounded)


def _try(view: View, second: Node, *, rounded: bool) -> None:
    softmax = view.only(second.inputs["x"][0], "softmax")
    if softmax is None or view.constant(second, "transpose_x", False) or view.constant(second, "transpose_y", False):
        return
    scores = softmax.inputs["x"][0]
    shape = view.shape(scores)
    if shape is None or not 3 <= len(shape) <= 4 or view.constant(softmax, "axis", -1) not in (-1, len(shape) - 1):
        return
    covered = [second, softmax]
    mask: str | None = None
    scale = 1.0
    current = scores
    add = view.only(current, "add")
    if add is not None:
        x, y = add.inputs["x"][0], add.inputs["y"][0]
        first, other = (x, y) if view.only(x, "matmul") or view.only(x, "mul") else (y, x)
        if not _mask_fits(view, other, scores) or not view.dtype(other).startswith("fp"):
            return
        mask, current = other, first
        covered.append(add)
    mul = view.only(current, "mul")
    if mul is not None:
        x, y = mul.inputs["x"][0], mul.inputs["y"][0]
        factor, current = (view.scalar(y), x) if view.scalar(y) is not None else (view.scalar(x), y)
        if factor is None:
            return
        scale = factor
        covered.append(mul)
    first_matmul = view.only(current, "matmul")
    if first_matmul is None or view.constant(first_matmul, "transpose_x", False):
        return
    covered.append(first_matmul)
    query, key, value = first_matmul.inputs["x"][0], first_matmul.inputs["y"][0], second.inputs["y"][0]
    shapes = [view.shape(name) for name in (query, key, value)]
    if any(s is None or len(s) != len(shape) or s[:-2] != shape[:-2] for s in shapes):  # no broadcasting of heads
        return
    covered.reverse()
    function = partial(
        attention,
        scale=scale,
        transposed=not view.constant(first_matmul, "transpose_y", False),
        guarded=rounded and view.dtype(scores) == "fp16",
    )
    inputs = {"query": query, "key": key, "value": value} | ({"mask": mask} if mask is not None else {})
    view.replace(covered, [fused("fused_attention", function, inputs, covered=covered)])
