"""Does the shipped model draw what its prompts say? Held-out prompts, fixed seeds, measured in the pixels.

All but a few are slow: the weights do not change, and what they draw in the suite's cases is held by its goldens.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio
from skimage.transform import resize

from fixtures.shapes import caption, measure, picture, sheet
from fixtures.shapes.__main__ import load, load_unconditional
from parity.recipes import trained


@pytest.fixture(scope="module")
def folder() -> Path:
    return trained.folder("shapes-sd")


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Any:
    return load(folder)


def _score(pipeline: Any, count: int, *, guidance: float = 5.0, steps: int = 20) -> sheet.Score:
    wanted = caption.prompts(count)
    texts = [item.caption for item in wanted]
    return sheet.score(wanted, sheet.pictures(pipeline, texts, seeds=range(count), guidance=guidance, steps=steps))


@pytest.mark.parametrize("name", ["shapes-sd", "shapes-sd-v"])
def test_the_folder_is_small(name: str) -> None:
    folder = trained.folder(name)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 16e6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shapes-sd", "shapes-sd-v"])
def test_some_prompts_are_drawn(name: str) -> None:
    score = _score(load(trained.folder(name)), 24, steps=12)
    assert score.colour >= 0.8
    assert score.shape >= 0.65
    assert score.background >= 0.8


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shapes-sd", "shapes-sd-v"])
def test_two_hundred_prompts_are_drawn_and_guidance_helps(name: str) -> None:
    pipeline = load(trained.folder(name))
    guided, free = _score(pipeline, 200), _score(pipeline, 200, guidance=1.0)
    print(guided, free, sep="\n")
    assert guided.colour >= 0.9
    assert guided.shape >= 0.8
    assert free.colour + free.shape < guided.colour + guided.shape


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shapes-sd", "shapes-sd-v"])
def test_it_draws_under_its_users_defaults(name: str) -> None:
    score = _score(load(trained.folder(name), scheduler="own"), 60, guidance=7.5, steps=50)  # diffusers' plain call
    assert score.colour >= 0.85
    assert score.shape >= 0.85


def test_pndm_finds_its_settings_in_the_folder(folder: Path) -> None:
    from diffusers import PNDMScheduler, StableDiffusionPipeline

    own = StableDiffusionPipeline.from_pretrained(folder).scheduler
    assert type(own).__name__ == "DDIMScheduler"
    config = PNDMScheduler.from_config(own.config).config
    assert (config.skip_prk_steps, config.set_alpha_to_one, config.steps_offset) == (True, False, 1)


@pytest.mark.long
def test_the_autoencoder_keeps_held_out_pictures(pipeline: Any) -> None:
    images = np.stack([picture.draw(item.scene) for item in caption.prompts(24, seed=7)])
    with torch.inference_mode():
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
        decoded = pipeline.vae.decode(pipeline.vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
    back = ((decoded + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    found = [peak_signal_noise_ratio(a, b, data_range=255) for a, b in zip(images, back, strict=True)]
    assert np.mean(found) >= 28


@pytest.mark.long
def test_image_to_image_keeps_the_layout_and_changes_the_colour(pipeline: Any) -> None:
    from diffusers import StableDiffusionImg2ImgPipeline

    again = StableDiffusionImg2ImgPipeline(**pipeline.components, requires_safety_checker=False)
    again.set_progress_bar_config(disable=True)
    blue = picture.Thing("square", "blue", 38.0, 64.0, 30.0)
    red = replace(blue, colour="red")
    wanted = caption.Sample("", picture.Scene("gray", (red,)), "one", "on the left")
    start = Image.fromarray(picture.draw(picture.Scene("gray", (blue,))))
    images = again(
        ["a red square on the left on a gray background"] * 8,
        image=start,
        strength=0.7,
        guidance_scale=5.0,
        num_inference_steps=20,
        generator=torch.Generator().manual_seed(93),
        output_type="np",
    ).images
    verdicts = [measure.judge(np.rint(image * 255).astype(np.uint8), wanted) for image in images]
    assert sum(verdict.colour for verdict in verdicts) >= 7
    assert sum(verdict.place is True and verdict.background for verdict in verdicts) >= 7
    assert not measure.judge(np.asarray(start), wanted).colour, "the start is not yet what the prompt says"


@pytest.mark.slow
def test_the_unconditional_model_draws_objects_on_plain_backgrounds() -> None:
    folder = trained.folder("shapes-ddpm")
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 2e6
    drawn = load_unconditional(folder)(
        24, torch.Generator().manual_seed(93), num_inference_steps=50, output_type="np"
    ).images
    found = [measure.objects(np.rint(resize(image, (128, 128), order=1) * 255).astype(np.uint8)) for image in drawn]
    assert len({ground for ground, _ in found}) == len(picture.BACKGROUNDS)
    assert sum(1 <= len(objects) <= 3 for _, objects in found) >= 20


@pytest.mark.slow
def test_half_precision_draws_the_same_pictures(folder: Path, pipeline: Any) -> None:
    half = load(folder, "float16")
    texts = [item.caption for item in caption.prompts(8)]
    whole = sheet.pictures(pipeline, texts, seeds=range(8))
    found = [
        peak_signal_noise_ratio(a, b, data_range=255)
        for a, b in zip(whole, sheet.pictures(half, texts, seeds=range(8)), strict=True)
    ]
    print(found)
    assert min(found) >= 45
