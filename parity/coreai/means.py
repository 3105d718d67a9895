"""How does a group norm take its means in the files that are converted here, and why not as coreai-torch writes it?

Core AI's interpreter adds one float32 value after the other. A group norm over a picture takes the mean of up to a
million values, and the running sum loses what it can no longer hold: a VAE's encoder ends 75 dB from its original. So
the converted program takes the mean of each row, then of the rows' means, then over channels: the same mean in exact
arithmetic, and no sum is longer than a row, a column or the channels of a group. A file that somebody else converted
has coreai-torch's one mean over everything and is run as it is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def staged_group_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, *sizes: int | float
) -> tuple[Tensor, Tensor, Tensor]:
    """Decompose ``aten.native_group_norm`` into means of means.

    Parameters
    ----------
    x : Tensor
        (batch, channels, …), float32.
    weight, bias : Tensor or None
        (channels,).
    *sizes : int and float
        As the operator has them: batch, channels, the product of the other sizes, groups, epsilon.

    Returns
    -------
    tuple of Tensor
        The result, and mean and reciprocal deviation as (batch, groups).
    """
    batch, channels, _, groups, epsilon = sizes
    grouped = x.reshape(int(batch), int(groups), int(channels) // int(groups), *x.shape[2:])
    mean = _mean(grouped)
    centred = grouped - mean
    scale = torch.rsqrt(_mean(centred * centred) + epsilon)
    result = (centred * scale).reshape(x.shape)
    per_channel = (int(channels), *(1 for _ in x.shape[2:]))
    if weight is not None:
        result = result * weight.reshape(per_channel)
    if bias is not None:
        result = result + bias.reshape(per_channel)
    return result, mean.reshape(int(batch), int(groups)), scale.reshape(int(batch), int(groups))


def table() -> dict[Any, Any]:
    """Return coreai-torch's decompositions with this group norm among them."""
    import coreai_torch

    found = coreai_torch.get_decomp_table()
    found[torch.ops.aten.native_group_norm.default] = staged_group_norm
    return found


def _mean(grouped: Tensor) -> Tensor:
    """Return the mean over all axes behind batch and groups, an axis at a time, the last one first."""
    for axis in range(grouped.dim() - 1, 1, -1):
        grouped = grouped.mean(dim=axis, keepdim=True)
    return grouped
