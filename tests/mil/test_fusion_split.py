"""Attention of one head in einsum form, as split-einsum conversions have it: found, right, hiding no hazard."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from parity import mil
from parity.convert.attention import KINDS
from parity.mil.fusion import split_attention

_SHAPES = {"q": (2, 16, 1, 700), "k": (2, 16, 1, 40), "v": (2, 16, 1, 40)}


@pytest.fixture(autouse=True)
def _fuse_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_attention, "_KEYS", 1)


def _inputs(seed: int, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def _run(
    path: Path, x: dict[str, np.ndarray], profile: str = "float32", *, fuse: bool = True
) -> tuple[np.ndarray, list[str]]:
    kinds: list[str] = []
    session = mil.Session(mil.load(path), profile, fuse=fuse)
    (output,) = session.predict(x, callback=lambda event: kinds.append(event.type)).values()
    return output.astype(np.float64), kinds


@pytest.fixture(scope="module", params=["SPLIT_EINSUM", "SPLIT_EINSUM_V2"])
def heads(request: pytest.FixtureRequest, ct: Any, convert: Any) -> tuple[Path, str]:
    """Two heads; V2 cuts 700 queries into two blocks."""

    class Split(torch.nn.Module):
        def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return KINDS[request.param](q, k, v, 2)

    inputs = [ct.TensorType(name=name, shape=shape) for name, shape in _SHAPES.items()]
    return convert(Split(), tuple(torch.zeros(shape) for shape in _SHAPES.values()), inputs=inputs), request.param


def test_converted_heads_are_found_and_right(heads: tuple[Path, str]) -> None:
    path, _ = heads
    x = _inputs(1, **_SHAPES)
    q, k, v = (torch.from_numpy(value) for value in x.values())
    expected = KINDS["ORIGINAL"](q, k, v, 2).numpy()
    fused, kinds = _run(path, x)
    assert kinds.count("fused_attention") == 2  # one a head; V2's blocks of queries are joined
    assert kinds.count("concat") == 1
    assert "einsum" not in kinds
    np.testing.assert_allclose(fused, _run(path, x, fuse=False)[0], atol=1e-6)
    np.testing.assert_allclose(fused, expected, atol=2e-3)  # weights and constants are float16
    assert np.isfinite(fused).all()


def test_the_profile_s_rounding_bounds_the_difference(heads: tuple[Path, str]) -> None:
    path, _ = heads
    x = _inputs(2, **_SHAPES)
    exact = _run(path, x)[0]
    single = np.abs(_run(path, x, "declared", fuse=False)[0] - exact).max()
    fused = np.abs(_run(path, x, "declared")[0] - exact).max()
    assert 0 < fused <= single  # rounded once instead of four times
    assert "einsum" in _run(path, x, "float16-accumulate")[1]


def test_overflow_of_float16_scores_is_not_hidden(heads: tuple[Path, str]) -> None:
    path, _ = heads
    x = _inputs(3, **_SHAPES)
    x["q"] *= 300
    x["k"] *= 300
    fused, kinds = _run(path, x, "declared")
    single, _ = _run(path, x, "declared", fuse=False)
    assert "fused_attention" in kinds
    assert np.isnan(single).any()
    np.testing.assert_array_equal(np.isnan(fused), np.isnan(single))
    assert np.isfinite(_run(path, x)[0]).all()


Build = Callable[..., Any]


@pytest.fixture
def program(ct: Any, tmp_path: Path) -> Callable[..., Path]:
    """``program(body, **shapes)``: a saved float32 program for iOS 16."""
    mb = importlib.import_module("coremltools.converters.mil").Builder

    def build(body: Build, **shapes: tuple[int, ...]) -> Path:
        specs = [mb.TensorSpec(shape) for shape in shapes.values()]
        # the builder names inputs after the parameters
        function = {3: lambda q, k, v: body(mb, q, k, v), 4: lambda q, k, v, m: body(mb, q, k, v, m)}[len(shapes)]
        made = mb.program(input_specs=specs, opset_version=ct.target.iOS16)(function)
        model = ct.convert(
            made,
            minimum_deployment_target=ct.target.iOS16,
            compute_precision=ct.precision.FLOAT32,
            skip_model_load=True,
        )
        path = tmp_path / "model.mlpackage"
        model.save(str(path))
        return path

    return build


def _masked(mb: Any, q: Any, k: Any, v: Any, m: Any) -> Any:
    scores = mb.mul(x=0.5, y=mb.einsum(values=(k, q), equation="bkhc,bchq->bkhq"))
    weights = mb.softmax(x=mb.add(x=m, y=scores), axis=1)
    return mb.einsum(values=(v, weights), equation="bchk,bkhq->bchq")


def test_a_mask_of_keys_is_part_of_it(program: Any) -> None:
    shapes = {"q": (2, 8, 3, 5), "k": (2, 7, 3, 8), "v": (2, 6, 3, 7), "m": (2, 7, 1, 1)}
    path, x = program(_masked, **shapes), _inputs(4, **shapes)
    fused, kinds = _run(path, x)
    assert kinds == ["fused_attention"]
    q, k, v, m = (torch.from_numpy(value).double() for value in x.values())
    weights = torch.softmax(torch.einsum("bkhc,bchq->bkhq", k, q) * 0.5 + m, 1)
    np.testing.assert_allclose(fused, torch.einsum("bchk,bkhq->bchq", v, weights).numpy(), atol=1e-5)


def _three_axes(mb: Any, q: Any, k: Any, v: Any) -> Any:
    weights = mb.softmax(x=mb.einsum(values=(k, q), equation="khc,chq->khq"), axis=0)
    return mb.einsum(values=(v, weights), equation="vhk,khq->vhq")


def test_three_axes(program: Any) -> None:
    shapes = {"q": (8, 3, 5), "k": (7, 3, 8), "v": (6, 3, 7)}
    path, x = program(_three_axes, **shapes), _inputs(5, **shapes)
    fused, kinds = _run(path, x)
    assert kinds == ["fused_attention"]
    np.testing.assert_allclose(fused, _run(path, x, fuse=False)[0], atol=1e-6)


def _over_queries(mb: Any, q: Any, k: Any, v: Any) -> Any:
    weights = mb.softmax(x=mb.einsum(values=(k, q), equation="bkhc,bchq->bkhq"), axis=3)
    return mb.einsum(values=(v, weights), equation="bchk,bkhq->bchq")


def test_a_softmax_over_the_queries_is_no_attention(program: Any) -> None:
    shapes = {"q": (2, 8, 1, 7), "k": (2, 7, 1, 8), "v": (2, 8, 1, 7)}
    path, x = program(_over_queries, **shapes), _inputs(6, **shapes)
    fused, kinds = _run(path, x)
    assert kinds == ["einsum", "softmax", "einsum"]
    np.testing.assert_array_equal(fused, _run(path, x, fuse=False)[0])


_Slices = list[tuple[int, int]]


def _blocks(slices: _Slices, *, step: int = 1, other: bool = False) -> Build:
    def body(mb: Any, q: Any, k: Any, v: Any) -> Any:
        parts = []
        for number, (start, end) in enumerate(slices):
            key = mb.mul(x=k, y=1.5) if other and number else k
            part = mb.slice_by_index(x=q, begin=[0, 0, 0, start], end=[2, 8, 1, end], stride=[1, 1, 1, step])
            weights = mb.softmax(x=mb.einsum(values=(key, part), equation="bkhc,bchq->bkhq"), axis=1)
            parts.append(mb.einsum(values=(v, weights), equation="bchk,bkhq->bchq"))
        return mb.concat(values=parts, axis=-1)

    return body


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (_blocks([(0, 4), (4, 8), (8, 9)]), 1),
        (_blocks([(0, 4), (5, 9)]), 2),  # a gap
        (_blocks([(4, 9), (0, 4)]), 2),  # another order
        (_blocks([(0, 4), (4, 8)]), 2),  # the last query is left out
        (_blocks([(0, 4), (4, 9)], step=2), 2),
        (_blocks([(0, 4), (4, 9)], other=True), 2),  # other keys
    ],
    ids=["joined", "gap", "order", "short", "stride", "keys"],
)
def test_blocks_of_queries_are_joined_where_they_make_up_the_whole(program: Any, body: Build, count: int) -> None:
    shapes = {"q": (2, 8, 1, 9), "k": (2, 7, 1, 8), "v": (2, 6, 1, 7)}
    path, x = program(body, **shapes), _inputs(9, **shapes)
    fused, kinds = _run(path, x)
    assert kinds.count("fused_attention") == count
    np.testing.assert_allclose(fused, _run(path, x, fuse=False)[0], atol=1e-6)


def _read_twice(mb: Any, q: Any, k: Any, v: Any) -> Any:
    scores = mb.einsum(values=(k, q), equation="bkhc,bchq->bkhq")
    result = mb.einsum(values=(v, mb.softmax(x=scores, axis=1)), equation="bchk,bkhq->bchq")
    return mb.add(x=result, y=mb.reduce_mean(x=scores, axes=[1], keep_dims=True))


def test_a_second_reader_of_the_scores_prevents_it(program: Any) -> None:
    shapes = {"q": (2, 8, 1, 5), "k": (2, 7, 1, 8), "v": (2, 6, 1, 7)}
    path, x = program(_read_twice, **shapes), _inputs(7, **shapes)
    assert "fused_attention" not in _run(path, x)[1]


def test_few_keys_are_left_alone(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_attention, "_KEYS", 7)
    shapes = {"q": (2, 8, 3, 5), "k": (2, 7, 3, 8), "v": (2, 6, 3, 7), "m": (2, 7, 1, 1)}
    assert "fused_attention" not in _run(program(_masked, **shapes), _inputs(8, **shapes))[1]
