"""The played releases' own arithmetic: schedules, draws and tables, against diffusers and the streams."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from parity import assets, streams
from parity.contracts.consumers import consumers
from parity.errors import FormatError, UnsupportedError, UsageError
from parity.pipelines.draws import cumulative_alphas, draw, hidden_holes, noise_level, starting_latents
from parity.pipelines.schedules.played import DiffusersDPM
from parity.pipelines.schedules.swift import PNDM, DPMSolver, dpm_timesteps, karras_levels, pndm_timesteps
from parity.pipelines.settings import ConsumerFailureError, Settings
from parity.pipelines.swift import repadded
from parity.suite.questions.play import conventions
from tests.pipelines.playing import execute


def settings(who: str, **changes) -> Settings:  # type: ignore[no-untyped-def]
    rules = conventions(consumers().consumer(who))
    return replace(Settings(rules, "img2img", steps=10, strength=0.5), **changes)


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
def test_pndm_is_that_of_diffusers(steps: int) -> None:
    import torch

    reference = diffusers_scheduler(steps)
    assert [int(t) for t in reference.timesteps] == pndm_timesteps(steps)
    np.testing.assert_allclose(cumulative_alphas(), reference.alphas_cumprod.numpy(), atol=1e-6)
    ours = PNDM(steps)
    sample = np.random.RandomState(1).standard_normal((1, 4, 8, 8)).astype(np.float32)
    theirs = torch.from_numpy(sample)
    for step in pndm_timesteps(steps):
        noise = np.tanh(sample * 1.3 + step / 1000).astype(np.float32)
        sample = ours.step(noise, step, sample)
        theirs = reference.step(torch.tanh(theirs * 1.3 + step / 1000), step, theirs).prev_sample
    np.testing.assert_allclose(sample, theirs.numpy(), atol=2e-4)


def known_schedules() -> Iterator[tuple[str, int, list[dict[str, str]]]]:
    """Yield (spacing, steps, calls) of ``fixtures/schedules``, computed apart from this project."""
    found: dict[tuple[str, int], list[dict[str, str]]] = {}
    with (assets.fixtures() / "schedules" / "dpm_solver.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault((row["spacing"], int(row["steps"])), []).append(row)
    for (spacing, steps), rows in found.items():
        yield spacing, steps, rows


@pytest.mark.parametrize(
    ("spacing", "steps", "rows"), [pytest.param(*k, id=f"{k[0]}-{k[1]}") for k in known_schedules()]
)
def test_dpm_solver_has_the_known_coefficients(spacing: str, steps: int, rows: list[dict[str, str]]) -> None:
    """Integers exactly; Float32 values to a few units in the last place, of which libraries' logarithms differ."""
    solver = DPMSolver(steps, spacing)
    assert solver.timesteps == [int(row["timestep"]) for row in rows]
    assert len(rows) == steps
    names = ("alpha", "sigma", "change", "sample", "estimate", "difference", "ratio")
    for call, row in enumerate(rows):
        found = solver.coefficients(int(row["timestep"]), first=call == 0)
        assert found.order == int(row["order"])
        for name in names:
            np.testing.assert_allclose(getattr(found, name), float(row[name] or 0), rtol=1e-6, atol=1e-12, err_msg=name)
        if spacing == "karras":
            level = karras_levels(steps)[solver.timesteps.index(int(row["timestep"]))]
            np.testing.assert_allclose(level, float(row["level"]), rtol=1e-6)


@pytest.mark.parametrize(
    ("spacing", "steps", "sample", "estimate"),
    [
        ("linspace", 4, 11.327132, 11.303247),
        ("leading", 4, 4.2135773, 4.2041678),
        ("karras", 4, 11.406446, 11.378028),
        ("linspace", 10, 10.615760, 10.590082),
        ("leading", 10, 6.4341512, 6.4185095),
        ("karras", 10, 10.427395, 10.401416),
        ("linspace", 25, 10.487679, 10.471101),
        ("leading", 25, 8.1500607, 8.1365366),
        ("karras", 25, 10.471460, 10.445372),
    ],
)
def test_dpm_solver_takes_a_toy_model_where_it_was_seen_to_go(
    spacing: str, steps: int, sample: float, estimate: float
) -> None:
    solver = DPMSolver(steps, spacing)
    value = np.ones(1, np.float32)
    for timestep in solver.timesteps:
        value = solver.step(np.float32(0.1) * value, timestep, value)
    np.testing.assert_allclose([value[0], solver.estimate[0]], [sample, estimate], rtol=2e-6)


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 14, 15, 25, 50, 60, 100])
@pytest.mark.parametrize("spacing", ["linspace", "leading", "karras"])
def test_dpm_solver_is_that_of_diffusers(steps: int, spacing: str) -> None:
    """With repeated timesteps (Karras', 45 steps and more) diffusers is told to look them up as Swift does."""
    if spacing == "karras" and steps == 1:
        with pytest.raises(ConsumerFailureError, match="crashes"):
            DPMSolver(steps, spacing)
        return
    chosen = settings("S7", task="txt2img", scheduler="dpm++", spacing=spacing, steps=steps)
    ours, theirs = DPMSolver(steps, spacing), DiffusersDPM(chosen)
    sample = other = np.random.RandomState(1).standard_normal((1, 4, 8, 8)).astype(np.float32)
    for step in ours.timesteps:
        sample = ours.step(np.tanh(sample + step / 1000).astype(np.float32), step, sample)
        other = theirs.step(np.tanh(other + step / 1000).astype(np.float32), step, other)
    np.testing.assert_allclose(sample, other, atol=5e-4)
    np.testing.assert_allclose(ours.estimate, theirs.estimate, atol=5e-4)


