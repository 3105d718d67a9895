"""Is this chain of reshape, means, squares and divisions a group norm? Then it runs as one.

coremltools writes group norm as ``reshape, reduce_mean, sub, square, reduce_mean, add, sqrt, real_div, reshape``
and, where the layer has parameters other than 1 and 0, ``mul`` and ``add``. The fused result is rounded once. Where a
float16 square could overflow, the operations run one by one and every result is rounded, so hazards stay visible.
"""

from __future__ import annotations

from functools import partial

import torch

from parity.mil.fusion.match import View, fused
from parity.mil.graph import Node
from parity.mil.operators import Context
from parity.mil.rounding import rounder

_LARGEST = 120.0  # |x|; then |x - mean| < 240 and its square < 65504


def _stepwise(x: torch.Tensor, groups: int, epsilon: float) -> torch.Tensor:
    half = rounder("fp16", in_place=True)
    assert half is not None
    parts = x.reshape(x.shape[0], groups, -1)
    centred = half(parts - half(parts.mean(-1, keepdim=True)))
    variance = half(half(centred.square()).mean(-1, keepdim=True))
    return half(centred / half(half(variance + epsilon).sqrt())).reshape(x.shape)


def group_norm(
    context: Context,
    x: torch.Tensor,
    gamma: torch.Tensor | None = None,
    beta: torch.Tensor | None = None,
    *,
    groups: int,
    epsilon: float,
    guarded: bool,
) -> torch.Tensor:
    """Normalise x (batch, channels, …) in groups of channels; gamma and beta are per channel."""
    gamma = None if gamma is None else gamma.reshape(-1)
    beta = None if beta is None else beta.reshape(-1)
    if guarded:
        low, high = torch.aminmax(x)
        if not (float(high) < _LARGEST and float(low) > -_LARGEST):
            result = _stepwise(x, groups, epsilon)
            shape = (1, -1, *((1,) * (x.dim() - 2)))
            half = rounder("fp16", in_place=True)
            assert half is not None
            result = result if gamma is None else half(result * gamma.reshape(shape))
            return result if beta is None else result + beta.reshape(shape)
    return torch.nn.functional.group_norm(x, groups, gamma, beta, epsilon)


def rewrite(view: View, *, rounded: bool) -> None:
    """Replace every group norm in ``view``; ``rounded`` says that float16 results are rounded."""
    for node in [n for n in view.nodes if n.type == "real_div"]:
        _try(view, node, rounded=rounded)


def _try(view: View, division: Node, *, rounded: bool) -> None:
    root = view.only(division.inputs["y"][0], "sqrt")
    centred = view.only(division.inputs["x"][0], "sub", uses=2)
    shifted = view.only(root.inputs["x"][0], "add") if root else None
    if centred is None or root is None or shifted is None:
        return
    epsilon = view.scalar(shifted.inputs["y"][0])
    variance = view.only(shifted.inputs["x"][0], "reduce_mean")
    square = view.only(variance.inputs["x"][0], "square") if variance else None
    mean = view.only(centred.inputs["y"][0], "reduce_mean")
    spread = view.only(centred.inputs["x"][0], "reshape", uses=2)
    if epsilon is None or variance is None or square is None or mean is None or spread is None:
        return
    whole = centred.inputs["x"][0]
    shape = view.shape(whole)
    if square.inputs["x"][0] != division.inputs["x"][0] or mean.inputs["x"][0] != whole:
        return
    if shape is None or len(shape) < 3 or not shape[1]:
        return
    groups = shape[1]
    if not (_over_group(view, mean, len(shape)) and _over_group(view, variance, len(shape))):
        return
    back = view.reader(division.outputs[0], "reshape")
    x = spread.inputs["x"][0]
    if back is None or view.shape(x) != view.shape(back.outputs[0]):
        return
    channels = view.shape(x)
    if channels is None or len(channels) < 2 or channels[:1] != shape[:1] or (channels[1] or 0) % groups:
        return
    covered = [spread, mean, centred, square, variance, shifted, root, division, back]
    inputs = {"x": x, **_affine(view, covered, channels)}
    function = partial(
        group_norm, groups=groups, epsilon=epsilon, guarded=rounded and view.dtype(square.outputs[0]) == "fp16"
    )
    view.replace(covered, [fused("fused_group_norm", function, inputs, covered=covered)])


def _over_group(view: View, reduction: Node, rank: int) -> bool:
    """Tell whether a mean runs over all axes but batch and group, and keeps them."""
    axes = view.vector(reduction, "axes", ())
    return bool(view.constant(reduction, "keep_dims")) and sorted(a % rank for a in axes) == list(range(2, rank))


def _affine(view: View, covered: list[Node], channels: tuple[int | None, ...]) -> dict[str, str]:
    """Return scale and shift of each channel that follow, and add their operations to those that are covered."""
    inputs: dict[str, str] = {}
    for kind, parameter in (("mul", "gamma"), ("add", "beta")):
        reader = view.reader(covered[-1].outputs[0], kind)
        if reader is None:
            break
        a, b = reader.inputs["x"][0], reader.inputs["y"][0]
        other = b if a == covered[-1].outputs[0] else a
        if other not in view.fixed or not _per_channel(view.shape(other), channels):
            break
        inputs[parameter] = other
        covered.append(reader)
    return inputs


def _per_channel(shape: tuple[int | None, ...] | None, whole: tuple[int | None, ...]) -> bool:
    if shape is None or len(shape) > len(whole):
        return False
    padded = (1,) * (len(whole) - len(shape)) + shape
    return padded[1] == whole[1] and all(size == 1 for axis, size in enumerate(padded) if axis != 1)
