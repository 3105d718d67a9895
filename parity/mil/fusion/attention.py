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

from parity.mil.fusion import scores
from parity.mil.fusion.match import View, fused
from parity.mil.graph import Node
from parity.mil.operators import Context


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
    if guarded and not scores.safe(query, key, mask, scale):
        return scores.stepwise(query, key, value, mask, scale)
    missing = 4 - query.dim()  # the blockwise kernel wants (batch, heads, length, size)
    if missing > 0:
        query, key, value = (x[(None,) * missing] for x in (query, key, value))
    if mask is not None and mask.dim() < 2:  # torch's kernel wants rows and columns
        mask = mask[None]
    result = scaled_dot_product_attention(query, key, value, mask, scale=scale)
    return result[(0,) * missing] if missing > 0 else result


def rewrite(view: View, *, rounded: bool) -> None:
    """Replace every attention in ``view``; ``rounded`` says that float16 results are rounded."""
    for node in [n for n in view.nodes if n.type == "matmul"]:
        _try(view, node, rounded=rounded)


def _try(view: View, second: Node, *, rounded: bool) -> None:
    softmax = view.only(second.inputs["x"][0], "softmax")
    if softmax is None or view.constant(second, "transpose_x", False) or view.constant(second, "transpose_y", False):
        return
    name = softmax.inputs["x"][0]
    shape = view.shape(name)
    if shape is None or not 3 <= len(shape) <= 4 or view.constant(softmax, "axis", -1) not in (-1, len(shape) - 1):
        return
    found = scores.find(view, name, "matmul", fits=lambda mask: scores.broadcasts(view, mask, name))
    if found is None or view.constant(found.product, "transpose_x", False):
        return
    query, key, value = found.product.inputs["x"][0], found.product.inputs["y"][0], second.inputs["y"][0]
    shapes = [view.shape(operand) for operand in (query, key, value)]
    if any(s is None or len(s) != len(shape) or s[:-2] != shape[:-2] for s in shapes):  # no broadcasting of heads
        return
    covered = [*reversed(found.covered), softmax, second]
    function = partial(
        attention,
        scale=found.scale,
        transposed=not view.constant(found.product, "transpose_y", False),
        guarded=rounded and view.dtype(name) == "fp16",
    )
    inputs = {"query": query, "key": key, "value": value} | ({"mask": found.mask} if found.mask is not None else {})
    view.replace(covered, [fused("fused_attention", function, inputs, covered=covered)])
