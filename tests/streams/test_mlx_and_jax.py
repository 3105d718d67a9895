"""``mlx`` and ``jax`` against MLX and JAX, where this machine has them; Threefry against published vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parity import streams
from parity.streams.threefry import threefry

KEYS = st.integers(0, 2**64 - 1)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # Random123, tests/kat_vectors, threefry2x32 with 20 rounds
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry(counter: tuple[int, int], key: tuple[int, int], words: tuple[int, int]) -> None:
    found = threefry(key, *(np.array([word], np.uint32) for word in counter))
    assert tuple(int(word[0]) for word in found) == words


def _floats(values: Any, mx: Any) -> np.ndarray:
    return np.array(values.astype(mx.float32))


MLX_CALLS = st.lists(
    st.tuples(
        st.sampled_from(["normal", "uniform", "integers"]),
        st.sampled_from([(1,), (2,), (17,), (3, 7, 5), (1, 4, 16, 16), (65537,)]),
        st.sampled_from(["float32", "float16", "bfloat16"]),
        st.sampled_from([(0.0, 1.0), (0.3, 2.7), (0.0, 14.6146), (-1.5, 1.0)]),
        st.sampled_from([(0, 10), (-5, 2**20), (2**24, 2**24 + 3), (-(2**31), 2**31 - 1)]),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(KEYS, st.booleans(), MLX_CALLS)
def test_mlx_call_sequences(mx: Any, seed: int, split: bool, calls: list[Any]) -> None:
    mx.random.seed(seed)
    stream, key = streams.open("mlx", seed, split=split), None if split else mx.random.key(seed)
    with mx.stream(mx.cpu):
        for kind, shape, dtype, (mean, std), (low, high) in calls:
            if kind == "integers":
                expected = np.array(mx.random.randint(low, high, shape, key=key))
                assert np.array_equal(stream.integers(low, high, shape), expected)
            elif kind == "uniform":
                expected = _floats(mx.random.uniform(0, 1, shape, getattr(mx, dtype), key=key), mx)
                assert np.array_equal(stream.uniform(shape, dtype=dtype).astype(np.float32), expected)
            else:
                drawn = mx.random.normal(shape, getattr(mx, dtype), loc=mean, scale=std, key=key)
                values = stream.normal(shape, dtype=dtype, mean=mean, std=std).astype(np.float32)
                assert np.array_equal(values, _floats(drawn, mx))


def test_mlx_a_million_values(mx: Any) -> None:
    mx.random.seed(93)
    with mx.stream(mx.cpu):
        assert np.array_equal(streams.open("mlx", 93).normal(1_000_001), np.array(mx.random.normal((1_000_001,))))


def test_mlx_key_is_used_again() -> None:
    stream = streams.open("mlx", 93, split=False)
    assert np.array_equal(stream.normal(9), stream.normal(9))
    assert not np.any(stream.normal(9) == streams.open("mlx", 93).normal(9))


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_mlx_refuses_what_mlx_refuses(mx: Any, seed: int) -> None:
    with pytest.raises(TypeError):
        mx.random.key(seed)
    with pytest.raises(ValueError, match="seed"):
        streams.open("mlx", seed)


@pytest.mark.long
@pytest.mark.parametrize(
    ("seed", "partitionable"), [(93, True), (-1, True), (2**32 + 93, True), (2**63 - 1, True), (93, False)]
)
def test_jax(jax: Any, seed: int, partitionable: bool) -> None:
    """Words and uniforms equal; normals within 3 units in the last place, 1 % of them unequal."""
    before = jax.config.jax_threefry_partitionable
    jax.config.update("jax_threefry_partitionable", partitionable)
    try:
        key = jax.random.PRNGKey(seed)
        for shape in ((5,), (1, 4, 64, 64)):  # each costs JAX a compilation
            stream = streams.open("jax", seed, partitionable=partitionable)
            assert np.array_equal(stream.uniform(shape), np.asarray(jax.random.uniform(key, shape)))
            ours, theirs = stream.normal(shape), np.asarray(jax.random.normal(key, shape))
            apart = np.abs(ours.view(np.int32).astype(np.int64) - theirs.view(np.int32))
            assert apart.max() <= 3
            assert np.mean(apart > 0) < 0.015 or ours.size < 1000
        stream = streams.open("jax", seed, partitionable=partitionable, split=True)
        for _ in range(3):
            key, drawing = jax.random.split(key)
            assert np.array_equal(stream.uniform(9), np.asarray(jax.random.uniform(drawing, (9,))))
    finally:
        jax.config.update("jax_threefry_partitionable", before)


def test_jax_key_is_used_again() -> None:
    stream = streams.open("jax", 93)
    assert np.array_equal(stream.normal(9), stream.normal(9))
    with pytest.raises(ValueError, match="seed"):
        streams.open("jax", 2**63)
