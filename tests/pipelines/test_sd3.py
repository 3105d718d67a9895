"""Stable Diffusion 3 with PyTorch components: diffusers' own latents and pictures, bit for bit."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parity import assets, quiet, recipes, streams
from parity.backends.pytorch import TorchBackend
from parity.errors import UsageError
from parity.models.model import Model
from parity.pipelines import sd3
from parity.pipelines.request import Request
from parity.pipelines.schedules import flow
from parity.pipelines.trace import Trace

PICTURE = assets.fixtures() / "pictures" / "start.png"
PROMPTS = ("a photo of a red circle", "blurry, low quality")


@cache
def backend(location: str) -> TorchBackend:
    return TorchBackend(location)


@cache
def pipeline(location: str, task: str, *, t5: bool) -> Any:
    import diffusers

    kind: Any = diffusers.StableDiffusion3Pipeline if task == "txt2img" else diffusers.StableDiffusion3Img2ImgPipeline
    with quiet.loading():
        found = kind.from_pretrained(location, **({} if t5 else {"text_encoder_3": None, "tokenizer_3": None}))
    found.set_progress_bar_config(disable=True)
    return found


def ours(location: str, request: Request, seed: int, **options: Any) -> tuple[np.ndarray, Trace]:
    model, trace = Model(location), Trace()
    stream = streams.open("torch-cpu", seed=seed)
    components = backend(model.location).components(sd3.components(request, model))
    return sd3.run(request, model, components, stream.normal, observe=trace, **options), trace


def theirs(location: str, request: Request, seed: int, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    import diffusers
    import torch
    from PIL import Image

    model = Model(location)
    call = pipeline(model.location, request.task, t5=model.has("text_encoder_3"))
    call.scheduler = getattr(diffusers, flow.SCHEDULERS[request.scheduler]).from_config(model.scheduler_config)
    if request.image is not None:
        options |= {"image": Image.open(request.image).convert("RGB"), "strength": request.strength}

    def draw(output_type: str) -> Any:
        return call(
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance_scale,
            num_images_per_prompt=request.images,
            height=model.image_size[0],
            width=model.image_size[1],
            generator=torch.Generator().manual_seed(seed),
            output_type=output_type,
            **options,
        ).images

    return draw("latent").numpy(), np.stack([np.asarray(picture) for picture in draw("pil")])


def equal(location: str, request: Request, *, t5_tokens: int = sd3.T5_TOKENS, seed: int = 93) -> Trace:
    image, trace = ours(location, request, seed, t5_tokens=t5_tokens)
    latents, expected = theirs(location, request, seed, max_sequence_length=t5_tokens)
    last = [point for point in trace if point.startswith("latents/")][-1]
    assert np.abs(trace[last] - latents).max() == 0.0
    np.testing.assert_array_equal(image, expected)
    assert image.std() > 20  # a picture, not a flat colour
    return trace


def changed(tmp_path: Path, **scheduler: Any) -> str:
    """Copy the model with another scheduler configuration."""
    folder = tmp_path / "model"
    shutil.copytree(recipes.build("tiny-sd3"), folder)
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **scheduler}))
    return str(folder)


@pytest.mark.parametrize("task", ["txt2img", "img2img"])
@pytest.mark.parametrize("name", ["tiny-sd3", "tiny-sd3-t5"])
def test_both_tasks_equal_diffusers_with_and_without_t5(name: str, task: str) -> None:
    image = PICTURE if task == "img2img" else None
    trace = equal(name, Request(task, *PROMPTS, scheduler="flow-euler", steps=6, strength=0.55, image=image))
    third = ("text_encoder_3",) if name == "tiny-sd3-t5" else ()
    start = ("vae_encoder",) if task == "img2img" else ()
    called = set(trace.components)
    assert called == {*start, "text_encoder", "text_encoder_2", *third, "mmdit", "vae_decoder"}
    assert len(trace.calls("mmdit")) == (6 if task == "txt2img" else 4)  # int(6 - 3.3) steps are left out
    assert trace["mmdit/step00/hidden"].shape == (2, 154, 96)


def test_t5_changes_the_picture() -> None:
    request = Request("txt2img", *PROMPTS, scheduler="flow-euler", steps=4)
    without, _ = ours("tiny-sd3", request, 93)
    drawn, _ = ours("tiny-sd3-t5", request, 93)
    assert np.abs(drawn.astype(int) - without.astype(int)).max() > 20


@pytest.mark.parametrize(
    ("options", "t5_tokens"),
    [
        ({"guidance_scale": 1.0, "steps": 1}, 77),
        ({"guidance_scale": 0.5, "steps": 3}, 77),
        ({"guidance_scale": 3.5, "steps": 9, "images": 2}, 77),
        ({"guidance_scale": 7.0, "steps": 2}, 256),
        ({"guidance_scale": 7.0, "steps": 5, "scheduler": "flow-heun"}, 77),
    ],
)
def test_guidance_steps_images_and_lengths_equal_diffusers(options: dict[str, Any], t5_tokens: int) -> None:
    request = Request("txt2img", *PROMPTS, **{"scheduler": "flow-euler", **options})
    trace = equal("tiny-sd3-t5", request, t5_tokens=t5_tokens, seed=7)
    rows = request.images * (2 if request.guidance_scale > 1 else 1)
    assert trace["mmdit/step00/sample"].shape == (rows, 16, 8, 8)


@pytest.mark.long
@given(
    name=st.sampled_from(["tiny-sd3", "tiny-sd3-t5"]),
    task=st.sampled_from(["txt2img", "img2img"]),
    seed=st.integers(0, 2**63 - 1),
    steps=st.integers(2, 9),
    guidance=st.floats(0, 15, allow_nan=False),
    strength=st.floats(0.5, 1),
    scheduler=st.sampled_from(list(flow.SCHEDULERS)),
)
@settings(max_examples=12, deadline=None)
def test_any_request_equals_diffusers(
    name: str, task: str, seed: int, steps: int, guidance: float, strength: float, scheduler: str
) -> None:
    image = PICTURE if task == "img2img" else None
    numbers = {"steps": steps, "guidance_scale": guidance, "strength": strength}
    equal(name, Request(task, *PROMPTS, scheduler=scheduler, image=image, **numbers), seed=seed)


@pytest.mark.parametrize("scheduler", [{"shift": 1.0}, {"shift": 5.0}, {"use_dynamic_shifting": True, "shift": 1.0}])
def test_the_shift_of_the_configuration_equals_diffusers(tmp_path: Path, scheduler: dict[str, Any]) -> None:
    equal(changed(tmp_path, **scheduler), Request("txt2img", *PROMPTS, scheduler="flow-euler", steps=4))


@pytest.mark.long
def test_skipped_layers_equal_diffusers(tmp_path: Path) -> None:
    recipe = recipes.load("tiny-sd3")
    for part in ("text_encoder", "text_encoder_2"):
        recipe.table["components"][part]["config"]["num_hidden_layers"] = 4
    with quiet.loading():
        recipes.write(recipe, tmp_path / "deep")
    request = Request("txt2img", *PROMPTS, scheduler="flow-euler", steps=3, clip_skip=2)
    image, _ = ours(str(tmp_path / "deep"), request, 5)
    _, expected = theirs(str(tmp_path / "deep"), request, 5, max_sequence_length=77, clip_skip=2)
    np.testing.assert_array_equal(image, expected)
    with pytest.raises(UsageError, match="clip_skip 1: text_encoder has 2 layers"):
        ours("tiny-sd3", Request("txt2img", "a ring", scheduler="flow-euler", steps=2, clip_skip=1), 1)


def test_the_trace_names_every_point() -> None:
    _, trace = ours("tiny-sd3-t5", Request("txt2img", "a ring", scheduler="flow-euler", steps=2), 1)
    texts = [
        f"{encoder}/{label}/{tensor}"
        for label in ("prompt", "negative")
        for encoder, outputs in (
            ("text_encoder", ("hidden", "pooled")),
            ("text_encoder_2", ("hidden", "pooled")),
            ("text_encoder_3", ("hidden",)),
        )
        for tensor in ("input_ids", *outputs)
    ]
    steps = [
        point
        for step in ("step00", "step01")
        for point in (
            *(f"mmdit/{step}/{tensor}" for tensor in ("sample", "timestep", "hidden", "pooled", "flow")),
            f"latents/{step}",
        )
    ]
    ends = ["vae_decoder/final/latents", "vae_decoder/final/image", "image"]
    assert list(trace) == [*texts, "latents/initial", *steps, *ends]


def test_every_network_gives_its_recorded_outputs_again() -> None:
    request = Request("img2img", *PROMPTS, scheduler="flow-euler", steps=3, strength=0.9, image=PICTURE)
    _, trace = ours("tiny-sd3-t5", request, 1)
    networks = backend(Model("tiny-sd3-t5").location)
    for component in trace.components:
        for label, inputs in trace.calls(component).items():
            for tensor, value in networks.component(component)(inputs).items():
                np.testing.assert_array_equal(value, trace.outputs(component)[label][tensor])


def test_values_stay_in_the_range_of_float16() -> None:
    request = Request("txt2img", *PROMPTS, scheduler="flow-euler", steps=20, guidance_scale=7.5)
    _, trace = ours("tiny-sd3-t5", request, 3)
    assert max(float(np.abs(value).max()) for point, value in trace.items() if "timestep" not in point) < 1000


def test_a_scheduler_of_the_other_kind_is_refused_both_ways() -> None:
    from parity.pipelines import diffusers

    with pytest.raises(UsageError, match=r"'ddim' cannot step along a flow.*flow-euler"):
        ours("tiny-sd3", Request("txt2img", "a ring", scheduler="ddim", steps=2), 1)
    model = Model("tiny-sd")
    components = TorchBackend(model.location).components(("text_encoder", "unet", "vae_decoder"))
    request = Request("txt2img", "a ring", scheduler="flow-euler", steps=2)
    with pytest.raises(UsageError, match="only Stable Diffusion 3 predicts"):
        diffusers.run(request, model, components, streams.open("torch-cpu", seed=1).normal, observe=Trace())
