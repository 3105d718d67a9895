"""Fused operations compute what the single ones compute, are found where they are, and give way to hazards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from parity import mil


class Attention(torch.nn.Module):
    """Scaled dot product attention over heads, with or without a mask."""

    def __init__(self, masked: bool) -> None:
        super().__init__()
        self.masked = masked
        self.q, self.k, self.v = (torch.nn.Linear(32, 32) for _ in range(3))

    def forward(self, x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map (2, 12, 32), (2, 7, 32) and (12, 7) to (2, 12, 32)."""
        heads = [f(t).view(2, -1, 4, 8).transpose(1, 2) for f, t in ((self.q, x), (self.k, y), (self.v, y))]
        bias = mask if self.masked else None
        result = torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=bias)
        return result.transpose(1, 2).reshape(2, 12, 32) + mask.sum()


class Norms(torch.nn.Module):
    """Group norms with and without parameters, of two ranks."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = torch.nn.GroupNorm(3, 12, affine=False)
        self.full = torch.nn.GroupNorm(4, 12)
        torch.nn.init.normal_(self.full.weight)
        torch.nn.init.normal_(self.full.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (2, 12, 5, 6) to itself."""
        return self.full(self.plain(x) + x.flatten(2).mean(-1)[..., None, None])


def _run(path: Path, x: dict[str, np.ndarray], profile: str, *, fuse: bool) -> tuple[np.ndarray, list[str]]:
    kinds: list[str] = []
    session = mil.Session(mil.load(path), profile, fuse=fuse)
    session.predict(x)
    (output,) = session.predict(x, callback=lambda event: kinds.append(event.type)).values()
    return output.astype(np.float64), kinds


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(np.abs(b).max() ** 2 / max(float(np.mean((a - b) ** 2)), 1e-30)))


@pytest.fixture(scope="module", params=[False, True], ids=["unmasked", "masked"])
def attention(request: pytest.FixtureRequest, convert: Any) -> tuple[Path, torch.nn.Module, dict[str, np.ndarray]]:
    torch.manual_seed(31)
    module = Attention(request.param).eval()
    example = (torch.randn(2, 12, 32), torch.randn(2, 7, 32), torch.randn(12, 7))
    return convert(module, example), module, {f"x{i}": t.numpy() for i, t in enumerate(example)}


@pytest.mark.parametrize("profile", ["declared", "float32"])
def test_attention_is_found_and_right(attention: Any, profile: str) -> None:
    path, module, x = attention
    with torch.no_grad():
        expected = module(*(torch.from_numpy(v) for v in x.values())).numpy()
    fused, kinds = _run(path, x, profile, fuse=True)
    single, unfused_kinds = _run(path, x, profile, fuse=False)
    assert kinds.count("fused_attention") == 1
    assert "softmax" not in kinds
    assert unfused_kinds.count("matmul") == 2
    assert _psnr(fused, expected) > 60
    assert _psnr(fused, single) > (60 if profile == "declared" else 110)


def test_float16_accumulate_fuses_nothing(attention: Any) -> None:
    path, _, x = attention
    assert "softmax" in _run(path, x, "float16-accumulate", fuse=True)[1]


def test_attention_that_overflows_float16_is_not_hidden(attention: Any) -> None:
    path, _, x = attention
    large = x | {"x0": x["x0"] * 3e3, "x1": x["x1"] * 3e3}
    fused, kinds = _run(path, large, "declared", fuse=True)
    single, _ = _run(path, large, "declared", fuse=False)
    assert "fused_attention" in kinds
    assert not np.isfinite(single).all()
    np.testing.assert_array_equal(np.isnan(fused), np.isnan(single))
    assert np.isfinite(_run(path, large, "float32", fuse=True)[0]).all()


@pytest.fixture(scope="module")
def norms(convert: Any) -> tuple[Path, torch.nn.Module, np.ndarray]:
    torch.manual_seed(33)
    module = Norms().eval()
    x = torch.randn(2, 12, 5, 6)
    return convert(module, (x,)), module, x.numpy()


@pytest.mark.parametrize("profile", ["declared", "float32"])
def test_group_norm_is_found_and_right(norms: Any, profile: str) -> None:
    path, module, x = norms
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    fused, kinds = _run(path, {"x0": x}, profile, fuse=True)
    single, _ = _run(path, {"x0": x}, profile, fuse=False)
    assert kinds.count("fused_group_norm") == 2
    assert "sqrt" not in kinds
    assert _psnr(fused, expected) > 55
    assert _psnr(fused, single) > (55 if profile == "declared" else 110)


def test_group_norm_that_overflows_float16_is_not_hidden(norms: Any) -> None:
    path, _, x = norms
    large = x * 300
    fused, _ = _run(path, {"x0": large}, "declared", fuse=True)
    single, _ = _run(path, {"x0": large}, "declared", fuse=False)
    exact, _ = _run(path, {"x0": large}, "float32", fuse=True)
    np.testing.assert_allclose(fused, single, rtol=2e-2, atol=2e-2)
    assert np.abs(single - exact).max() > 0.2  # the overflow of the variance is there to be seen


