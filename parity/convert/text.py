"""How does a CLIP text encoder become a network that traces the same with every release of transformers?

transformers builds the causal mask and the attention by ways that change with its version, some of which coremltools
cannot read. The layers themselves have kept their names for years, so the forward pass is written here over them:
embeddings, layers with a constant causal mask, final norm, the embedding of the end-of-text token.

The mask's constant is -10000, as the released converter has it: the smallest float overflows to -inf in float16.
Proved by tests: equality with transformers' own model in float32. Not covered: attention masks for padding, which no
pipeline of this family passes.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn

from parity.convert.folded import attend

MASKED: Final = -1e4


class TextEncoder(nn.Module):
    """CLIP text model, with or without projection.

    Parameters
    ----------
    model : CLIPTextModel or CLIPTextModelWithProjection
        Its weights are shared.
    tokens : int
        Length of the token ids.
    penultimate : bool
        Return the hidden state before the last layer (SDXL) instead of the normalised last one.
    rank : int
        Of the attention's batched products, 3 or 4; see :mod:`parity.convert.folded`.
    """

    def __init__(self, model: Any, *, tokens: int, penultimate: bool, rank: int = 4) -> None:
        super().__init__()
        text = getattr(model, "text_model", model)  # transformers 5 dropped the inner module of CLIPTextModel
        self.embeddings = text.embeddings
        self.layers = text.encoder.layers
        self.final_layer_norm = text.final_layer_norm
        self.projection = getattr(model, "text_projection", None)
        self.penultimate = penultimate
        self.rank = rank
        self.heads = model.config.num_attention_heads
        self.eos = model.config.eos_token_id
        mask = torch.full((tokens, tokens), MASKED).triu(1)
        self.register_buffer("mask", mask[None, None])

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Encode token ids (1, S), of any numeric type, to hidden states (1, S, D) and the pooled embedding (1, P)."""
        ids = input_ids.to(torch.int32)
        hidden = self.embeddings.token_embedding(ids) + self.embeddings.position_embedding.weight[None, : ids.shape[1]]
        before_last = hidden
        for layer in self.layers:
            before_last = hidden
            hidden = hidden + self._attention(layer.self_attn, layer.layer_norm1(hidden))
            hidden = hidden + layer.mlp(layer.layer_norm2(hidden))
        last = self.final_layer_norm(hidden)
        pooled = last[torch.arange(1), self._end(ids)]
        if self.projection is not None:
            pooled = self.projection(pooled)
        return (before_last if self.penultimate else last), pooled

    def _end(self, ids: Tensor) -> Tensor:
        if self.eos == 2:  # configurations written before 2023 say 2; then the largest id marks the end
            return ids.argmax(dim=-1)
        return (ids == self.eos).to(torch.int32).argmax(dim=-1)

    def _attention(self, attention: Any, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = attention.q_proj(x) * (width // self.heads) ** -0.5, attention.k_proj(x), attention.v_proj(x)
        if self.rank == 3:
            return attention.out_proj(attend(q, k, v, self.heads, self.mask))
        q, k, v = (t.view(batch, tokens, self.heads, width // self.heads).transpose(1, 2) for t in (q, k, v))
        weights = torch.softmax(torch.matmul(q, k.transpose(2, 3)) + self.mask, dim=-1)
        return attention.out_proj(torch.matmul(weights, v).transpose(1, 2).reshape(batch, tokens, width))
