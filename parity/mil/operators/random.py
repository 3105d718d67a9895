"""Random operators with named, seeded streams.

Core ML documents neither its generator nor its stream, so no value here equals a device's; what is promised is that a
run repeats: each operation draws from a torch generator of its own, seeded by the operation's `seed` or, where that is
-1 (not reproducible on a device), by the session's seed and the operation's name. The stream goes on when an operation
runs again within one prediction (a loop) and starts over with the next.
"""

from __future__ import annotations

import hashlib

import torch

from parity.errors import UnsupportedError
from parity.mil.operators.limits import affordable
from parity.mil.operators.registry import Context, operator


def _generator(context: Context, seed: int) -> torch.Generator:
    generator = context.generators.get(context.name)
    if generator is None:
        if seed < 0:
            digest = hashlib.sha256(f"{context.random_seed}/{context.name}".encode()).digest()
            seed = int.from_bytes(digest[:8], "little") >> 1
        generator = context.generators[context.name] = torch.Generator().manual_seed(seed)
    return generator


@operator("random_normal", static=("shape", "mean", "stddev", "seed"))
def random_normal(
    context: Context, shape: tuple[int, ...], mean: float = 0.0, stddev: float = 1.0, seed: int = -1
) -> torch.Tensor:
    """Normally distributed values."""
    affordable(context, shape)
    return torch.randn(shape, generator=_generator(context, seed)) * stddev + mean


@operator("random_uniform", static=("shape", "low", "high", "seed"))
def random_uniform(
    context: Context, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0, seed: int = -1
) -> torch.Tensor:
    """Values uniform in [low, high)."""
    affordable(context, shape)
    return torch.rand(shape, generator=_generator(context, seed)) * (high - low) + low


@operator("random_bernoulli", exact=True, static=("shape", "prob", "seed"))
def random_bernoulli(context: Context, shape: tuple[int, ...], prob: float = 0.5, seed: int = -1) -> torch.Tensor:
    """1 with probability `prob`, else 0."""
    affordable(context, shape)
    return (torch.rand(shape, generator=_generator(context, seed)) < prob).float()


@operator("random_categorical", static=("mode", "size", "seed"))
def random_categorical(
    context: Context, x: torch.Tensor, mode: str = "logits", size: int = 1, seed: int = -1
) -> torch.Tensor:
    """`size` draws with replacement from each distribution over the last axis, as floating-point indices."""
    if mode not in ("logits", "probs"):
        raise UnsupportedError(f"operation {context.name!r}: random_categorical mode {mode!r}; logits or probs")
    affordable(context, [*x.shape[:-1], size])
    weights = torch.softmax(x, -1) if mode == "logits" else x
    draws = torch.multinomial(
        weights.reshape(-1, x.shape[-1]), size, replacement=True, generator=_generator(context, seed)
    )
    return draws.reshape(*x.shape[:-1], size).float()