def test_two_steps_of_short_runs_have_first_order() -> None:
    """With 15 steps diffusers alone is the reference; with 14 its second last step is of second order."""
    from diffusers import DPMSolverMultistepScheduler

    def untouched(steps: int) -> float:
        import torch

        ours = DPMSolver(steps)
        scheduler = DPMSolverMultistepScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", final_sigmas_type="sigma_min"
        )
        scheduler.set_timesteps(steps)
        halves = {step for step in range(steps) if (999 * step / steps) % 1 == 0.5}  # diffusers rounds them to even
        assert len(halves) == (1 if steps == 14 else 0)
        assert sum(int(t) != own for t, own in zip(scheduler.timesteps, ours.timesteps, strict=True)) == len(halves)
        sample = np.random.RandomState(1).standard_normal((1, 4, 8, 8)).astype(np.float32)
        theirs = torch.from_numpy(sample)
        for step in ours.timesteps:
            sample = ours.step(np.tanh(sample + step / 1000).astype(np.float32), step, sample)
            theirs = scheduler.step(torch.tanh(theirs + step / 1000), step, theirs).prev_sample
        return float(np.abs(sample - theirs.numpy()).max())

    assert untouched(15) < 5e-4
    assert untouched(14) > 5e-3


def test_spacings() -> None:
    assert dpm_timesteps(25, "linspace")[:2] == [999, 959]
    assert dpm_timesteps(25, "linspace")[-1] == 40
    assert dpm_timesteps(4, "leading") == [797, 598, 399, 200]  # 999 div 5, where diffusers takes 1000 div 5
    assert dpm_timesteps(1, "linspace") == [999]
    assert dpm_timesteps(1, "leading") == [500]
    with pytest.raises(UsageError, match="no spacing 'trailing'"):
        dpm_timesteps(4, "trailing")


def test_halves_are_rounded_away_from_zero() -> None:
    """Mochi's default of 12 steps; rounding to even, as diffusers does, gives 832 and 166."""
    assert dpm_timesteps(12, "linspace") == [999, 916, 833, 749, 666, 583, 500, 416, 333, 250, 167, 83]
    even = {
        n
        for n in range(1, 151)
        if dpm_timesteps(n, "linspace") != [round(v) for v in np.linspace(0, 999, n + 1)][:0:-1]
    }
    assert len(even) == 42
    assert {6, 12, 14, 18, 24, 26, 28, 30, 36, 42, 46, 48} == {n for n in even if n < 50}


def test_karras_timesteps_are_those_of_diffusers() -> None:
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        use_karras_sigmas=True,
        final_sigmas_type="sigma_min",
    )
    for steps in range(2, 101):
        scheduler.set_timesteps(steps)
        assert [int(t) for t in scheduler.timesteps] == dpm_timesteps(steps, "karras")
        np.testing.assert_allclose(karras_levels(steps), scheduler.sigmas[:-1].numpy(), rtol=2e-5)


def test_latents_rest_where_karras_timesteps_repeat() -> None:
    solver = DPMSolver(58, "karras")
    twice = [t for t in solver.timesteps if solver.timesteps.count(t) > 1]
    assert twice == [0, 0]
    assert all(len(set(dpm_timesteps(steps, "karras"))) == steps for steps in range(2, 45))
    sample = np.full((1, 4, 2, 2), 0.5, np.float32)
    for timestep in solver.timesteps:
        before = sample
        sample = solver.step(np.tanh(sample), timestep, sample)
        assert np.array_equal(before, sample) == (timestep in twice)


@pytest.mark.parametrize(
    ("steps", "strength", "kept"),
    [(50, 0.58, 29), (75, 0.84, 62), (90, 0.7, 63), (100, 0.29, 29), (100, 0.57, 57), (50, 0.5, 25), (12, 0.75, 9)],
)
def test_steps_times_strength_is_a_float32_product(steps: int, strength: float, kept: int) -> None:
    assert settings("S7", steps=steps, strength=strength).start == steps - kept


