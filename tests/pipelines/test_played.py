"""Playing consumers: the PyTorch side against diffusers' own pipelines, the consumers' own ways on real conversions.

The grid converter release x consumer release x task is part of the parity suite (``parity.suite.questions.pairings``).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from parity import recipes, streams
from parity.backends.pytorch import TorchBackend
from parity.contracts.consumers import consumers
from parity.contracts.inspect import inspect
from parity.errors import UsageError
from parity.models.model import Model
from parity.pipelines import python, swift
from parity.pipelines.loop import Networks
from parity.pipelines.schedules.played import schedule as by_diffusers
from parity.pipelines.settings import Material, Settings
from parity.pipelines.trace import Trace
from parity.suite.questions import releases
from parity.suite.questions.play import Execution, Original, conventions
from parity.suite.questions.safety import check_safety
from tests.pipelines.playing import execute

LOWEST_PSNR = 40.0  # dB; measured 46 to 57 on the miniature model, float16 against float32
PROMPTS = ("a red circle on a blue background", "blurry, low quality")
IMAGE = np.random.RandomState(93).uniform(-1, 1, (1, 3, 128, 128)).astype(np.float32)

Converted = Callable[..., Path]
Written = Callable[..., dict[str, Path]]


@pytest.fixture(scope="session")
def kept() -> dict:
    return {}


@pytest.fixture(scope="session")
def play(checkpoint: Path, kept: dict) -> Callable[..., Execution]:
    prompt, negative = (Model("tiny-sd").tokens(text) for text in PROMPTS)

    def run(models: dict[str, Path], consumer: str, **options) -> Execution:  # type: ignore[no-untyped-def]
        options = {"original": checkpoint, "prompt": prompt, "negative": negative, "steps": 3, "kept": kept, **options}
        return execute(models, consumer, **options)

    return run


# ------------------------------------------------------------------------------------------- PyTorch side and diffusers


def torch_side(folder: Path, who: str, *, xl: bool = False, controls=(), nets=(), **changes):  # type: ignore[no-untyped-def]
    """Draw with the PyTorch networks in the order of a Swift release that decodes the last latents."""
    model = Model(str(folder))
    rules = replace(conventions(consumers().consumer(who)), decodes="latents")
    chosen = Settings(rules, "controlnet" if controls else "txt2img", steps=5, guidance=5.0, **changes)
    networks = torch_networks(folder, nets)
    prompt, negative = (model.tokens(text) for text in PROMPTS)
    return swift.pictures(networks, by_diffusers, chosen, Material(prompt, negative, controls=tuple(controls), xl=xl))


def torch_networks(folder: Path, nets=(), trace: Trace | None = None) -> Networks:  # type: ignore[no-untyped-def]
    backend = TorchBackend(folder, controlnets=nets)
    return Networks(backend.component, Trace() if trace is None else trace, (1, *Model(str(folder)).latent_shape))


def pipeline(kind: str, folder: Path, **parts):  # type: ignore[no-untyped-def]
    import diffusers

    from parity import quiet

    with quiet.loading():
        loaded = getattr(diffusers, kind).from_pretrained(folder, safety_checker=None, **parts)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def swift_noise(shape: tuple[int, ...]):  # type: ignore[no-untyped-def]
    import torch

    return torch.from_numpy(streams.open("swift-numpy", 93).normal(shape))


COMMON = {"num_inference_steps": 5, "guidance_scale": 5.0, "output_type": "np"}


def test_sd_draws_what_the_diffusers_pipeline_draws(checkpoint: Path) -> None:
    theirs = pipeline("StableDiffusionPipeline", checkpoint)
    expected = theirs(PROMPTS[0], negative_prompt=PROMPTS[1], latents=swift_noise((1, 4, 16, 16)), **COMMON).images
    np.testing.assert_allclose(torch_side(checkpoint, "S2"), expected, atol=2e-3)


@pytest.mark.long
def test_controlnets_draw_what_the_diffusers_pipeline_draws(checkpoint: Path) -> None:
    import torch
    from diffusers import ControlNetModel

    nets = releases.controlnets(checkpoint)
    images = [np.random.RandomState(i).uniform(0, 1, (1, 3, 128, 128)).astype(np.float32) for i in range(2)]
    loaded = [ControlNetModel.from_pretrained(net) for net in nets]
    theirs = pipeline("StableDiffusionControlNetPipeline", checkpoint, controlnet=loaded)
    options = {**COMMON, "image": [torch.from_numpy(i) for i in images], "latents": swift_noise((1, 4, 16, 16))}
    expected = theirs(PROMPTS[0], negative_prompt=PROMPTS[1], **options).images
    ours = torch_side(checkpoint, "S4", controls=images, nets=nets)
    np.testing.assert_allclose(ours, expected, atol=2e-3)
    first = torch_side(checkpoint, "S7", controls=images, nets=nets)
    assert np.abs(first - expected).max() > 0.05, "from 2023-07-18 on only the first net acts"
    np.testing.assert_allclose(first, torch_side(checkpoint, "S4", controls=images[:1], nets=nets), atol=1e-6)


def test_sdxl_draws_what_the_diffusers_pipeline_draws() -> None:
    from diffusers import PNDMScheduler

    folder = recipes.build("tiny-sdxl")
    theirs = pipeline("StableDiffusionXLPipeline", folder)
    theirs.tokenizer_2.pad_token = "!"
    theirs.scheduler = PNDMScheduler.from_config(theirs.scheduler.config, skip_prk_steps=True, set_alpha_to_one=False)
    size = {"original_size": (1024, 1024), "target_size": (1024, 1024), "height": 64, "width": 64}
    options = {**COMMON, **size, "latents": swift_noise((1, 4, 8, 8))}
    expected = theirs(PROMPTS[0], negative_prompt=PROMPTS[1], **options).images
    np.testing.assert_allclose(torch_side(folder, "S7", xl=True, factor=0.13025), expected, atol=2e-3)


@pytest.mark.parametrize(("scheduler", "kind"), sorted(python.SCHEDULERS.items()))
def test_python_draws_what_the_diffusers_pipeline_draws(scheduler: str, kind: str, checkpoint: Path) -> None:
    import diffusers
    import torch

    theirs = pipeline("StableDiffusionPipeline", checkpoint)
    theirs.scheduler = getattr(diffusers, kind).from_config(theirs.scheduler.config)
    drawn = streams.open("numpy-legacy", 93).normal((1, 4, 16, 16), dtype="float64").astype(np.float16)
    options = {**COMMON, "latents": torch.from_numpy(drawn.astype(np.float32))}
    expected = theirs(PROMPTS[0], negative_prompt=PROMPTS[1], **options).images
    model = Model("tiny-sd")
    chosen = Settings(conventions(consumers().consumer("P6")), "txt2img", steps=5, guidance=5.0)
    prompt, negative = (model.tokens(text) for text in PROMPTS)
    made = python.scheduler(model.scheduler_config, scheduler)
    ours = python.pictures(torch_networks(checkpoint), made, chosen, Material(prompt, negative))
    np.testing.assert_allclose(ours, expected, atol=2e-2)  # latents begin in float16 here


@pytest.mark.long
def test_swift_draws_another_picture_than_a_model_of_v_prediction_means(checkpoint: Path) -> None:
    theirs = pipeline("StableDiffusionPipeline", checkpoint)
    theirs.scheduler = type(theirs.scheduler).from_config(theirs.scheduler.config, prediction_type="v_prediction")
    meant = theirs(PROMPTS[0], negative_prompt=PROMPTS[1], latents=swift_noise((1, 4, 16, 16)), **COMMON).images
    assert np.abs(torch_side(checkpoint, "S2") - meant).max() > 0.2


# -------------------------------------------------------------------------------------------------- on real conversions


@pytest.mark.long
def test_python_draws_what_a_model_of_v_prediction_means(
    written: Written, play: Callable[..., Execution], checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoint, folder)
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "prediction_type": "v_prediction"}))
    models = written("main", "sd", "text_encoder", "unet", "vae_decoder")
    mine, usual = (play(models, "P6", original=where, scheduler="ddim") for where in (folder, checkpoint))
    assert mine.psnr >= LOWEST_PSNR
    assert np.abs(mine.pictures - usual.pictures).max() > 0.1, "the scheduler's configuration decides"


@pytest.mark.long
def test_sources_and_releases_draw_different_pictures(written: Written, play: Callable[..., Execution]) -> None:
    models = written("0.4.0", "sd", "text_encoder", "unet", "vae_decoder", "vae_encoder")
    first, *others = (
        play(models, consumer, image=IMAGE, source=source).pictures
        for consumer, source in (("S4", "numpy"), ("S4", "torch"), ("S7", "numpy"))
    )
    for other in others:
        assert np.abs(first - other).max() > 0.01


@pytest.mark.long
def test_the_image_is_ignored_at_full_strength(written: Written, play: Callable[..., Execution]) -> None:
    models = written("0.4.0", "sd", "text_encoder", "unet", "vae_decoder", "vae_encoder")
    assert play(models, "S7", image=IMAGE, strength=1.0).settings.task == "txt2img"


@pytest.mark.slow
def test_long_runs_and_other_spacings(written: Written, play: Callable[..., Execution]) -> None:
    models = written("main", "sd", "text_encoder", "unet", "vae_decoder")
    for spacing in ("linspace", "leading", "karras"):
        assert play(models, "S8", scheduler="dpm++", spacing=spacing, steps=16).psnr >= LOWEST_PSNR


@pytest.mark.long
def test_images_of_one_call_and_of_following_seeds(written: Written, play: Callable[..., Execution]) -> None:
    models = written("main", "sd", "text_encoder", "unet", "vae_decoder")
    swift, mochi = (play(models, who, images=2).pictures for who in ("S8", "M6"))
    np.testing.assert_array_equal(swift[0], mochi[0])
    assert np.abs(swift[1] - mochi[1]).max() > 0.05
    np.testing.assert_array_equal(mochi[1], play(models, "S8", seed=94).pictures[0])


@pytest.mark.long
def test_python_replaces_an_empty_negative_prompt(written: Written, play: Callable[..., Execution]) -> None:
    models = written("main", "sd", "text_encoder", "unet", "vae_decoder")
    empty = Model("tiny-sd").tokens("")
    results = {who: play(models, who, negative=empty) for who in ("P3", "P4", "P6")}
    assert all(result.psnr >= LOWEST_PSNR for result in results.values())
    np.testing.assert_array_equal(results["P3"].pictures, results["P6"].pictures)
    assert np.abs(results["P3"].pictures - results["P4"].pictures).max() > 0.02, "zeros for every model in 1.1"
    assert "one image a call" in play(models, "P6", images=2).failure


@pytest.mark.long
def test_python_decodes_sdxl_with_the_factor_of_sd(written: Written, play: Callable[..., Execution]) -> None:
    models = written("1.1.0", "xl")
    original = Original(recipes.build("tiny-sdxl"))
    flawed = play(models, "P6", original=original, scheduler="ddim")
    assert flawed.psnr >= LOWEST_PSNR, "PyTorch with the same factor draws the same"
    decoder = TorchBackend(original.checkpoint).component("vae_decoder")
    latents = np.random.RandomState(1).standard_normal((1, 4, 8, 8)).astype(np.float32)
    right, wrong = (decoder({"latents": latents / np.float32(factor)})["image"] for factor in (0.13025, python.FACTOR))
    assert np.abs(right - wrong).max() > 0.1, "which is not the picture that SDXL's own factor gives"


@pytest.mark.long
def test_the_refiner_takes_over_for_the_last_steps(written: Written, play: Callable[..., Execution]) -> None:
    models = written("1.1.0", "xl")
    original = Original(recipes.build("tiny-sdxl"), refiner=recipes.build("tiny-sdxl-refiner"))
    options = {"original": original, "scheduler": "dpm++", "steps": 5}
    without = {name: path for name, path in models.items() if name != "refiner"}
    refined, base = play(models, "S7", task="refiner", **options), play(without, "S7", **options)
    assert refined.psnr >= LOWEST_PSNR
    assert np.abs(refined.pictures - base.pictures).max() > 0.02
    np.testing.assert_array_equal(play(models, "S7", **options).pictures, refined.pictures)  # asked for or not
    with pytest.raises(UsageError, match="give its checkpoint"):
        play(models, "S7", **{**options, "original": original.checkpoint})
    assert "goes on with the base model only" in play(without, "S8", task="refiner", **options).failure


def test_a_refiner_in_the_place_of_the_base_model(written: Written, play: Callable[..., Execution]) -> None:
    """It needs the second text encoder alone; a base model needs both."""
    models = written("1.1.0", "xl")
    parts = {name: models[name] for name in ("text_encoder_2", "vae_decoder")}
    options = {"original": recipes.build("tiny-sdxl-refiner"), "scheduler": "dpm++", "steps": 5}
    assert play({**parts, "unet": models["refiner"]}, "S7", **options).psnr >= LOWEST_PSNR
    assert "missingUnetInputs" in play({**parts, "unet": models["unet"]}, "S7", **options).failure


@pytest.mark.long
def test_apps_space_and_scale_sdxl_by_their_date(written: Written, play: Callable[..., Execution]) -> None:
    models = {name: path for name, path in written("C6", "xl").items() if not name.startswith("vae_encoder")}
    options = {"original": recipes.build("tiny-sdxl"), "scheduler": "dpm++", "steps": 8}
    found = {who: play(models, who, **options) for who in ("M4.2", "M4.6", "M4.7", "D2023-07", "D2023-08", "D2023-09")}
    assert all(result.psnr >= LOWEST_PSNR for result in found.values()), {k: v.psnr for k, v in found.items()}
    for one, other in (("M4.2", "D2023-07"), ("M4.7", "D2023-09")):
        np.testing.assert_array_equal(found[one].pictures, found[other].pictures)
    for one, other in (("M4.2", "D2023-08"), ("M4.6", "M4.7"), ("D2023-08", "D2023-09")):
        assert np.abs(found[one].pictures - found[other].pictures).max() > 0.02, (one, other)


@pytest.mark.long
def test_without_guidance(written: Written, play: Callable[..., Execution]) -> None:
    """Up to Swift 1.1 both rows are computed whatever the scale; later releases fail as the tables say."""
    models = written("main", "sd", "text_encoder", "unet", "vae_decoder")
    for who in ("S5", "S7", "D2024-06"):
        assert play(models, who, guidance=0.0, scheduler="dpm++", steps=8).psnr >= LOWEST_PSNR
    for who, guidance, text in (
        ("S8", 0.5, "below a guidance scale of 1: Core ML shape error, one row is sent"),
        ("P6", 1.0, "at a guidance scale of 1 or less: TypeError on the shape"),
        ("P3", 1.0, "at a guidance scale of 1 or less: TypeError on the shape"),
    ):
        assert play(models, who, guidance=guidance).failure.startswith(text)
    assert play(models, "S8", guidance=1.0).psnr >= LOWEST_PSNR
    xl = written("1.1.0", "xl")
    options = {"original": recipes.build("tiny-sdxl"), "guidance": 1.0}
    assert "time_ids, which are one vector" in play(xl, "P6", **options).failure


def test_requests_that_crash_an_app(written: Written, play: Callable[..., Execution]) -> None:
    models = written("0.4.0", "sd", "text_encoder", "unet", "vae_decoder", "vae_encoder")
    weak = play(models, "M4.6", image=IMAGE, scheduler="dpm++", steps=12, strength=0.05)
    assert weak.failure.startswith("a strength that leaves no step")
    assert play(models, "M6", seed=4294967295).failure.startswith("the process crashes behind the last image")
    with pytest.raises(UsageError, match="draws one picture a call"):
        play(models, "D2023-06", scheduler="dpm++", images=2)


@pytest.mark.long
def test_holes_of_the_control_image_act_from_august_2023_on(
    written: Written, play: Callable[..., Execution], checkpoint: Path
) -> None:
    models = written("0.4.0", "sd", "text_encoder", "control-unet", "controlnet", "vae_decoder")
    second = [name for name in models if name.startswith("controlnet:")][1]
    del models[second]
    image = np.full((1, 4, 128, 128), 0.5, np.float32)
    image[:, 3, 32:96, 32:96] = 0
    original = Original(checkpoint, releases.controlnets(checkpoint)[:1])
    options = {"original": original, "scheduler": "dpm++", "steps": 8}
    holed = play(models, "S7", controls=[image], task="inpaint", **options)
    plain = play(models, "S7", controls=[image[:, :3]], **options)
    assert holed.psnr >= LOWEST_PSNR
    assert np.abs(holed.pictures - plain.pictures).max() > 0.02


@pytest.mark.long
def test_float16_outputs_crash_old_releases_only(
    written: Written, converted: Converted, play: Callable[..., Execution]
) -> None:
    models = written("0.4.0", "sd", "text_encoder", "unet", "vae_decoder")
    models["vae_decoder"] = converted("0.4.0", "vae_decoder", outputs="FLOAT16")
    old, new = (play(models, consumer) for consumer in ("S5", "S7"))
    assert "read without conversion" in old.failure
    assert new.psnr >= LOWEST_PSNR


@pytest.mark.slow  # tests/backends/test_packages.py: two halves give what the whole gives
def test_a_chunked_unet_draws_the_same_picture(
    written: Written, play: Callable[..., Execution], tmp_path: Path
) -> None:
    from parity.convert.chunk import chunk

    models = written("main", "sd", "text_encoder", "unet", "vae_decoder")
    halves = chunk(models["unet"], tmp_path, check=False)
    parts = {"text_encoder": models["text_encoder"], "vae_decoder": models["vae_decoder"]}
    parts |= {"unet_chunk1": halves.first, "unet_chunk2": halves.second}
    for consumer in ("S1", "S8"):
        assert play(parts, consumer).psnr >= LOWEST_PSNR
    assert play(parts, "P6").failure.startswith("FileNotFoundError: the Python pipeline never loads chunks")


@pytest.mark.long
def test_a_unet_of_batch_one(written: Written, converted: Converted, play: Callable[..., Execution]) -> None:
    models = {**written("main", "sd", "text_encoder", "vae_decoder"), "unet": converted("main", "unet", batch=1)}
    whole = written("main", "sd", "text_encoder", "unet", "vae_decoder")
    for consumer in ("S8", "P6"):
        serial = play(models, consumer)
        assert serial.psnr >= LOWEST_PSNR
        # 51 and 52 dB, up to 0.023 in single pixels: float16 rounds elsewhere where the rows run one by one
        assert peak_signal_noise_ratio(play(whole, consumer).pictures, serial.pictures, data_range=1) >= 46
    assert play(models, "S8", guidance=0.5).psnr >= LOWEST_PSNR, "no guidance, one row"
    for consumer, text in (("S7", "the input has batch 2"), ("M5.2", "batch 2"), ("P5", "batch 2 is sent")):
        assert text in play(models, consumer).failure


@pytest.mark.slow
def test_components_of_other_sizes_fail_as_the_tables_say(
    written: Written, converted: Converted, play: Callable[..., Execution]
) -> None:
    models = written("0.4.0", "sd", "text_encoder", "unet", "vae_decoder", "vae_encoder")
    larger = {name: converted("0.4.0", name, height=192, width=192) for name in ("vae_decoder", "vae_encoder")}
    large_image = np.random.RandomState(3).uniform(-1, 1, (1, 3, 192, 192)).astype(np.float32)
    for other, options, rule in (
        ({"vae_decoder": larger["vae_decoder"]}, {}, "at decoding"),
        ({"vae_encoder": larger["vae_encoder"]}, {"image": large_image}, "the encoder's latents have another size"),
    ):
        failure = play(models | other, "S7", **options).failure
        assert rule in failure
    assert "sampleInputShapeNotCorrect" in play(models, "S7", image=large_image).failure, "images are not resized"


@pytest.mark.slow
def test_controlnets_of_float16_outputs_crash_until_repaired(
    written: Written, play: Callable[..., Execution], checkpoint: Path, tmp_path: Path
) -> None:
    from parity import convert, repair

    nets = releases.controlnets(checkpoint)[:1]
    original = Original(checkpoint, nets)
    models = written("0.4.0", "sd", "text_encoder", "control-unet", "vae_decoder")
    image = np.random.RandomState(3).uniform(0, 1, (1, 3, 128, 128)).astype(np.float32)
    made = convert.cached(
        checkpoint, contract="0.4.0", components=["controlnet"], controlnets=nets, outputs="FLOAT16", identifier="a/b"
    )
    ((name, path),) = made.items()
    for consumer in ("S4", "S8"):
        failure = play(models | made, consumer, original=original, controls=[image]).failure
        assert failure == "crash: the residuals are read as Float32 without conversion"
    (result,) = repair.apply(repair.plan(inspect(path)), tmp_path)
    assert all(proof.exact for proof in result.proofs)
    mended = play(models | {name: Path(result.target)}, "S4", original=original, controls=[image])
    assert mended.psnr >= LOWEST_PSNR, mended.failure


@pytest.mark.long
def test_the_safety_check_agrees_with_pytorch(written: Written, checkpoint: Path) -> None:
    folder = releases.safety(checkpoint)
    shades = np.linspace(0, 1, 6, dtype=np.float32)[:, None, None, None] * np.ones((1, 128, 128, 3), np.float32)
    shades[:, :64, :, 1] = 0
    models = written("0.1.0", "sd", "safety_checker")
    result = check_safety(models, "P1", folder, shades)
    assert result.flags == result.references
    assert set(result.flags) == {True, False}
    assert check_safety(models, "S4", folder, shades).failure.startswith(
        "Core ML shape error thrown from generateImages"
    )
    large = written("main", "sd", "safety_checker", safety_size=512)
    assert check_safety(large, "S4", folder, shades).flags == result.flags


@pytest.mark.long
def test_repaired_encoders_work_where_the_tables_promise(
    written: Written, play: Callable[..., Execution], tmp_path: Path
) -> None:
    from parity import repair

    legacy = written("0.3.0", "sd", "text_encoder", "unet", "vae_decoder", "vae_encoder")
    modern = written("1.1.0", "sd", "vae_encoder")["vae_encoder"]
    cut = repair.apply(repair.plan(inspect(legacy["vae_encoder"])), tmp_path / "cut", prove=False)[0].target
    plan = repair.plan(inspect(modern), consumer=consumers().consumer("S3"))
    extended = repair.apply(plan, tmp_path / "extended", prove=False)[0].target
    for encoder, consumer in ((cut, "S4"), (cut, "S8"), (extended, "S3")):
        result = play({**legacy, "vae_encoder": Path(encoder)}, consumer, image=IMAGE)
        assert result.psnr >= LOWEST_PSNR, (encoder, result.failure)