def test_asked_values_are_not_fused_away(attention: Any) -> None:
    path, _, x = attention
    session = mil.Session(mil.load(path), "float32")
    softmax = next(n for n in session.graph.nodes if n.type == "softmax").outputs[0]
    probabilities = session.values([softmax, *session.graph.outputs], x)[softmax]
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)


def test_two_readers_of_the_scores_prevent_fusion(convert: Any) -> None:
    class Twice(torch.nn.Module):
        def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            scores = q @ k.transpose(-1, -2)
            return torch.softmax(scores, -1) @ v + scores.mean()

    torch.manual_seed(4)
    example = tuple(torch.randn(1, 2, 6, 8) for _ in range(3))
    path = convert(Twice(), example)
    x = {f"x{i}": t.numpy() for i, t in enumerate(example)}
    fused, kinds = _run(path, x, "float32", fuse=True)
    assert "fused_attention" not in kinds
    np.testing.assert_allclose(fused, Twice()(*example).numpy(), rtol=1e-4, atol=1e-5)


def test_prepared_weights_give_the_same_products(convert: Any) -> None:
    torch.manual_seed(8)
    module = torch.nn.Sequential(torch.nn.Linear(256, 320), torch.nn.ReLU(), torch.nn.Linear(320, 256, bias=False))
    x = torch.randn(2, 40, 256)
    path = convert(module, (x,))
    fused, _ = _run(path, {"x0": x.numpy()}, "float32", fuse=True)
    single, _ = _run(path, {"x0": x.numpy()}, "float32", fuse=False)
    assert _psnr(fused, single) > 110
    small = mil.Session(mil.load(path), "float32", memory_budget=1000)
    for _ in range(2):
        np.testing.assert_array_equal(next(iter(small.predict({"x0": x.numpy()}).values())), fused.astype(np.float32))


@pytest.mark.parametrize(
    "options",
    [
        {"padding": 1},
        {"stride": 2, "bias": False},
        {"dilation": 2, "padding": (2, 0)},
        {"groups": 2, "padding": 1},
        {"padding": "same"},
    ],
    ids=lambda options: "-".join(options),
)
def test_prepared_convolutions_give_the_same_results(convert: Any, options: dict[str, Any]) -> None:
    torch.manual_seed(9)
    module = torch.nn.Sequential(torch.nn.Conv2d(96, 192, 3, **options), torch.nn.SiLU())
    x = torch.randn(2, 96, 9, 8)
    path = convert(module, (x,))
    session = mil.Session(mil.load(path), "float32")
    for _ in range(2):
        (fused,) = session.predict({"x0": x.numpy()}).values()
    assert any(name.startswith("%packed:") for name in next(iter(session._plans.values()))._fixed)
    single, _ = _run(path, {"x0": x.numpy()}, "float32", fuse=False)
    assert _psnr(fused.astype(np.float64), single) > 110
    rounded, _ = _run(path, {"x0": x.numpy()}, "declared", fuse=True)
    assert _psnr(rounded, _run(path, {"x0": x.numpy()}, "declared", fuse=False)[0]) > 70
    with torch.no_grad():
        assert _psnr(fused.astype(np.float64), module(x).numpy().astype(np.float64)) > 55


def test_convolutions_with_many_results_are_left_alone(convert: Any) -> None:
    path = convert(torch.nn.Conv2d(64, 128, 3), (torch.zeros(1, 64, 40, 40),))
    session = mil.Session(mil.load(path), "float32")
    session.predict({"x0": np.zeros((1, 64, 40, 40), np.float32)})
    assert not any(name.startswith("%packed:") for name in next(iter(session._plans.values()))._fixed)


class Residual(torch.nn.Module):
    """Values that are read again after an elementwise operation on them, directly and through views."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = torch.nn.Linear(16, 16), torch.nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Map (4, 16) to three results that share intermediate values."""
        first = self.a(x)
        seen = first.reshape(2, 2, 16)  # a view that is read after the next line
        second = torch.nn.functional.silu(first)
        third = second + seen.reshape(4, 16)
        fourth = self.b(third) * 3.0
        return fourth + fourth, torch.relu(fourth).transpose(0, 1), (third - fourth) * x


def test_memory_is_reused_only_where_nobody_looks(convert: Any) -> None:
    torch.manual_seed(12)
    module, x = Residual().eval(), torch.randn(4, 16)
    path = convert(module, (x,))
    fused = mil.Session(mil.load(path), "float32")
    single = mil.Session(mil.load(path), "float32", fuse=False)
    for _ in range(2):
        got, expected = fused.predict({"x0": x.numpy()}), single.predict({"x0": x.numpy()})
        for name in expected:
            np.testing.assert_array_equal(got[name], expected[name])
    with torch.no_grad():
        for ours, theirs in zip(got.values(), module(x), strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-2)


def test_some_memory_is_reused(norms: Any) -> None:
    path, _, x = norms
    session = mil.Session(mil.load(path), "float32")
    places: list[tuple[str, int]] = []
    session.predict({"x0": x})
    session.predict(
        {"x0": x},
        callback=lambda event: places.extend((event.type, v.data_ptr()) for v in event.outputs.values()),
    )
    adds = [i for i, (kind, _) in enumerate(places) if kind == "add"]
    assert any(places[i][1] in {p for _, p in places[:i]} for i in adds)
