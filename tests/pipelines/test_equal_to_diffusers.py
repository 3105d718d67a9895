"""With PyTorch components, both tasks give diffusers' own pictures, bit for bit, for every scheduler."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from parity import assets, streams
from parity.backends.pytorch import TorchBackend
from parity.models.model import Model
from parity.pipelines import diffusers as tasks
from parity.pipelines.request import TASK_COMPONENTS, Request
from parity.pipelines.schedules import diffusers as schedulers
from parity.pipelines.trace import Trace

PICTURE = assets.fixtures() / "pictures" / "start.png"


@pytest.fixture(scope="module")
def model() -> Model:
    return Model("tiny-sd")


@pytest.fixture(scope="module")
def backend(model: Model) -> TorchBackend:
    return TorchBackend(model.location)


def ours(model: Model, backend: TorchBackend, request: Request, seed: int) -> tuple[np.ndarray, Trace]:
    stream, trace = streams.open("torch-cpu", seed=seed), Trace()
    components = backend.components(TASK_COMPONENTS[request.task])
    return tasks.run(request, model, components, stream.normal, observe=trace), trace


def theirs(model: Model, request: Request, seed: int) -> tuple[np.ndarray, np.ndarray]:
    import torch
    from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
    from PIL import Image

    kind: Any = StableDiffusionPipeline if request.task == "txt2img" else StableDiffusionImg2ImgPipeline
    pipeline = kind.from_pretrained(model.location)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = schedulers.make(request.scheduler, model.scheduler_config)
    extra: dict[str, Any] = {}
    if request.image is not None:
        extra = {"image": Image.open(request.image).convert("RGB"), "strength": request.strength}

    def draw(output_type: str) -> Any:
        return pipeline(
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance_scale,
            num_images_per_prompt=request.images,
            generator=torch.Generator().manual_seed(seed),
            output_type=output_type,
            **extra,
        ).images

    return draw("latent").numpy(), np.stack([np.asarray(picture) for picture in draw("pil")])


@pytest.mark.parametrize("task", ["txt2img", "img2img"])
@pytest.mark.parametrize("scheduler", list(schedulers.SCHEDULERS))
def test_every_scheduler_equals_diffusers(model: Model, backend: TorchBackend, task: str, scheduler: str) -> None:
    request = Request(
        task,
        "a photo of a red circle",
        "blurry, low quality",
        scheduler=scheduler,
        steps=6,
        strength=0.5,
        image=PICTURE if task == "img2img" else None,
    )
    image, trace = ours(model, backend, request, seed=93)
    latents, expected = theirs(model, request, seed=93)
    last = [point for point in trace if point.startswith("latents/")][-1]
    assert np.abs(trace[last] - latents).max() == 0.0
    assert np.array_equal(image, expected)
    assert image.std() > 20  # a picture, not a flat colour


@pytest.mark.parametrize(("guidance", "images"), [(1.0, 1), (5.0, 2)])
def test_guidance_off_and_several_images_equal_diffusers(
    model: Model, backend: TorchBackend, guidance: float, images: int
) -> None:
    request = Request("txt2img", "two stars", scheduler="ddim", steps=4, guidance_scale=guidance, images=images)
    image, trace = ours(model, backend, request, seed=7)
    latents, expected = theirs(model, request, seed=7)
    assert np.array_equal(trace["latents/step03"], latents)
    assert np.array_equal(image, expected)
    assert image.shape == (images, 128, 128, 3)
    assert trace["unet/step00/sample"].shape[0] == images * (2 if guidance > 1 else 1)


def test_the_trace_names_every_point(model: Model, backend: TorchBackend) -> None:
    _, trace = ours(model, backend, Request("txt2img", "a ring", scheduler="euler", steps=2), seed=1)
    assert list(trace) == [
        "text_encoder/negative/input_ids",
        "text_encoder/negative/hidden",
        "text_encoder/prompt/input_ids",
        "text_encoder/prompt/hidden",
        "latents/initial",
        *(
            point
            for step in ("step00", "step01")
            for point in (
                *(f"unet/{step}/{name}" for name in ("sample", "timestep", "hidden", "noise_pred")),
                f"latents/{step}",
            )
        ),
        "vae_decoder/final/latents",
        "vae_decoder/final/image",
        "image",
    ]
