"""Attention of three axes, as text encoders of transformers up to 4.42 have it: traced, and by MIL builder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

TOKENS, WIDTH, HEADS, LAYERS, WORDS = 77, 32, 4, 2, 64


def traced_encoder(path: Path, *, folded: bool = True) -> Path:
    """Trace a small CLIP text model and convert it; ``folded`` puts the heads into the first axis of the products."""
    import coremltools as ct
    import torch

    torch.manual_seed(5)
    traced = torch.jit.trace(_encoder(folded), torch.zeros(1, TOKENS))
    model = ct.convert(
        traced,
        inputs=[ct.TensorType(name="input_ids", shape=(1, TOKENS), dtype=np.float32)],
        outputs=[ct.TensorType(name=n, dtype=np.float32) for n in ("last_hidden_state", "pooled_outputs")],
        minimum_deployment_target=ct.target.macOS13,
        skip_model_load=True,
    )
    model.save(str(path))
    return path


def _encoder(folded: bool) -> Any:
    import torch
    from torch import nn

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

        def forward(self, x: Any, mask: Any) -> Any:
            batch, tokens, width = x.shape
            size = width // HEADS

            def heads(value: Any) -> Any:
                value = value.view(batch, tokens, HEADS, size).transpose(1, 2)
                return value.reshape(batch * HEADS, tokens, size) if folded else value

            q, k, v = heads(self.q(x) * size**-0.5), heads(self.k(x)), heads(self.v(x))
            scores = torch.matmul(q, k.transpose(-1, -2))
            if folded:
                masked = scores.view(batch, HEADS, tokens, tokens) + mask
                scores = masked.view(batch * HEADS, tokens, tokens)
            else:
                scores = scores + mask
            result = torch.matmul(torch.softmax(scores, -1), v)
            result = result.view(batch, HEADS, tokens, size) if folded else result
            return self.out(result.transpose(1, 2).reshape(batch, tokens, width))

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(TOKENS, WIDTH)
            self.attention = nn.ModuleList(Attention() for _ in range(LAYERS))
            self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(LAYERS + 1))
            self.register_buffer("mask", torch.triu(torch.full((1, 1, TOKENS, TOKENS), -1e4), 1))
            self.register_buffer("order", torch.arange(TOKENS)[None])

        def forward(self, input_ids: Any) -> Any:
            x = self.words(input_ids.long()) + self.places(self.order)
            for norm, attention in zip(self.norms, self.attention, strict=False):
                x = x + attention(norm(x), self.mask)
            x = self.norms[-1](x)
            return x, x[:, -1]

    return Encoder().eval()


def built(path: Path, function: Any, *, target: str = "macOS13") -> Path:
    """Convert a MIL builder program without passes that would change its attention, and save it."""
    import coremltools as ct

    model = ct.convert(
        function,
        minimum_deployment_target=getattr(ct.target, target),
        compute_precision=ct.precision.FLOAT32,
        pass_pipeline=ct.PassPipeline.EMPTY,
        skip_model_load=True,
    )
    model.save(str(path))
    return path


def odd_attention(path: Path) -> Path:
    """Two prompts at once; a mask of three axes for each head, keys turned, a scale, a result that is read folded."""
    from coremltools.converters.mil import Builder as mb  # noqa: N813

    random = np.random.RandomState(3)
    mask = random.standard_normal((6, 5, 5)).astype(np.float32)

    @mb.program(input_specs=[mb.TensorSpec(shape=(2, 3, 5, 4)), mb.TensorSpec(shape=(6, 5, 4))])
    def program(x, y):
        q = mb.mul(x=mb.reshape(x=x, shape=(6, 5, 4)), y=np.float32(0.5))
        k = mb.transpose(x=y, perm=(0, 2, 1))
        scores = mb.add(x=mb.matmul(x=q, y=k), y=mask)
        weights = mb.softmax(x=scores, axis=2)
        result = mb.matmul(x=weights, y=mb.add(x=y, y=y))
        return mb.sub(x=result, y=y), mb.reshape(x=result, shape=(2, 3, 5, 4))

    return built(path, program)


def fused_attention(path: Path, *, width: int, dtype: Any = np.float16) -> Path:
    """One operator for attention, as coremltools writes it for iOS 18."""
    from coremltools.converters.mil import Builder as mb  # noqa: N813
    from coremltools.converters.mil.mil import types

    kind = types.fp16 if dtype == np.float16 else types.fp32
    shape = (1, 1, 6, width)

    @mb.program(input_specs=[mb.TensorSpec(shape=shape, dtype=kind)], opset_version=_opset())
    def program(z):
        return mb.scaled_dot_product_attention(query=z, key=z, value=z)

    return built(path, program, target="iOS18")


def _opset() -> Any:
    import coremltools as ct

    return ct.target.iOS18


def biased_attention(path: Path, batch: int) -> Path:
    """Attention of four axes with a constant bias."""
    from coremltools.converters.mil import Builder as mb  # noqa: N813

    bias = np.random.RandomState(1).standard_normal((1, 2, 7, 7)).astype(np.float32)

    @mb.program(input_specs=[mb.TensorSpec(shape=(batch, 2, 7, 4))])
    def program(x):
        scores = mb.add(x=mb.matmul(x=x, y=x, transpose_y=True), y=bias)
        return mb.matmul(x=mb.softmax(x=scores, axis=-1), y=x)

    return built(path, program)


def palettized(path: Path, *, scale: bool) -> Path:
    """A linear layer with 4-bit tables, with or without a scale for each channel."""
    import coremltools as ct
    import coremltools.optimize.coreml as cto
    from coremltools.converters.mil import Builder as mb  # noqa: N813

    weight = np.random.RandomState(2).standard_normal((64, 64)).astype(np.float32)

    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 64))], opset_version=_opset())
    def program(x):
        return mb.linear(x=x, weight=weight)

    model = ct.convert(program, minimum_deployment_target=ct.target.iOS18, skip_model_load=True)
    options = cto.OpPalettizerConfig(
        mode="kmeans", nbits=4, granularity="per_tensor", enable_per_channel_scale=scale, weight_threshold=1
    )
    cto.palettize_weights(model, cto.OptimizationConfig(global_config=options)).save(str(path))
    return path


def flexible(path: Path) -> Path:
    """An input with a range of sizes."""
    import coremltools as ct
    import torch

    class Twice(torch.nn.Module):
        def forward(self, z: Any) -> Any:
            return z * 2

    size = ct.RangeDim(8, 64, default=16)
    model = ct.convert(
        torch.jit.trace(Twice(), torch.zeros(1, 4, 16, 16)),
        inputs=[ct.TensorType(name="z", shape=(1, 4, size, size))],
        minimum_deployment_target=ct.target.macOS13,
        skip_model_load=True,
    )
    model.save(str(path))
    return path
