"""The training program: interrupted equals uninterrupted, one command from nothing to folders that diffusers loads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fixtures.shapes import __main__ as program
from fixtures.shapes import half, loop, sheet, stages, state
from parity.errors import FormatError, MissingError
from parity.recipes import trained

_PLAN = loop.Plan("line", steps=60, rate=0.05, warmup=5)


def _line(steps: int | None = None) -> tuple[torch.nn.ModuleDict, loop.Loss]:
    torch.manual_seed(3)
    modules = torch.nn.ModuleDict({"b": torch.nn.Linear(3, 4), "a": torch.nn.Linear(4, 2)})

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        if step == steps:
            raise KeyboardInterrupt
        x = torch.randn(8, 3, generator=generator)
        return (modules["a"](modules["b"](x).tanh()) - x[:, :2]).square().mean()

    return modules, loss


@pytest.mark.parametrize("stop", [1, 23, 59])
def test_resumed_training_equals_uninterrupted(tmp_path: Path, stop: int) -> None:
    whole, loss = _line()
    loop.train(_PLAN, whole, loss, folder=tmp_path / "whole", every=0)
    broken, loss = _line(stop)
    with pytest.raises(KeyboardInterrupt):
        loop.train(_PLAN, broken, loss, folder=tmp_path / "parts", every=0)
    resumed, loss = _line()
    loop.train(_PLAN, resumed, loss, folder=tmp_path / "parts", every=0)
    ends = [state.load(tmp_path / name / "line.safetensors") for name in ("whole", "parts")]
    torch.testing.assert_close(*ends, rtol=0, atol=0)
    torch.testing.assert_close(whole.state_dict(), resumed.state_dict(), rtol=0, atol=0)


def test_the_loss_falls_and_the_rate_ends_low(tmp_path: Path) -> None:
    modules, loss = _line()
    loop.train(_PLAN, modules, loss, folder=tmp_path)
    _, step, losses = state.load(tmp_path / "line.safetensors")
    values = [value for _, value in losses]
    assert step == len(values) == 60
    assert np.mean(values[-10:]) < 0.5 * np.mean(values[:10])
    assert loop.rate(_PLAN, 4) == pytest.approx(_PLAN.rate)
    assert loop.rate(_PLAN, 59) < 0.05 * _PLAN.rate


def test_normalising_changes_the_latents_and_nothing_else() -> None:
    torch.manual_seed(0)
    model = stages.recipe().component("vae")
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        means = model.encode(images).latent_dist.mean
        before = model.decode(means).sample
        stages.normalise(model, means)
        after = model.encode(images).latent_dist.mean
        torch.testing.assert_close(model.decode(after).sample, before, rtol=0, atol=2e-5)
    scaled = after * model.config.scaling_factor
    torch.testing.assert_close(scaled.mean(dim=(0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-4)
    torch.testing.assert_close(scaled.std(dim=(0, 2, 3)), torch.ones(4), rtol=1e-3, atol=0)
    torch.testing.assert_close(scaled, stages.normalised(means), rtol=0, atol=2e-4)


def test_taming_bounds_the_streams_and_changes_no_output() -> None:
    torch.manual_seed(0)
    model = stages.recipe().component("vae")
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        model.encoder.down_blocks[1].downsamplers[0].conv.weight.mul_(3000)  # as training can do
        model.decoder.conv_in.weight.mul_(3000)
        latents = model.encode(images).latent_dist.mean
        picture = model.decode(latents).sample
        factors = half.tame(model, images)
        again = model.encode(images).latent_dist.mean
        torch.testing.assert_close(again, latents, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(model.decode(latents).sample, picture, rtol=1e-4, atol=1e-4)
    assert factors["encoder"][0] == 1 > factors["encoder"][2]
    assert factors["decoder"][0] < 1
    assert half.largest([model.encoder.conv_norm_out], lambda: model.encode(images)) <= half.LARGEST


@pytest.mark.slow
def test_one_command_makes_the_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VAE", "TEXT", "UNET", "VELOCITY", "DDPM", "DETAIL"):
        monkeypatch.setattr(stages, name, replace(getattr(stages, name), steps=2))
    monkeypatch.setattr(stages, "POOL", 4)
    monkeypatch.setattr(stages, "TYPICAL", 2)
    monkeypatch.setattr(stages, "BATCH", dict.fromkeys(stages.BATCH, 2))
    assert program.main(["train", "--work", str(tmp_path / "work"), "-o", str(tmp_path / "models")]) == 0
    for name, kind in (("shapes-sd", "epsilon"), ("shapes-sd-v", "v_prediction")):
        model = tmp_path / "models" / name
        trained.check(model)
        pipeline = program.load(model)
        assert pipeline.scheduler.config.prediction_type == kind
        (image,) = sheet.pictures(pipeline, ["a red circle"], seeds=[1], steps=2)
        assert image.shape == (128, 128, 3)
    pipeline = program.load_unconditional(tmp_path / "models" / "shapes-ddpm")
    assert pipeline(num_inference_steps=2, output_type="np").images.shape == (1, 32, 32, 3)


def _shipped(folder: Path) -> Path:
    from fixtures.shapes.export import digests

    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "weights").write_bytes(b"1234")
    (folder / "model_index.json").write_text("{}")
    digests(folder)
    return folder


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    folder = _shipped(tmp_path / "model")
    trained.check(folder)
    (folder / "unet" / "weights").write_bytes(b"1235")
    trained.check.cache_clear()
    with pytest.raises(FormatError, match=r"unet/weights: its SHA-256 is not"):
        trained.check(folder)
    (folder / "unet" / "weights").unlink()
    with pytest.raises(MissingError, match=r"unet/weights: this file of the shipped model is missing"):
        trained.check(folder)


@pytest.mark.parametrize("line", ["abc  model_index.json", f"{'0' * 64} model_index.json", f"{'0' * 64}  ../outside"])
def test_malformed_digests_are_refused(tmp_path: Path, line: str) -> None:
    folder = _shipped(tmp_path / "model")
    (tmp_path / "outside").write_text("")
    (folder / "SHA256SUMS").write_text(line + "\n")
    with pytest.raises(FormatError, match="line 1: expected 64 hex digits"):
        trained.check(folder)


def test_unknown_trained_model() -> None:
    with pytest.raises(MissingError, match="no trained model named 'huge'"):
        trained.folder("huge")
