"""Stable Diffusion 3 as the Swift package draws it: its schedule, diffusers' pipeline under the same, conversions."""

from __future__ import annotations

import csv
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parity import assets, convert, quiet, recipes, streams
from parity.backends.pytorch import TorchBackend
from parity.contracts.consumers import consumers
from parity.contracts.release import conventions
from parity.errors import UnsupportedError, UsageError
from parity.models.model import Model
from parity.pipelines import swift_sd3
from parity.pipelines.loop import Networks
from parity.pipelines.producer import producer
from parity.pipelines.release import Ask, settings_of
from parity.pipelines.request import Request
from parity.pipelines.schedules import played
from parity.pipelines.schedules.discrete_flow import DiscreteFlow
from parity.pipelines.settings import ConsumerFailureError, Material, Settings
from parity.pipelines.trace import Trace
from parity.suite.questions.play import Execution
from tests.pipelines.playing import execute

LOWEST_PSNR = 42.0  # dB; measured 52.3 to 55.8 on the miniature (4 releases, 3 seeds, 3 and 20 steps)
PROMPTS = ("a red circle on a blue background", "blurry, low quality")
NAMES = ("text_encoder", "text_encoder_2", "mmdit", "vae_decoder")


def vectors() -> dict[tuple[float, int], list[dict[str, str]]]:
    found: dict[tuple[float, int], list[dict[str, str]]] = {}
    with (assets.fixtures() / "schedules" / "discrete_flow.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault((float(row["shift"]), int(row["steps"])), []).append(row)
    return found


@pytest.mark.parametrize(("shift", "steps"), list(vectors()))
def test_the_schedule_equals_the_published_one(shift: float, steps: int) -> None:
    rows, made = vectors()[shift, steps], DiscreteFlow(steps, shift)
    assert made.keys == [int(row["key"]) for row in rows]
    assert made.timesteps == [float(row["timestep"]) for row in rows]


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_steps_equal_diffusers_flow_matching_but_for_the_last_result(shift: float) -> None:
    rng = np.random.RandomState(5)
    settings = Settings(conventions(consumers().consumer("S8")), "txt2img", steps=9, flow_shift=shift)
    mine, theirs = DiscreteFlow(9, shift), played.flow(settings)
    np.testing.assert_allclose(mine.timesteps, theirs.timesteps, rtol=2e-7)
    ours = witness = rng.standard_normal((1, 16, 4, 4)).astype(np.float32)
    for index, timestep in enumerate(mine.timesteps):
        flow = rng.standard_normal(ours.shape).astype(np.float32)
        before = ours
        ours, witness = mine.step(flow, timestep, ours), theirs.step(flow, timestep, witness)
        np.testing.assert_allclose(mine.estimate, theirs.estimate, atol=1e-5)
        if index < 8:
            np.testing.assert_allclose(ours, witness, atol=1e-5)
    np.testing.assert_allclose(mine.estimate, witness, atol=1e-5)  # diffusers steps to the estimate
    np.testing.assert_allclose(ours - before, before - witness, atol=1e-5)  # the slip: as far to the other side


@pytest.mark.parametrize("steps", [2, 10, 28, 50])
def test_noise_levels_are_those_of_diffusers_own_schedule(steps: int) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    theirs = FlowMatchEulerDiscreteScheduler(shift=3.0)
    theirs.set_timesteps(steps)
    np.testing.assert_allclose(DiscreteFlow(steps).timesteps, theirs.timesteps.numpy(), rtol=3e-7, atol=1e-4)


def test_a_single_step_crashes() -> None:
    with pytest.raises(ConsumerFailureError, match="not numbers") as caught:
        DiscreteFlow(1)
    assert caught.value.rule == "sd3-one-step"


@cache
def backend() -> TorchBackend:
    return TorchBackend(recipes.build("tiny-sd3"))


def drawn(**changes: Any) -> tuple[np.ndarray, Trace]:
    model, trace = Model("tiny-sd3"), Trace()
    prompt, negative = (model.tokens(text) for text in PROMPTS)
    material = Material(prompt, negative, sd3=True)
    settings = replace(settings_of(consumers().consumer("S8"), Ask(steps=5, guidance=5.0), material), **changes)
    networks = Networks(backend().component, trace, (1, *model.latent_shape), width=96)
    return swift_sd3.pictures(networks, swift_sd3.schedule, settings, material), trace


def test_the_diffusers_pipeline_draws_the_same_picture() -> None:
    import diffusers
    import torch

    with quiet.loading():
        absent: dict[str, Any] = {"text_encoder_3": None, "tokenizer_3": None}
        theirs = diffusers.StableDiffusion3Pipeline.from_pretrained(recipes.build("tiny-sd3"), **absent)
    theirs.set_progress_bar_config(disable=True)
    theirs.tokenizer_2.pad_token = "!"
    even = played.levels(5, 3.0)[0]
    expected = theirs(
        PROMPTS[0],
        negative_prompt=PROMPTS[1],
        sigmas=even.tolist(),
        guidance_scale=5.0,
        height=64,
        width=64,
        max_sequence_length=77,
        latents=torch.from_numpy(streams.open("swift-numpy", 93).normal((1, 16, 8, 8))),
        output_type="np",
    ).images
    ours, trace = drawn()
    np.testing.assert_allclose(ours, expected, atol=2e-5)
    assert trace.components == ("text_encoder", "text_encoder_2", "mmdit", "vae_decoder")
    positive, negative = trace["mmdit/step00/pooled"]
    np.testing.assert_array_equal(positive[:32], trace["text_encoder/prompt/pooled"][0])
    np.testing.assert_array_equal(negative[:32], trace["text_encoder/negative/pooled"][0])
    decoded = trace["latents/decoded"] / np.float32(1.5305) + np.float32(0.0609)
    np.testing.assert_array_equal(trace["vae_decoder/final/latents"], decoded)


def test_guidance_off_and_the_librarys_own_factors_change_the_picture() -> None:
    usual, _ = drawn()
    for changes in ({"guidance": 1.0}, {"factor": 0.18215, "shift": 0.0}, {"flow_shift": 1.0}, {"seed": 94}):
        other, trace = drawn(**changes)
        assert len(trace["mmdit/step00/sample"]) == 2, "always two rows"
        assert np.abs(other - usual).max() > 0.05, changes


def test_apps_set_their_own_factors() -> None:
    material = Material(np.zeros((1, 77)), np.zeros((1, 77)), sd3=True)
    found = {who: settings_of(consumers().consumer(who), Ask(), material) for who in ("S8", "M5.2", "M6", "D2024-06")}
    assert {who: (each.factor, each.shift, each.flow_shift) for who, each in found.items()} == {
        "S8": (1.5305, 0.0609, 3.0),
        "M5.2": (1.5305, 0.0609, 3.0),
        "M6": (0.18215, 0.0, 3.0),
        "D2024-06": (1.5305, 0.0609, 3.0),
    }


@pytest.fixture(scope="module")
def models() -> dict[str, Path]:
    return convert.cached(recipes.build("tiny-sd3"), contract="C8a", components=NAMES)


def play(models: dict[str, Path], consumer: str, **options: Any) -> Execution:
    model = Model("tiny-sd3")
    prompt, negative = (model.tokens(text) for text in PROMPTS)
    return execute(models, consumer, Path(model.location), prompt=prompt, negative=negative, **{"steps": 3, **options})


@pytest.mark.long
def test_releases_draw_pytorchs_picture_with_converted_models(models: dict[str, Path]) -> None:
    kept: dict[Any, Any] = {}
    first = play(models, "S8", kept=kept)
    assert first.failure == ""
    assert first.psnr >= LOWEST_PSNR
    assert first.traces[0].components == ("text_encoder", "text_encoder_2", "mmdit", "vae_decoder")
    ignored = play(models, "S8", scheduler="dpm++", kept=kept)
    np.testing.assert_array_equal(ignored.pictures, first.pictures)
    app = play(models, "D2024-06", kept=kept)
    np.testing.assert_array_equal(app.pictures, first.pictures)
    two = play(models, "M5.2", images=2, kept=kept)
    np.testing.assert_array_equal(two.pictures[:1], first.pictures)
    assert np.abs(two.pictures[1:] - first.pictures).max() > 0.05
    wrong = play(models, "M6", kept=kept)
    assert np.abs(wrong.pictures - first.pictures).max() > 0.05, "wrong colours: its factors are those of SD 1"


@pytest.mark.long
def test_failures_are_those_of_the_tables(models: dict[str, Path]) -> None:
    kept: dict[Any, Any] = {}
    image = np.zeros((1, 3, 64, 64), np.float32)
    encoder = {"vae_encoder": models["vae_decoder"]}  # there is none to be had; it is not asked
    for who, extra, options, text in (
        ("S8", {}, {"steps": 1}, "a single step crashes"),
        ("S8", {}, {"image": image}, "startingImageProvidedWithoutEncoder is thrown"),
        ("S8", encoder, {"image": image}, "index crash: the flow scheduler's alphasCumprod is empty"),
        ("S7", {}, {}, "this release does not know Stable Diffusion 3"),
        ("P6", {}, {}, "this release does not know Stable Diffusion 3"),
    ):
        assert play(models | extra, who, kept=kept, **options).failure.startswith(text), (who, options)
    left = {name: path for name, path in models.items() if name != "text_encoder_2"}
    assert play(left, "S8", kept=kept).failure.startswith("model-load error for TextEncoder2")


@pytest.mark.long
def test_t5_is_refused_with_the_reason(models: dict[str, Path]) -> None:
    with pytest.raises(UnsupportedError, match="with T5 is not played: what the package gives T5"):
        play(models | {"text_encoder_t5": models["text_encoder"]}, "S8")


def test_a_release_is_a_producer_of_sd3() -> None:
    request = Request("txt2img", *PROMPTS, scheduler="flow-euler", steps=3)
    swift = producer("swift")
    assert swift.refusal(request) == ""
    assert "no scheduler flow-euler" in producer("swift==1.1.0").refusal(request)
    trace = Trace()
    image = swift.draw(request, Model("tiny-sd3"), backend(), seed=93, rng="numpy-legacy", observe=trace)
    np.testing.assert_array_equal(trace["image"], image)
    assert image.shape == (1, 64, 64, 3)
    other = TorchBackend(Model("tiny-sd").location)
    with pytest.raises(UsageError, match="only Stable Diffusion 3 predicts"):
        swift.draw(request, Model("tiny-sd"), other, seed=93, rng="numpy-legacy", observe=Trace())
