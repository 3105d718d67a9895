"""How much padding do `valid`, `same`, `same_lower` and `custom` mean for convolutions and pools?"""

from __future__ import annotations

from collections.abc import Sequence

from parity.errors import UnsupportedError


def explicit(
    pad_type: str,
    pad: Sequence[int] | None,
    *,
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> tuple[int, ...]:
    """Return (before, after) per spatial axis, flat, in the order of the axes.

    `same` makes ``ceil(size / stride)`` results; an odd rest goes after (`same`) or before (`same_lower`).
    """
    if pad_type == "valid":
        return (0,) * (2 * len(sizes))
    if pad_type == "custom":
        return (0,) * (2 * len(sizes)) if pad is None else tuple(pad)
    if pad_type not in ("same", "same_lower"):
        raise UnsupportedError(f"pad_type {pad_type!r} is unknown; known are valid, same, same_lower, custom")
    amounts: list[int] = []
    for size, k, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max(0, stride * (-(-size // stride) - 1) + (k - 1) * dilation + 1 - size)
        small, large = total // 2, total - total // 2
        amounts += (small, large) if pad_type == "same" else (large, small)
    return tuple(amounts)


def reversed_pairs(pads: Sequence[int]) -> list[int]:
    """Return the pairs last axis first, as ``torch.nn.functional.pad`` wants them."""
    return [pads[i + side] for i in range(len(pads) - 2, -1, -2) for side in (0, 1)]
