"""Can a weight be laid out for the processor once, instead of at every product or convolution?

The reordered weight takes the place of the plain one, so memory stays the same. Only where torch has oneDNN, the weight
is constant, and it pays. Measured on an x86 server with AVX-512:

* **linear**: oneDNN's blocked layout makes float32 products of the sizes of a UNet 15 to 25 % faster than the default
  library, given enough rows.
* **conv** in two dimensions: torch reorders the weight at each call. With 1280 channels that is half of the time on 2
  images of 8x8 (ratio 0.53), a fifth on 16x16 (0.80) and nothing on 32x32 and larger; 1x1 convolutions even lose there.
  So only convolutions with few results are prepared.

oneDNN's functions check little, so only what fits together by declared shapes gets there; anything else runs as it is
and is named there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from parity.mil.fusion.match import View, fused
from parity.mil.graph import Node
from parity.mil.operators import Context
from parity.mil.operators.padding import explicit

_ROWS = 32
_PLACES = 512  # pixels of the results of all images of a convolution
_ELEMENTS = 1 << 16
_OPERATORS = (
    "_reorder_linear_weight",
    "_linear_pointwise",
    "_reorder_convolution_weight",
    "_convolution_pointwise",
)


def available() -> bool:
    """Tell whether torch can do it here."""
    return bool(torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in _OPERATORS))


def _product(context: Context, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def rewrite(view: View) -> None:
    """Let linear layers and convolutions of ``view`` use reordered weights."""
    if not available():
        return
    for node in [n for n in view.nodes if n.type in ("linear", "conv")]:
        shapes = [_sizes(view, node.inputs[parameter][0]) for parameter in ("x", "weight")]
        x, weight = shapes
        if x is None or weight is None or node.inputs["weight"][0] not in view.fixed or math.prod(weight) < _ELEMENTS:
            continue
        if view.dtype(node.inputs["x"][0]) not in ("fp16", "fp32"):
            continue
        bias = node.inputs.get("bias")
        if bias is not None and _sizes(view, bias[0]) != weight[:1]:
            continue
        if node.type == "linear" and len(weight) == 2 and x[-1:] == weight[1:]:
            _linear(view, node, math.prod(x[:-1]))
        elif node.type == "conv" and len(x) == len(weight) == 4:
            _convolution(view, node, x, weight)


def _sizes(view: View, name: str) -> tuple[int, ...] | None:
    shape = view.shape(name)
    known = tuple(size for size in shape or () if size is not None)
    return known if shape is not None and len(known) == len(shape) else None


def _pair(value: Any, least: int) -> tuple[int, int] | None:
    """Return two whole numbers of at least ``least``, or None for anything else."""
    fits = (
        isinstance(value, tuple) and len(value) == 2 and all(isinstance(v, int) and least <= v < 1 << 16 for v in value)
    )
    return (value[0], value[1]) if fits else None


def _linear(view: View, node: Node, rows: int) -> None:
    if rows >= _ROWS:
        _replace(view, node, str(rows), lambda w: torch.ops.mkldnn._reorder_linear_weight(w, rows), _product)


def _convolution(view: View, node: Node, x: tuple[int, ...], weight: tuple[int, ...]) -> None:
    for name in ("strides", "pad_type", "pad", "dilations", "groups"):
        if name in node.inputs and not view.fixed.issuperset(node.inputs[name]):
            return
    strides, dilations = (_pair(view.constant(node, name, (1, 1)), 1) for name in ("strides", "dilations"))
    pad_type, pad = view.constant(node, "pad_type", "valid"), view.constant(node, "pad", (0, 0, 0, 0))
    groups = view.constant(node, "groups", 1)
    whole = isinstance(groups, int) and groups > 0 and x[1] == weight[1] * groups and weight[0] % groups == 0
    if strides is None or dilations is None or not whole or pad_type not in ("valid", "same", "same_lower", "custom"):
        return
    if pad_type == "custom" and (len(pad) != 4 or _pair(pad[::2], 0) is None or pad[::2] != pad[1::2]):
        return
    pads = explicit(pad_type, pad, sizes=x[2:], kernel=weight[2:], strides=strides, dilations=dilations)
    padding = list(pads[::2])
    geometry = zip(x[2:], padding, weight[2:], dilations, strides, strict=True)
    sizes = [(size + 2 * amount - (k - 1) * step - 1) // stride + 1 for size, amount, k, step, stride in geometry]
    if padding != list(pads[1::2]) or min(*x, *weight, *sizes) < 1 or x[0] * math.prod(sizes) > _PLACES:
        return
    options = (padding, list(strides), list(dilations), groups)

    def convolve(
        context: Context, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *options, "none", [], "")

    def reorder(weight: torch.Tensor) -> torch.Tensor:
        return torch.ops.mkldnn._reorder_convolution_weight(weight, *options, list(x))

    _replace(view, node, f"{x}{options}", reorder, convolve)


def _replace(
    view: View,
    node: Node,
    how: str,
    reorder: Callable[[torch.Tensor], torch.Tensor],
    compute: Callable[..., torch.Tensor],
) -> None:
    """Put two operations in the place of ``node``; the first is a constant, shared by all that reorder it this way."""
    weight = node.inputs["weight"][0]
    packed = f"%packed:{how}:{weight}"
    inputs = {"x": node.inputs["x"][0], "weight": packed} | {k: v[0] for k, v in node.inputs.items() if k == "bias"}

    def pack(context: Context, weight: torch.Tensor) -> torch.Tensor:
        return reorder(weight)

    view.replace(
        [node],
        [
            fused("pack", pack, {"weight": weight}, covered=[node], outputs=(packed,), exact=True, aliases=True),
            fused(node.type, compute, inputs, covered=[node]),
        ],
    )
