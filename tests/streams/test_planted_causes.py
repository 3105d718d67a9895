"""A table of planted causes: two arrays that differ for a reason known beforehand, and the kind that must be named.

Named is a cause whose kind is the planted one; wrong is any other cause that claims to explain something. Kinds that
say what was seen or what is left (:data:`parity.streams.compare.UNEXPLAINED`) claim nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from parity import streams
from parity.streams.compare import UNEXPLAINED, Cause, explain
from parity.streams.swift import SwiftStream
from parity.streams.torch_half import rounded

SHAPE = (1, 4, 32, 32)
Pair = tuple[np.ndarray, np.ndarray]


def drawn(
    name: str = "torch-cpu", seed: int = 93, *, shape: Any = SHAPE, dtype: str | None = None, **options: Any
) -> Any:
    return streams.open(name, seed, **options).normal(shape, dtype=dtype)


def later(name: str, nth: int, **options: Any) -> np.ndarray:
    stream = streams.open(name, 93, **options)
    for _ in range(nth):
        stream.normal(SHAPE)
    return stream.normal(SHAPE)


def each(name: str) -> np.ndarray:
    stream = streams.open(name, 93)
    assert isinstance(stream, SwiftStream)
    return stream.normal_each(SHAPE)


def channels_last() -> np.ndarray:
    """What ``torch.randn_like`` makes of a channels-last tensor."""
    memory = torch.empty(SHAPE).to(memory_format=torch.channels_last)
    return memory.normal_(generator=torch.Generator().manual_seed(93)).contiguous().numpy()


def nhwc() -> np.ndarray:
    return np.ascontiguousarray(drawn().transpose(0, 2, 3, 1))


def shifted() -> Pair:
    values = drawn(shape=4096 + 4)
    return values[:4096], values[4:]


def items(seeds: list[int]) -> np.ndarray:
    return np.concatenate([drawn(seed=seed) for seed in seeds])


def bfloat16(values: np.ndarray) -> np.ndarray:
    return rounded(values, "bfloat16")


F16 = np.float16
# name, kind that must be named, kinds that may stand beside it, the pair
PLANTED: list[tuple[str, str, set[str], Callable[[], Pair]]] = [
    ("seed off by one", "seed", set(), lambda: (drawn(), drawn(seed=94))),
    ("rounded to float16", "rounded", set(), lambda: (drawn(), drawn().astype(F16))),
    ("float16 values stored as float32", "rounded", set(), lambda: (drawn(), drawn().astype(F16).astype(np.float32))),
    ("rounded to bfloat16", "rounded", set(), lambda: (drawn(), bfloat16(drawn()))),
    ("kernel", "kernel", set(), lambda: (drawn(), drawn(kernel="libm"))),
    ("one generator for each item", "how", set(), lambda: (drawn(shape=(2, 4, 32, 32)), items([93, 94]))),
    ("scaled by sigma", "scaled", set(), lambda: (drawn(), drawn() * np.float32(14.6146))),
    ("scaled and rounded", "scaled", set(), lambda: (drawn(), (drawn() * np.float32(0.18215)).astype(F16))),
    ("CPU against CUDA", "stream", set(), lambda: (drawn(), drawn("torch-cuda"))),
    ("NumPy in float16 against torch", "stream", set(), lambda: (drawn("numpy-legacy").astype(F16), drawn())),
    ("NHWC file", "order", set(), lambda: (drawn(), nhwc())),
    ("height and width swapped", "order", set(), lambda: (drawn(), drawn().transpose(0, 1, 3, 2).copy())),
    ("channels reversed", "order", set(), lambda: (drawn(), drawn()[:, ::-1].copy())),
    ("mirrored", "order", set(), lambda: (drawn(), drawn()[..., ::-1].copy())),
    ("upside down", "order", set(), lambda: (drawn(), drawn()[:, :, ::-1].copy())),
    ("NHWC bytes read as NCHW", "order", set(), lambda: (drawn(), nhwc().reshape(SHAPE))),
    ("second draw", "draw", set(), lambda: (drawn(), later("torch-cpu", 1))),
    ("third draw, as of a step's noise", "draw", set(), lambda: (drawn(), later("torch-cpu", 2))),
    ("Swift's second image", "draw", {"related"}, lambda: (drawn(), later("swift-torch", 1))),
    ("value by value in Swift", "how", set(), lambda: (drawn("swift-torch"), each("swift-torch"))),
    ("value by value in torch", "how", {"then"}, lambda: (drawn(), channels_last())),
    ("added mean", "offset", set(), lambda: (drawn(), drawn() + np.float32(0.25))),
    ("added noise", "noise", set(), lambda: (drawn(), drawn() + np.float32(0.5) * later("torch-cpu", 1))),
    ("noise mixed in", "noise", set(), lambda: (drawn(), np.float32(0.8) * drawn() + np.float32(0.6) * drawn(seed=94))),
    ("crop", "cut", set(), lambda: (drawn(), drawn()[..., 8:24, 8:24].copy())),
    ("crop of another stream", "cut", set(), lambda: (drawn("mlx"), drawn("mlx")[:, :, :16].copy())),
    ("MPS", "stream", set(), lambda: (drawn(), drawn("torch-mps"))),
    ("MLX", "stream", set(), lambda: (drawn(), drawn("mlx"))),
    ("MLX with a key", "how", set(), lambda: (drawn("mlx"), drawn("mlx", split=False))),
    ("JAX", "stream", set(), lambda: (drawn(), drawn("jax"))),
    ("shift", "shift", set(), shifted),
    (
        "half types' rule",
        "release",
        set(),
        lambda: tuple(drawn(dtype="float16", torch_version=v) for v in ("2.11", "2.13")),
    ),
    (
        "float16 of torch 2.11 against float32",
        "dtype",
        set(),
        lambda: (drawn(), drawn(dtype="float16", torch_version="2.11")),
    ),
    ("float64 against float32", "dtype", set(), lambda: (drawn(), drawn(dtype="float64").astype(np.float32))),
    ("ragged end", "ragged", {"related"}, lambda: (drawn(shape=1000), drawn("swift-torch", shape=1000))),
    ("two GPUs", "geometry", set(), lambda: tuple(drawn("torch-cuda", shape=50_000, device=d) for d in ("A100", "T4"))),
    ("shape", "shape", set(), lambda: (drawn(), drawn().reshape(4, 1024))),
    ("batch items in another order", "order", set(), lambda: (items([93, 94, 95]), items([95, 93, 94]))),
    ("seed of a Swift source off by one", "seed", set(), lambda: (drawn("swift-torch"), drawn("swift-torch", 92))),
    ("scaled NumPy against torch", "stream", {"then"}, lambda: (drawn(), drawn("numpy-legacy") * 14.6146)),
]


@pytest.mark.parametrize(("kind", "beside", "pair"), [row[1:] for row in PLANTED], ids=[row[0] for row in PLANTED])
def test_planted_cause_is_named(kind: str, beside: set[str], pair: Callable[[], Pair]) -> None:
    for a, b in (pair(), pair()[::-1]):
        causes = explain(a, b, seeds=[93])
        claimed = {cause.kind for cause in causes} - UNEXPLAINED
        assert kind in claimed, "\n".join(map(str, causes))
        assert claimed <= {kind, *beside}, "\n".join(map(str, causes))
        assert not any(cause.kind == "unknown" for cause in causes)


def _kinds(causes: list[Cause]) -> set[str]:
    return {cause.kind for cause in causes}


@pytest.mark.parametrize(
    "pair",
    [
        lambda: (drawn(), drawn(seed=555)),
        lambda: (drawn(), np.linspace(-1, 1, 4096, dtype=np.float32).reshape(SHAPE)),
        lambda: (drawn(), drawn() + np.float32(0.1) * drawn(seed=555)),
        lambda: (drawn(), np.where(drawn(seed=555) > 2.5, np.float32(0), drawn())),
        lambda: (drawn(), np.zeros(SHAPE, np.float32)),
        lambda: (drawn(), np.full(SHAPE, np.nan, np.float32)),
        lambda: (drawn(), np.random.default_rng(1).permuted(drawn(seed=555), axis=None)),
    ],
    ids=["seed not tried", "no noise", "unknown noise added", "some values changed", "zeros", "NaN", "shuffled"],
)
def test_what_is_not_explained_is_said(pair: Callable[[], Pair]) -> None:
    a, b = pair()
    causes = explain(a, b, seeds=[93])
    assert _kinds(causes) <= UNEXPLAINED
    assert "A is torch-cpu seed 93" in "\n".join(map(str, causes))
    assert "B was not recognised" in "\n".join(map(str, causes))


def test_a_shuffled_array_is_seen_as_one() -> None:
    shuffled = np.random.default_rng(1).permuted(drawn(), axis=None)
    (cause, origin) = explain(drawn(), shuffled, seeds=[93])
    assert "in another order, which no layout or mirror tried explains" in str(cause)
    assert "torch-cpu seed 93" in str(origin)


def test_equal_arrays_need_no_cause() -> None:
    assert explain(drawn(), drawn()) == []
    assert _kinds(explain(drawn(), drawn().astype(np.float64))) == {"dtype"}
