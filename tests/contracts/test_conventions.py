"""The played Swift releases: schedule and draws against diffusers and the streams."""

from __future__ import annotations

import numpy as np
import pytest

from parity import streams
from parity.contracts.consumers import consumers
from parity.contracts.conventions import ConsumerFailureError, execute, swift_release, timesteps
from parity.contracts.conventions.draws import Settings, cumulative_alphas, draw, noise_level, starting_latents
from parity.contracts.conventions.plms import PLMS
from parity.errors import UnsupportedError, UsageError


def settings(
    release: int, *, task: str = "img2img", steps: int = 10, strength: float = 0.5, rng: str = "numpy"
) -> Settings:
    return Settings(task, release, 93, rng, steps, strength, 7.5)


def diffusers_scheduler(steps: int):  # type: ignore[no-untyped-def]
    from diffusers import PNDMScheduler

    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    scheduler.set_timesteps(steps)
    return scheduler


@pytest.mark.parametrize("steps", [2, 3, 4, 5, 20, 50])
def test_the_scheduler_is_that_of_diffusers(steps: int) -> None:
    import torch

    reference = diffusers_scheduler(steps)
    assert [int(t) for t in reference.timesteps] == timesteps(steps)
    np.testing.assert_allclose(cumulative_alphas(), reference.alphas_cumprod.numpy(), atol=1e-6)
    ours = PLMS(steps)
    sample = np.random.RandomState(1).standard_normal((1, 4, 8, 8)).astype(np.float32)
    theirs = torch.from_numpy(sample)
    for step in timesteps(steps):
        noise = np.tanh(sample * 1.3 + step / 1000).astype(np.float32)
        sample = ours.step(noise, step, sample)
        theirs = reference.step(torch.tanh(theirs * 1.3 + step / 1000), step, theirs).prev_sample
    np.testing.assert_allclose(sample, theirs.numpy(), atol=2e-4)


def test_one_step_crashes_as_swift_does() -> None:
    with pytest.raises(ConsumerFailureError, match="crashes"):
        timesteps(1)


@pytest.mark.parametrize("release", [4, 7])
def test_the_start_is_diffusers_encode_and_add_noise(release: int) -> None:
    import torch
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    chosen = settings(release)
    shape = (1, 4, 16, 16)
    draws = draw(chosen, shape)
    moments = np.random.RandomState(2).standard_normal((1, 8, 16, 16)).astype(np.float32)
    distribution = DiagonalGaussianDistribution(torch.from_numpy(moments))
    latent = (distribution.mean + distribution.std * torch.from_numpy(draws.latent.astype(np.float32))) * 0.18215
    scheduler = diffusers_scheduler(chosen.steps)
    step = scheduler.timesteps[chosen.start : chosen.start + 1]
    expected = scheduler.add_noise(latent, torch.from_numpy(draws.noise), step)
    np.testing.assert_allclose(starting_latents(chosen, moments, draws), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("rng", ["numpy", "torch", "nvidia"])
def test_the_order_of_draws_changed_with_0_4_0(rng: str) -> None:
    shape = (1, 4, 8, 8)
    old, new = draw(settings(3, rng=rng), shape), draw(settings(7, rng=rng), shape)
    first = streams.open(f"swift-{rng}", 93).normal(shape)
    np.testing.assert_array_equal(old.latent, first)
    np.testing.assert_array_equal(new.noise, first)
    assert not np.array_equal(old.noise, new.noise)
    stream = streams.open(f"swift-{rng}", 93)
    stream.normal(shape)
    each = np.array([stream.normal_each((1,), dtype="float64")[0] for _ in range(256)]).reshape(shape)
    np.testing.assert_array_equal(new.latent, each)


@pytest.mark.parametrize(("steps", "strength"), [(50, 0.5), (50, 0.75), (20, 0.3), (7, 0.9)])
def test_the_noise_level_of_0_3_0_is_that_of_its_first_timestep(steps: int, strength: float) -> None:
    chosen = settings(3, steps=steps, strength=strength)
    alphas = cumulative_alphas()
    index = 1000 - (1000 // steps) * (steps - int(steps * strength)) + 1
    assert noise_level(chosen) == alphas[index]
    if 1000 % steps == 0:  # else the old formula counts from 1000 and the list from its own end
        assert index == timesteps(steps)[chosen.start]


def test_who_can_be_played() -> None:
    table = consumers()
    assert swift_release(table.consumer("M4.3")) == 7
    assert swift_release(table.consumer("S8")) == 8
    with pytest.raises(UnsupportedError, match="P1 is no Swift release"):
        swift_release(table.consumer("P1"))


def test_bad_requests_are_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    ids = np.zeros((1, 77), np.int64)
    with pytest.raises(UsageError, match="no random source 'torch'; it has numpy"):
        execute({}, "S2", checkpoint=tmp_path, prompt=ids, negative=ids, rng="torch")
    with pytest.raises(UsageError, match="txt2img needs text_encoder, unet, vae_decoder"):
        execute({}, "S2", checkpoint=tmp_path, prompt=ids, negative=ids)
