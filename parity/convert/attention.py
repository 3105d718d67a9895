"""How do the three attention kinds of ml-stable-diffusion compute, on the (B, C, 1, S) layout?

All three are the same mathematics, softmax(k·q / sqrt(d))·v per head, in different arrangements:

* ``ORIGINAL``: all heads in one batched product, softmax over the last axis.
* ``SPLIT_EINSUM``: one pair of einsum operations a head, softmax over axis 1 (the layout that the Neural Engine likes).
* ``SPLIT_EINSUM_V2``: as above with the queries cut into blocks of 512, which bounds the size of the score tensors.

Proved by tests: equality with diffusers' attention in float32 for every kind and any number of tokens. The released
V2 dropped the queries behind the last full block (so 48x48 latents could not be converted); here they form a shorter
block. Not proved: that one kind is faster than another on any device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

QUERY_BLOCK: Final = 512

_SCORES: Final = "bchq,bkhc->bkhq"
_VALUES: Final = "bkhq,bchk->bchq"


def original(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Attention of all heads at once; see :func:`split_einsum` for the parameters."""
    batch, channels, _, tokens = query.shape
    width = channels // heads
    q, k, v = (x.view(batch, heads, width, -1) for x in (query, key, value))
    weights = torch.softmax(torch.matmul(q.transpose(2, 3), k) * width**-0.5, dim=3)
    return torch.matmul(v, weights.transpose(2, 3)).contiguous().view(batch, channels, 1, tokens)


def split_einsum(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Attention head by head, with the head's channels sliced from the channel axis.

    Parameters
    ----------
    query : Tensor, (B, C, 1, Q)
        What asks, channels first.
    key, value : Tensor, (B, C, 1, K)
        What is asked, and what is answered.
    heads : int
        Divides C.

    Returns
    -------
    Tensor, (B, C, 1, Q)
    """
    return _blocks(query, key, value, heads, block=query.shape[3])


def split_einsum_v2(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """As :func:`split_einsum` in blocks of 512 queries; fewer than 512 are one block, a remainder is a shorter one."""
    return _blocks(query, key, value, heads, block=QUERY_BLOCK)


def _blocks(query: Tensor, key: Tensor, value: Tensor, heads: int, *, block: int) -> Tensor:
    width = query.shape[1] // heads
    tokens = query.shape[3]
    keys = key.transpose(1, 3)
    outputs = []
    for start in range(0, heads * width, width):
        head = slice(start, start + width)
        q, k, v = query[:, head], keys[:, :, :, head], value[:, head]
        blocks = [q] if tokens <= block else [q[:, :, :, first : first + block] for first in range(0, tokens, block)]
        parts = [
            torch.einsum(_VALUES, torch.softmax(torch.einsum(_SCORES, part, k) * width**-0.5, dim=1), v)
            for part in blocks
        ]
        outputs.append(torch.cat(parts, dim=3) if len(parts) > 1 else parts[0])
    return torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0]


KINDS: Final[dict[str, Callable[[Tensor, Tensor, Tensor, int], Tensor]]] = {
    "ORIGINAL": original,
    "SPLIT_EINSUM": split_einsum,
    "SPLIT_EINSUM_V2": split_einsum_v2,
}
