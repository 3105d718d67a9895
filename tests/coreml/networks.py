"""Small networks of the kinds that people convert, with example inputs: what `test_networks` compares with PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Network:
    """A module in evaluation mode, its example inputs in order, and the deployment target it is converted for."""

    module: nn.Module
    inputs: dict[str, Tensor]
    target: str = "iOS16"


class _First(nn.Module):
    """Calls a module with ``return_dict=False`` and fixed keywords; gives its tensors as a tuple."""

    def __init__(self, module: Callable, *names: str, **fixed: object) -> None:
        super().__init__()
        self.module = module
        self.names = names
        self.fixed = fixed

    def forward(self, *values: Tensor) -> tuple[Tensor, ...] | Tensor:
        result = self.module(**dict(zip(self.names, values, strict=True)), **self.fixed)
        return result[0] if len(result) == 1 else tuple(result)


def text_encoder() -> Network:
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=99, hidden_size=32, intermediate_size=37, num_attention_heads=4, num_hidden_layers=3, eos_token_id=98
    )
    ids = torch.randint(0, 97, (1, 77), dtype=torch.int32)
    ids[0, 20:] = 98

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = CLIPTextModel(config)

        def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
            return self.model(input_ids.to(torch.long), return_dict=False)

    return Network(Encoder(), {"input_ids": ids})


def unet() -> Network:
    from diffusers import UNet2DConditionModel

    model = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=8,
        norm_num_groups=8,
    )
    model.set_default_attn_processor()
    inputs = {
        "sample": torch.randn(2, 4, 16, 16),
        "timestep": torch.tensor([7.0, 7.0]),
        "encoder_hidden_states": torch.randn(2, 77, 32),
    }
    return Network(_First(model, *inputs, return_dict=False), inputs)


def _vae() -> nn.Module:
    from diffusers import AutoencoderKL

    model = AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=8,
    )
    for module in model.modules():
        if hasattr(module, "set_default_attn_processor"):
            module.set_default_attn_processor()
    return model


def vae_decoder() -> Network:
    model = _vae()

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.post_quant_conv, self.decoder = model.post_quant_conv, model.decoder

        def forward(self, z: Tensor) -> Tensor:
            return self.decoder(self.post_quant_conv(z))

    return Network(Decoder(), {"z": torch.randn(1, 4, 16, 16)})


def vae_encoder() -> Network:
    model = _vae()

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quant_conv, self.encoder = model.quant_conv, model.encoder

        def forward(self, x: Tensor) -> Tensor:
            return self.quant_conv(self.encoder(x))

    return Network(Encoder(), {"x": torch.rand(1, 3, 32, 32) * 2 - 1})


def controlnet() -> Network:
    from diffusers import ControlNetModel

    model = ControlNetModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=8,
        norm_num_groups=8,
        conditioning_embedding_out_channels=(16, 32),
    )
    model.set_default_attn_processor()
    for block in [*model.controlnet_down_blocks, model.controlnet_mid_block, model.controlnet_cond_embedding.conv_out]:
        nn.init.normal_(block.weight, std=0.1)  # zero-initialised: every output would be zero
    inputs = {
        "sample": torch.randn(2, 4, 16, 16),
        "timestep": torch.tensor([7.0, 7.0]),
        "encoder_hidden_states": torch.randn(2, 77, 32),
        "controlnet_cond": torch.rand(2, 3, 32, 32),
    }

    class Residuals(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, sample: Tensor, timestep: Tensor, states: Tensor, condition: Tensor) -> tuple[Tensor, ...]:
            down, middle = self.model(sample, timestep, states, condition, return_dict=False)
            return (*down, middle)

    return Network(Residuals(), inputs)


def safety_checker() -> Network:
    """CLIP's image tower and the checker's cosine distances to concepts, without its in-place image blanking."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    class Checker(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            config = CLIPVisionConfig(
                hidden_size=32,
                intermediate_size=37,
                num_attention_heads=4,
                num_hidden_layers=2,
                image_size=32,
                patch_size=8,
            )
            self.vision = CLIPVisionModel(config)
            self.projection = nn.Linear(32, 16, bias=False)
            self.concepts = nn.Parameter(torch.randn(17, 16))
            self.thresholds = nn.Parameter(torch.rand(17))

        def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
            embedding = self.projection(self.vision(image, return_dict=False)[1])
            embedding = embedding / embedding.norm(dim=-1, keepdim=True)
            concepts = self.concepts / self.concepts.norm(dim=-1, keepdim=True)
            scores = embedding @ concepts.t() - self.thresholds
            return scores, (scores > 0).any(dim=1).to(torch.int32)

    return Network(Checker(), {"image": torch.randn(1, 3, 32, 32)})


