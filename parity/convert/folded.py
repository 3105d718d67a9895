"""How did attention outside the UNet look before transformers and diffusers left it to torch?

Until 2024 both folded the heads into the batch: queries, keys and values became (batch · heads, tokens, width), and two
batched products of rank 3 did the work. Today's libraries trace to products of rank 4. It is the same arithmetic in the
same order, but not the same program: macOS 27.2 was reported to crash on the old form of a text encoder, and a package
"as 0.2.0 wrote it" has to have it.

Proved by tests: equality with today's modules in float32; the ranks and the number of each operator that packages of
the time have (``fixtures/eras``). Not reproduced: names of values, and how the causal mask came about (computed in the
graph then, a constant here).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Attention with the heads folded into the batch.

    Parameters
    ----------
    q, k, v : Tensor, (B, S, C)
        The queries are scaled already.
    heads : int
        Divides C.
    mask : Tensor, (1, 1, S, S), optional
        Added to the scores.

    Returns
    -------
    Tensor, (B, S, C)
    """
    batch, tokens, channels = q.shape
    width = channels // heads

    def fold(x: Tensor) -> Tensor:
        return x.view(batch, tokens, heads, width).transpose(1, 2).reshape(batch * heads, tokens, width)

    q, k, v = fold(q), fold(k), fold(v)
    scores = torch.bmm(q, k.transpose(1, 2))
    if mask is not None:
        scores = (scores.view(batch, heads, tokens, tokens) + mask).view(batch * heads, tokens, tokens)
    result = torch.bmm(torch.softmax(scores, dim=-1), v)
    return result.view(batch, heads, tokens, width).transpose(1, 2).reshape(batch, tokens, channels)


class FoldedAttention(nn.Module):
    """diffusers' ``Attention`` over the pixels of a VAE's feature map, in the form of its time.

    Parameters
    ----------
    attention : diffusers.models.attention_processor.Attention
        With a group norm and a residual connection; its weights are shared.
    """

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.heads = attention.heads
        self.factor = attention.rescale_output_factor
        self.group_norm = attention.group_norm
        self.to_q, self.to_k, self.to_v = attention.to_q, attention.to_k, attention.to_v
        self.to_out = attention.to_out[0]

    def forward(self, x: Tensor, **_: Any) -> Tensor:
        """Attend within (B, C, h, w); a VAE has no time embedding, whatever diffusers passes."""
        batch, channels, height, width = x.shape
        pixels = self.group_norm(x).view(batch, channels, height * width).transpose(1, 2)
        scale = (channels // self.heads) ** -0.5
        hidden = attend(self.to_q(pixels) * scale, self.to_k(pixels), self.to_v(pixels), self.heads)
        result = self.to_out(hidden).transpose(1, 2).reshape(batch, channels, height, width) + x
        return result if self.factor == 1 else result / self.factor


def fold(module: nn.Module) -> nn.Module:
    """Replace every ``Attention`` inside a module (in place) by :class:`FoldedAttention`, and return the module."""
    for name, child in module.named_children():
        if type(child).__name__ == "Attention":
            setattr(module, name, FoldedAttention(child))
        else:
            fold(child)
    return module
