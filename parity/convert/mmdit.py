"""How does Stable Diffusion 3's transformer become a network with the released features, in at most five axes?

diffusers' module is traced as it is up to its last layer. Its way back from patches to a picture goes through a tensor
of six axes, which Core ML does not have: here the rows of the last layer are put in another order once, and a pixel
shuffle does the rest. The released converter writes the features that are written here, by way of another project's
modules (DiffusionKit), whose inner structure is not reproduced: names, shapes, types and texts are the contract's, the
operations inside are diffusers'.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from parity.convert.layout import shared_copy


class Transformer(nn.Module):
    """The transformer with the contract's four inputs.

    Parameters
    ----------
    model : SD3Transformer2DModel
        Of diffusers; its weights are shared.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner = shared_copy(model)
        self.patch = int(model.config.patch_size)
        last, channels = model.proj_out, int(model.out_channels)
        order = torch.arange(last.out_features).view(self.patch**2, channels).T.reshape(-1)
        self.last = nn.Linear(last.in_features, last.out_features)
        self.last.load_state_dict({"weight": last.weight[order].float(), "bias": last.bias[order].float()})

    def forward(self, latents: Tensor, context: Tensor, pooled: Tensor, timestep: Tensor) -> tuple[Tensor]:
        """Predict the flow.

        Parameters
        ----------
        latents : Tensor
            (B, C, h, w).
        context : Tensor
            (B, width, 1, tokens).
        pooled : Tensor
            (B, width, 1, 1).
        timestep : Tensor
            (B,), 1000 times sigma.
        """
        model = self.inner
        height, width = latents.shape[2] // self.patch, latents.shape[3] // self.patch
        image, text = model.pos_embed(latents), model.context_embedder(tokens_last(context))
        condition = model.time_text_embed(timestep, pooled[:, :, 0, 0])
        for block in model.transformer_blocks:
            text, image = block(hidden_states=image, encoder_hidden_states=text, temb=condition)
        rows = self.last(model.norm_out(image, condition))
        picture = rows.transpose(1, 2).reshape(rows.shape[0], rows.shape[2], height, width)
        return (nn.functional.pixel_shuffle(picture, self.patch),)


def tokens_last(context: Tensor) -> Tensor:
    """Turn (B, width, 1, tokens) into diffusers' (B, tokens, width)."""
    return context[:, :, 0].transpose(1, 2)