def lstm() -> Network:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(12, 16, num_layers=2, batch_first=True, bidirectional=True)
            self.head = nn.Linear(32, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.lstm(x)[0]).softmax(-1)

    return Network(Recurrent(), {"x": torch.randn(2, 9, 12)})


def resnet() -> Network:
    class Block(nn.Module):
        def __init__(self, inner: int, outer: int, stride: int) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(inner, outer, 3, stride, 1, bias=False),
                nn.BatchNorm2d(outer),
                nn.ReLU(),
                nn.Conv2d(outer, outer, 3, 1, 1, groups=4, bias=False),
                nn.BatchNorm2d(outer),
            )
            self.skip = nn.Conv2d(inner, outer, 1, stride)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.body(x) + self.skip(x))

    module = nn.Sequential(
        nn.Conv2d(3, 16, 7, 2, 3),
        nn.MaxPool2d(3, 2, 1),
        Block(16, 16, 1),
        Block(16, 32, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )
    for layer in module.modules():  # running statistics of a network that has seen data
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, std=0.2)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    return Network(module, {"image": torch.randn(1, 3, 64, 64)})


def detector() -> Network:
    """A small anchor-free head; its boxes and scores go through non-maximum suppression (see `test_networks`)."""

    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.SiLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.SiLU())
            self.boxes = nn.Conv2d(16, 4, 1)
            self.classes = nn.Conv2d(16, 3, 1)
            steps = torch.arange(8.0) + 0.5
            self.register_buffer("centres", torch.stack(torch.meshgrid(steps, steps, indexing="xy")).flatten(1))

        def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
            features = self.body(image)
            distances = self.boxes(features).flatten(2)
            centres = self.centres + distances[:, :2].tanh()
            boxes = torch.cat([centres, 2 + distances[:, 2:].exp()], dim=1).transpose(1, 2)
            return boxes, self.classes(features).flatten(2).sigmoid().transpose(1, 2)

    return Network(Detector(), {"image": torch.randn(1, 3, 32, 32)})


class Decoder(nn.Module):
    """One attention block with a cache of keys and values that each step extends: a transformer with state."""

    def __init__(self, width: int = 32, heads: int = 4, length: int = 16) -> None:
        super().__init__()
        self.heads, self.length = heads, length
        self.embedding = nn.Embedding(50, width)
        self.projection = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, 50)
        self.norm = nn.LayerNorm(width)
        self.register_buffer("keys", torch.zeros(1, heads, length, width // heads))
        self.register_buffer("values", torch.zeros(1, heads, length, width // heads))

    def forward(self, token: Tensor, position: Tensor) -> Tensor:
        hidden = self.embedding(token)
        parts = self.projection(self.norm(hidden)).view(1, 1, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = parts[0], parts[1], parts[2]
        here = (torch.arange(self.length) == position).view(1, 1, -1, 1).to(key.dtype)
        self.keys.mul_(1 - here).add_(key * here)
        self.values.mul_(1 - here).add_(value * here)
        scores = query @ self.keys.transpose(-1, -2) / query.shape[-1] ** 0.5
        scores = scores + (torch.arange(self.length) > position).to(scores.dtype) * -1e4
        attended = (scores.softmax(-1) @ self.values).transpose(1, 2).reshape(1, 1, -1)
        return self.output(hidden + attended)


ALL: dict[str, Callable[[], Network]] = {
    each.__name__: each
    for each in (text_encoder, unet, vae_decoder, vae_encoder, controlnet, safety_checker, lstm, resnet, detector)
}


def build(name: str, seed: int) -> Network:
    """Return a network with weights and inputs drawn from a seed."""
    torch.manual_seed(seed)
    network = ALL[name]()
    network.module.eval().requires_grad_(False)
    return network


def reference(network: Network) -> list[np.ndarray]:
    """Return PyTorch's outputs in order."""
    with torch.no_grad():
        results = network.module(*network.inputs.values())
    return [value.numpy() for value in (results if isinstance(results, tuple) else (results,))]
