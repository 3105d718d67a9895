"""How does a diffusers UNet or ControlNet become the network that ml-stable-diffusion's converter writes?

The released converter has its own UNet source, written for the Neural Engine: every linear layer is a 1x1 convolution
on (B, C, 1, S), layer norms act on axis 1, attention comes in three kinds (:mod:`parity.convert.attention`) and the
text context arrives as (B, D, 1, S). Here diffusers' own module is kept and four of its parts are replaced by
equivalents in that layout: time embedding, residual block, transformer and everything inside it. So diffusers decides
the wiring (skips, residuals, sizes), and the weights are views of the original's: nothing is copied.

Proved by tests: equality with the untouched diffusers module in float32 for all attention kinds and families, and the
operator fingerprints of the released converter. Not covered, and refused by name: dual or only-cross attention, gated
and adaptive norms, other time embeddings than positional, added embeddings other than ``text_time``.
"""

from __future__ import annotations

import copy
from typing import Any, Final

import torch
from torch import Tensor, nn

from parity.convert.attention import KINDS
from parity.errors import UnsupportedError

_ONLY: Final[dict[str, tuple[Any, ...]]] = {
    "dual_cross_attention": (False, None),
    "only_cross_attention": (False, None),
    "addition_embed_type": (None, "text_time"),
    "class_embed_type": (None,),
    "encoder_hid_dim_type": (None,),
    "time_embedding_type": ("positional", None),
    "resnet_time_scale_shift": ("default",),
    "attention_type": ("default", None),
    "time_cond_proj_dim": (None,),
    "num_class_embeds": (None,),
    "center_input_sample": (False, None),
}


def refuse(config: Any, name: str) -> None:
    """Raise when a network's configuration uses a feature that no converter release writes.

    Parameters
    ----------
    config : mapping
        ``config.json`` of a ``UNet2DConditionModel`` or ``ControlNetModel``.
    name : str
        What to call the network in the message.

    Raises
    ------
    UnsupportedError
        Names field, value and what is allowed.
    """
    for field, allowed in _ONLY.items():
        value = config.get(field)
        if isinstance(value, (list, tuple)):
            value = next((v for v in value if v not in allowed), allowed[0])
        if value is not None and value not in allowed:
            names = " or ".join(repr(a) for a in allowed)
            raise UnsupportedError(f"{name}: {field} = {value!r}; every converter release needs {names}")


def _convolution(linear: nn.Module) -> nn.Module:
    """Return the 1x1 convolution with a linear layer's weights (shared), or the convolution that it already is."""
    if isinstance(linear, nn.Conv2d):
        return linear
    assert isinstance(linear, nn.Linear)
    with torch.device("meta"):
        result = nn.Conv2d(linear.in_features, linear.out_features, 1, bias=linear.bias is not None)
    result.weight = nn.Parameter(linear.weight.detach()[:, :, None, None], requires_grad=False)
    if linear.bias is not None:
        result.bias = nn.Parameter(linear.bias.detach(), requires_grad=False)
    return result


class ChannelNorm(nn.Module):
    """Layer norm over axis 1 of (B, C, 1, S).

    The released network shifts before it scales, ``(x̂ + bias / weight) * weight``, which fails where a weight is zero.
    Scale before shift needs no quotient, and coremltools folds both into the same ``layer_norm`` operation.
    """

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.eps = norm.eps
        self.weight = norm.weight
        self.bias = norm.bias

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, 1, S)."""
        centred = x - x.mean(dim=1, keepdim=True)
        scaled = centred * torch.rsqrt(centred.square().mean(dim=1, keepdim=True) + self.eps)
        return scaled * self.weight[None, :, None, None] + self.bias[None, :, None, None]


class SplitAttention(nn.Module):
    """diffusers' ``Attention`` on (B, C, 1, S), self or cross."""

    def __init__(self, attention: Any, kind: str) -> None:
        super().__init__()
        self.heads = attention.heads
        self.compute = KINDS[kind]
        self.to_q = _convolution(attention.to_q)
        self.to_k = _convolution(attention.to_k)
        self.to_v = _convolution(attention.to_v)
        self.to_out = _convolution(attention.to_out[0])

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Attend from x (B, C, 1, Q) to context (B, D, 1, K)."""
        return self.to_out(self.compute(self.to_q(x), self.to_k(context), self.to_v(context), self.heads))


class FeedForward(nn.Module):
    """diffusers' ``FeedForward`` with GEGLU on (B, C, 1, S)."""

    def __init__(self, feed_forward: Any) -> None:
        super().__init__()
        if type(feed_forward.net[0]).__name__ != "GEGLU":
            raise UnsupportedError(f"feed-forward {type(feed_forward.net[0]).__name__}; every release needs GEGLU")
        self.proj = _convolution(feed_forward.net[0].proj)
        self.out = _convolution(feed_forward.net[2])

    def forward(self, x: Tensor) -> Tensor:
        """Apply to (B, C, 1, S)."""
        value, gate = self.proj(x).chunk(2, dim=1)
        return self.out(value * nn.functional.gelu(gate))


