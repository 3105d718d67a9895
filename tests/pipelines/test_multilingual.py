"""Multilingual prompts from given token vectors on: the adapter, converted and by PyTorch, and what fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parity import convert, recipes
from parity.errors import UnsupportedError, UsageError
from parity.models.model import Model
from parity.suite.questions.play import Execution, Original
from tests.pipelines.playing import execute

LOWEST_PSNR = 40.0  # dB; measured 48.3 to 49.5 on the miniature (3 releases, 3 seeds)
RNG = np.random.RandomState(93)
VECTORS = (RNG.standard_normal((9, 512)), RNG.standard_normal((4, 512)))  # prompt and negative prompt


pytestmark = pytest.mark.long  # models are converted for all of them


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    generator = torch.Generator().manual_seed(5)
    network = torch.nn.Linear(512, 32).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / 512**0.5)
    path = tmp_path_factory.mktemp("adapter") / "projection.pt"
    torch.jit.script(network).save(str(path))
    return path


@pytest.fixture(scope="module")
def models(adapter: Path) -> dict[str, Path]:
    made = convert.cached(recipes.build("tiny-sd"), contract="1.0.0", components=["unet", "vae_decoder"], tokens=256)
    return {**made, "multilingual_projection": convert.multilingual_projection(adapter, adapter.parent, check=False)}


def play(models: dict[str, Path], adapter: Path, consumer: str = "S7", **options: Any) -> Execution:
    model = Model("tiny-sd")
    ids = model.tokens("")
    original = Original(Path(model.location), projection=adapter)
    given = {"task": "multilingual", "embeddings": VECTORS, "steps": 3, **options}
    return execute(models, consumer, original, prompt=ids, negative=ids, **given)


def test_every_release_that_has_it_draws_pytorchs_picture(models: dict[str, Path], adapter: Path) -> None:
    kept: dict[Any, Any] = {}
    found = {who: play(models, adapter, who, kept=kept) for who in ("S5", "S7", "S8")}
    for who, each in found.items():
        assert each.failure == "", who
        assert each.psnr >= LOWEST_PSNR, who
        assert each.traces[0].components == ("multilingual_projection", "unet", "vae_decoder")
    trace = found["S8"].traces[0]
    given = trace["multilingual_projection/prompt/embeddings"]
    np.testing.assert_array_equal(given[0, :9], VECTORS[0].astype(np.float32))
    assert given.shape == (1, 256, 512)
    assert not given[0, 9:].any()
    np.testing.assert_array_equal(trace["unet/step00/hidden"][1:], trace["multilingual_projection/prompt/hidden"])
    other = play(models, adapter, "S8", embeddings=VECTORS[::-1], kept=kept)
    assert np.abs(other.pictures - found["S8"].pictures).max() > 0.02


@pytest.mark.long
def test_failures_of_the_releases(models: dict[str, Path], adapter: Path) -> None:
    kept: dict[Any, Any] = {}
    less = {name: path for name, path in models.items() if name != "multilingual_projection"}
    assert play(less, adapter, kept=kept).failure == "model-load error for MultilingualTextEncoderProjection"
    short = convert.cached(recipes.build("tiny-sd"), contract="1.0.0", components=["unet"])
    failure = play({**models, **short}, adapter, kept=kept).failure
    assert failure == "Core ML shape error: the projection gives 256 tokens, the UNet takes another number"
    long = (np.zeros((257, 512)), VECTORS[1])
    assert play(models, adapter, embeddings=long, kept=kept).failure.startswith("a text of more than 256 tokens")
    xl = {**models, "text_encoder_2": models["unet"]}
    assert play(xl, adapter, kept=kept).failure.startswith("the pipelines of this family have no multilingual encoder")


def test_what_cannot_be_asked(models: dict[str, Path], adapter: Path) -> None:
    with pytest.raises(UsageError, match="come from a closed model inside Apple's systems"):
        play(models, adapter, embeddings=())
    with pytest.raises(UsageError, match=r"\(tokens, 512\), not \(3, 768\)"):
        play(models, adapter, embeddings=(np.zeros((3, 768)), VECTORS[1]))
    with pytest.raises(UnsupportedError, match="S4 has no task multilingual"):
        play(models, adapter, "S4")