def test_no_strength_below_zero() -> None:
    with pytest.raises(ConsumerFailureError, match="below 0"):
        noise_level(settings("S7", scheduler="dpm++", strength=-0.5), dpm_timesteps(10, "linspace"))


def test_the_old_package_decodes_what_it_encoded_where_no_step_is_left() -> None:
    assert (
        noise_level(settings("S3", scheduler="dpm++", strength=0.05), dpm_timesteps(10, "linspace"))
        == cumulative_alphas()[1]
    )


def test_mochi_crashes_behind_the_last_seed(tmp_path: Path) -> None:
    ids = np.zeros((1, 77), np.int64)
    assert [call.seed for call in settings("M6", task="txt2img", seed=4294967294).calls()] == [4294967294]
    with pytest.raises(ConsumerFailureError, match="overflows"):
        settings("M6", task="txt2img", seed=4294967295).calls()
    assert len(settings("S8", task="txt2img", seed=4294967295).calls()) == 1
    with pytest.raises(UsageError, match="seed 4294967296: releases take 0 to 4294967295"):
        execute({}, "S8", tmp_path, prompt=ids, negative=ids, seed=1 << 32)


def test_which_factor_and_spacing_an_app_sets_for_sdxl() -> None:
    found = {c.id: conventions(c) for c in consumers().consumers if "sdxl" in c.families and c.app != "python"}
    assert {name for name, rules in found.items() if rules.factor_xl != 0.13025} == {"M4.2", "D2023-07"}
    assert {name for name, rules in found.items() if rules.xl_spacing == "karras"} == {
        "M4.7",
        "M5.2",
        "M6",
        "D2023-09",
        "D2024-06",
    }
    assert {name for name, rules in found.items() if rules.guidance == "from-one"} == {"S8", "M5.2", "M6"}
    assert {name for name, rules in found.items() if rules.serial} == {"S8", "M6"}


def test_the_safety_checker_of_swift_gets_the_whole_picture_by_imagenets_means() -> None:
    from parity.suite.questions.safety import for_clip, for_swift

    grey = np.full((100, 200, 3), 124 / 255, np.float32)
    values = for_swift(grey, (224, 224))
    assert values.shape == (1, 3, 224, 224)
    expected = [(124 / 255 - mean) / deviation for mean, deviation in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))]
    np.testing.assert_allclose(values[0, :, 0, 0], expected, atol=1e-6)
    striped = grey.copy()
    striped[:, :40] = 1  # cropped away by CLIP's processor, squeezed in by Swift
    assert for_swift(striped, (224, 224))[0, :, :, :40].min() > 2
    assert np.ptp(for_clip(striped)[0, 0]) < 1e-6


def test_one_step_crashes_as_swift_does() -> None:
    with pytest.raises(ConsumerFailureError, match="crashes"):
        pndm_timesteps(1)
    with pytest.raises(ConsumerFailureError, match="leaves no step"):
        noise_level(settings("S4", scheduler="dpm++", strength=0.05), dpm_timesteps(10, "linspace"))