class TransformerBlock(nn.Module):
    """diffusers' ``BasicTransformerBlock`` on (B, C, 1, S)."""

    def __init__(self, block: Any, kind: str) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (ChannelNorm(n) for n in (block.norm1, block.norm2, block.norm3))
        self.attn1 = SplitAttention(block.attn1, kind)
        self.attn2 = SplitAttention(block.attn2, kind)
        self.ff = FeedForward(block.ff)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Apply self attention, cross attention and feed-forward to x (B, C, 1, S)."""
        normed = self.norm1(x)
        x = self.attn1(normed, normed) + x
        x = self.attn2(self.norm2(x), context) + x
        return self.ff(self.norm3(x)) + x


class Transformer(nn.Module):
    """diffusers' ``Transformer2DModel`` with context (B, D, 1, S); called as its blocks call the original."""

    def __init__(self, transformer: Any, kind: str) -> None:
        super().__init__()
        self.norm = transformer.norm
        self.proj_in = _convolution(transformer.proj_in)
        self.blocks = nn.ModuleList(TransformerBlock(b, kind) for b in transformer.transformer_blocks)
        self.proj_out = _convolution(transformer.proj_out)

    def forward(self, x: Tensor, encoder_hidden_states: Tensor, **_: Any) -> tuple[Tensor]:
        """Apply to a feature map (B, C, h, w)."""
        batch, _channels, height, width = x.shape
        hidden = self.proj_in(self.norm(x))
        hidden = hidden.view(batch, hidden.shape[1], 1, height * width)
        for block in self.blocks:
            hidden = block(hidden, encoder_hidden_states)
        hidden = hidden.view(batch, hidden.shape[1], height, width)
        return (self.proj_out(hidden) + x,)


class TimeEmbedding(nn.Module):
    """diffusers' ``TimestepEmbedding``, from (B, C) to (B, E, 1, 1)."""

    def __init__(self, embedding: Any) -> None:
        super().__init__()
        self.linear_1 = _convolution(embedding.linear_1)
        self.act = embedding.act
        self.linear_2 = _convolution(embedding.linear_2)

    def forward(self, x: Tensor, condition: None = None) -> Tensor:
        """Embed; ``condition`` exists because the UNet passes it and is always None here."""
        return self.linear_2(self.act(self.linear_1(x[:, :, None, None])))


class ResnetBlock(nn.Module):
    """diffusers' ``ResnetBlock2D`` with a time embedding of (B, E, 1, 1)."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        if block.up or block.down or block.time_embedding_norm != "default":
            raise UnsupportedError("residual block with resampling or scale-shift; no converter release writes it")
        self.norm1, self.conv1, self.norm2, self.conv2 = block.norm1, block.conv1, block.norm2, block.conv2
        self.nonlinearity = block.nonlinearity
        self.time_emb_proj = _convolution(block.time_emb_proj)
        self.conv_shortcut = block.conv_shortcut
        self.output_scale_factor = block.output_scale_factor

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        """Apply to (B, C, h, w)."""
        hidden = self.conv1(self.nonlinearity(self.norm1(x)))
        hidden = hidden + self.time_emb_proj(self.nonlinearity(temb))
        hidden = self.conv2(self.nonlinearity(self.norm2(hidden)))
        shortcut = x if self.conv_shortcut is None else self.conv_shortcut(x)
        result = shortcut + hidden
        return result if self.output_scale_factor == 1 else result / self.output_scale_factor


def shared_copy(module: nn.Module) -> nn.Module:
    """Copy a module's structure while sharing its tensors; a module that is not float32 is converted in the copy."""
    if any(t.is_floating_point() and t.dtype != torch.float32 for t in module.state_dict().values()):
        return copy.deepcopy(module).float().eval()
    tensors = [*module.parameters(), *module.buffers()]
    return copy.deepcopy(module, {id(t): t for t in tensors}).eval()


def rewrite(network: nn.Module, attention: str) -> nn.Module:
    """Return a copy of a diffusers UNet or ControlNet in the (B, C, 1, S) layout, sharing the original's weights.

    Parameters
    ----------
    network : UNet2DConditionModel or ControlNetModel
        Left as it is.
    attention : str
        A key of :data:`parity.convert.attention.KINDS`.

    Returns
    -------
    nn.Module
        Called as the original, with ``encoder_hidden_states`` (B, D, 1, S) instead of (B, S, D).

    Raises
    ------
    UnsupportedError
        The network has parts that no converter release writes.
    """
    refuse(network.config, type(network).__name__)
    result = shared_copy(network)
    _replace(result, attention)
    return result.requires_grad_(False)


def _replace(parent: nn.Module, attention: str) -> None:
    for name, child in list(parent.named_children()):
        kind = type(child).__name__
        if kind == "Transformer2DModel":
            setattr(parent, name, Transformer(child, attention))
        elif kind == "ResnetBlock2D":
            setattr(parent, name, ResnetBlock(child))
        elif kind == "TimestepEmbedding":
            setattr(parent, name, TimeEmbedding(child))
        else:
            _replace(child, attention)