@pytest.mark.parametrize("release", ["S4", "S7"])
def test_the_start_is_diffusers_encode_and_add_noise(release: str) -> None:
    import torch
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    chosen = settings(release)
    shape = (1, 4, 16, 16)
    (draws,) = draw(chosen, shape)
    moments = np.random.RandomState(2).standard_normal((1, 8, 16, 16)).astype(np.float32)
    distribution = DiagonalGaussianDistribution(torch.from_numpy(moments))
    latent = (distribution.mean + distribution.std * torch.from_numpy(draws.latent.astype(np.float32))) * 0.18215
    scheduler = diffusers_scheduler(chosen.steps)
    step = scheduler.timesteps[chosen.start : chosen.start + 1]
    expected = scheduler.add_noise(latent, torch.from_numpy(draws.noise), step)
    level = noise_level(chosen, pndm_timesteps(chosen.steps))
    np.testing.assert_allclose(starting_latents(chosen, moments, draws, level), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("source", ["numpy", "torch", "nvidia"])
def test_the_order_of_draws_changed_with_0_4_0(source: str) -> None:
    shape = (1, 4, 8, 8)
    old, new = (draw(settings(who, source=source, images=2), shape) for who in ("S3", "S7"))
    stream = streams.open(f"swift-{source}", 93)
    consecutive = [stream.normal(shape) for _ in range(4)]
    for image in range(2):
        np.testing.assert_array_equal(old[image].latent, consecutive[2 * image])
        np.testing.assert_array_equal(old[image].noise, consecutive[2 * image + 1])
        np.testing.assert_array_equal(new[image].noise, consecutive[image])
    stream = streams.open(f"swift-{source}", 93)
    stream.normal(shape), stream.normal(shape)
    each = np.array([stream.normal_each((1,), dtype="float64")[0] for _ in range(256)]).reshape(shape)
    np.testing.assert_array_equal(new[0].latent, each)
    assert new[0].latent is new[1].latent, "one encoded latent for all images"


def test_mochi_makes_a_call_for_each_image_with_the_next_seed() -> None:
    calls = settings("M4.3", task="txt2img", images=3).calls()
    assert [(call.seed, call.images) for call in calls] == [(93, 1), (94, 1), (95, 1)]
    assert [call.images for call in settings("S7", images=3).calls()] == [3]


@pytest.mark.parametrize(("steps", "strength"), [(50, 0.5), (50, 0.75), (20, 0.3), (7, 0.9)])
def test_the_noise_level_of_0_3_0_is_that_of_its_first_timestep(steps: int, strength: float) -> None:
    chosen = settings("S3", steps=steps, strength=strength)
    index = 1000 - (1000 // steps) * (steps - int(steps * strength)) + 1
    assert noise_level(chosen, pndm_timesteps(steps)) == cumulative_alphas()[index]
    if 1000 % steps == 0:  # else the old formula counts from 1000 and the list from its own end
        assert index == pndm_timesteps(steps)[chosen.start]


def test_transparent_pixels_become_holes_for_releases_that_know_them() -> None:
    image = np.full((1, 4, 2, 2), 0.5, np.float32)
    image[0, 3, 0, 0] = 0
    assert hidden_holes(image, holes=True)[0, :, 0, 0].tolist() == [-1, -1, -1]
    assert (hidden_holes(image, holes=False) == 0.5).all()
    assert (hidden_holes(image[:, :3], holes=True) == 0.5).all()


def test_the_second_tokenizer_pads_with_exclamation_marks() -> None:
    ids = np.array([[98, 5, 7, 99, 99, 99]])
    assert repadded(ids).tolist() == [[98, 5, 7, 99, 0, 0]]


def test_every_consumer_states_how_it_runs_its_models() -> None:
    for consumer in consumers().consumers:
        rules = conventions(consumer)
        python = consumer.app == "python"
        assert (rules.pipeline == "python") == python, consumer.id
        assert rules.encoder != "none" or "img2img" not in consumer.tasks, consumer.id
        assert (rules.time_ids != "none") == ("sdxl" in consumer.families), consumer.id


def test_conventions_of_ones_own(tmp_path: Path) -> None:
    table = tmp_path / "mine.toml"
    text = '[[consumer]]\nid = "mine"\napp = "mine"\nlike = "S7"\n[consumer.conventions]\n'
    table.write_text(text + 'images = "seed"\nschedulers = ["dpm++"]\n')
    mine = conventions(consumers((table,)).consumer("mine"))
    assert (mine.images, mine.schedulers, mine.encoder) == ("seed", ("dpm++",), "any")
    ids = np.zeros((1, 77), np.int64)
    failure = execute({}, consumers((table,)).consumer("mine"), tmp_path, prompt=ids, negative=ids).failure
    assert "model-load error for Unet" in failure, "with the messages of the release that it is like"
    for number, (line, message) in enumerate(
        [
            ('imges = "seed"', "unknown field 'imges'"),
            ('images = "many"', "'images' must be one, stream, seed"),
            ('schedulers = ["euler-a"]', "'schedulers' must be pndm, dpm"),
            ("start_pixels = -1", "'start_pixels' must be a number"),
            ("holes = 1", "'holes' must be true or false"),
        ]
    ):
        faulty = tmp_path / f"faulty-{number}.toml"
        faulty.write_text(text + line + "\n")
        with pytest.raises(FormatError, match=message):
            conventions(consumers((faulty,)).consumer("mine"))


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    ids = np.zeros((1, 77), np.int64)
    for who, options, error, message in (
        ("S2", {"source": "torch"}, UsageError, "S2 has no random source 'torch'; it has numpy"),
        ("S1", {"scheduler": "dpm++"}, UsageError, "S1 has no scheduler 'dpm"),
        ("S3", {"spacing": "leading"}, UsageError, "S3 has no spacing 'leading'"),
        ("S2", {"task": "img2img"}, UnsupportedError, "S2 has no task img2img"),
        ("S7", {"task": "multilingual"}, UsageError, "needs the token vectors of prompt and negative prompt"),
    ):
        with pytest.raises(error, match=message):
            execute({}, who, tmp_path, prompt=ids, negative=ids, **options)


def test_missing_models_fail_as_the_tables_say(tmp_path: Path) -> None:
    ids = np.zeros((1, 77), np.int64)
    assert "model-load error for Unet" in execute({}, "S7", tmp_path, prompt=ids, negative=ids).failure
    assert "FileNotFoundError" in execute({}, "P1", tmp_path, prompt=ids, negative=ids).failure
