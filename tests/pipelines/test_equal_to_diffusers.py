"""With PyTorch components, both tasks give diffusers' own pictures, bit for bit, for every scheduler and set-up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parity import assets, streams
from parity.backends.pytorch import TorchBackend
from parity.errors import UsageError
from parity.models.model import Model
from parity.pipelines import diffusers as tasks
from parity.pipelines.request import TASK_COMPONENTS, Request
from parity.pipelines.schedules import diffusers as schedulers
from parity.pipelines.schedules.diffusers import Schedule
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
    return tasks.run(request, model, components, stream.normal, observe=trace, seed=seed), trace


# Written out, not taken from the table: what a user of diffusers would write.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "deis": ("DEISMultistepScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {}),
    "dpm++-2m-sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "dpm++-2s": ("DPMSolverSinglestepScheduler", {}),
    "dpm++-sde": ("DPMSolverSDEScheduler", {}),
    "dpm2": ("KDPM2DiscreteScheduler", {}),
    "dpm2-ancestral": ("KDPM2AncestralDiscreteScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "lms": ("LMSDiscreteScheduler", {}),
    "pndm": ("PNDMScheduler", {}),
    "tcd": ("TCDScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
}


def scheduler(request: Request, config: dict[str, Any], seed: int) -> Any:
    import diffusers

    kind, more = KINDS[request.scheduler]
    given = request.schedule.given()
    given.pop("eta", None)
    if sigmas := given.pop("sigmas", ""):
        given[f"use_{sigmas}_sigmas"] = True
    if request.scheduler == "dpm++-sde":
        given["noise_sampler_seed"] = seed
    found: Any = getattr(diffusers, kind)
    return found.from_config(config, **more, **given)


@cache
def their_pipeline(location: str, task: str) -> Any:
    from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline

    kind: Any = StableDiffusionPipeline if task == "txt2img" else StableDiffusionImg2ImgPipeline
    pipeline = kind.from_pretrained(location)
    pipeline.set_progress_bar_config(disable=True)
    # with clip_skip diffusers 0.42 asks for .text_model, which transformers 5 no longer has: the encoder is its own
    vars(pipeline.text_encoder).setdefault(
        "text_model", getattr(pipeline.text_encoder, "text_model", pipeline.text_encoder)
    )
    return pipeline


def theirs(model: Model, request: Request, seed: int) -> tuple[np.ndarray, np.ndarray]:
    import torch
    from PIL import Image

    pipeline = their_pipeline(model.location, request.task)
    pipeline.scheduler = scheduler(request, dict(model.scheduler_config), seed)
    extra: dict[str, Any] = {"eta": request.schedule.eta}
    if request.clip_skip:
        extra["clip_skip"] = request.clip_skip
    if request.guidance_rescale:
        extra["guidance_rescale"] = request.guidance_rescale
    if request.image is not None:
        extra |= {"image": Image.open(request.image).convert("RGB"), "strength": request.strength}

    seen: list[Any] = []

    def kept(_: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append(tensors["latents"])
        return tensors

    images = pipeline(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        num_inference_steps=request.steps,
        guidance_scale=request.guidance_scale,
        num_images_per_prompt=request.images,
        generator=torch.Generator().manual_seed(seed),
        callback_on_step_end=kept,
        **extra,
    ).images
    return seen[-1].numpy(), np.stack([np.asarray(picture) for picture in images])


def assert_equal(model: Model, backend: TorchBackend, request: Request, seed: int) -> Trace:
    """Latents and picture are those of diffusers, bit for bit."""
    image, trace = ours(model, backend, request, seed)
    latents, expected = theirs(model, request, seed)
    last = [point for point in trace if point.startswith("latents/")][-1]
    assert np.isfinite(latents).all()
    assert np.abs(trace[last] - latents).max() == 0.0
    assert np.array_equal(image, expected)
    return trace


@pytest.mark.long
@pytest.mark.parametrize("task", ["txt2img", "img2img"])
@pytest.mark.parametrize("scheduler", list(schedulers.SCHEDULERS))
def test_every_scheduler_equals_diffusers(model: Model, backend: TorchBackend, task: str, scheduler: str) -> None:
    request = Request(
        task,
        "a photo of a red circle",
        "blurry, low quality",
        scheduler=scheduler,
        steps=4 if task == "txt2img" else 6,
        strength=0.5,
        image=PICTURE if task == "img2img" else None,
    )
    trace = assert_equal(model, backend, request, seed=93)
    assert trace["image"].std() > 20  # a picture, not a flat colour


TRAILING = Schedule(timestep_spacing="trailing")
RESCALED = Schedule(prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True)
SET_UP = [
    *[(name, Schedule(sigmas=sigmas)) for name in ("dpm++", "dpm++-sde") for sigmas in schedulers.SIGMAS],
    *[(name, Schedule(sigmas="karras")) for name in ("deis", "dpm++-2m-sde", "euler", "heun", "lms", "unipc")],
    *[(name, TRAILING) for name in ("ddim", "dpm++", "euler-ancestral", "pndm", "unipc")],
    *[(name, Schedule(timestep_spacing="linspace")) for name in ("ddim", "ddpm")],
    ("euler", Schedule(timestep_spacing="leading")),
    *[(name, RESCALED) for name in ("ddim", "ddpm", "dpm++", "euler", "euler-ancestral", "unipc")],
    *[(name, Schedule(prediction_type="v_prediction")) for name in ("dpm2", "dpm++-sde", "lcm", "pndm")],
    *[(name, Schedule(prediction_type="sample")) for name in ("ddim", "deis", "dpm++", "heun", "lms", "tcd")],
    *[(name, Schedule(eta=0.7)) for name in ("ddim", "tcd")],
]


def set_ups() -> Iterator[Any]:
    """Every fourth is tried each time, all of them where there is time."""
    for index, (name, schedule) in enumerate(SET_UP):
        label = "-".join([name, *map(str, schedule.given().values())])
        yield pytest.param(name, schedule, id=label, marks=[pytest.mark.slow] if index % 4 else [])


@pytest.mark.parametrize(("name", "schedule"), [*set_ups()])
def test_every_set_up_equals_diffusers(model: Model, backend: TorchBackend, name: str, schedule: Schedule) -> None:
    assert_equal(model, backend, Request("txt2img", "a ring", scheduler=name, steps=3, schedule=schedule), seed=5)


def test_skipped_layers_equal_diffusers(model: Model, backend: TorchBackend) -> None:
    request = Request("txt2img", "a ring", "blurry", scheduler="ddim", steps=2, clip_skip=1)
    trace = assert_equal(model, backend, request, seed=5)
    plain = ours(model, backend, replace(request, clip_skip=0), seed=5)[1]
    negative, prompt = "text_encoder/negative/hidden", "text_encoder/prompt/hidden"
    assert np.array_equal(trace[negative], plain[negative])
    assert not np.array_equal(trace[prompt], plain[prompt])
    with pytest.raises(UsageError, match="clip_skip 40: text_encoder has 2 layers"):
        ours(model, backend, replace(request, clip_skip=40), seed=5)


def test_long_prompts_and_empty_ones_equal_diffusers(model: Model, backend: TorchBackend) -> None:
    prompt = "a photo of a red circle and a blue square, " * 30
    assert model.cut(prompt)
    assert_equal(model, backend, Request("txt2img", prompt, prompt + "x", scheduler="ddim", steps=2), seed=5)
    assert_equal(model, backend, Request("txt2img", "", "", scheduler="ddim", steps=2), seed=5)


@pytest.mark.parametrize("rescale", [0.7, 1.0])
def test_rescaled_guidance_equals_diffusers(model: Model, backend: TorchBackend, rescale: float) -> None:
    request = Request("txt2img", "a ring", scheduler="ddim", steps=3, guidance_rescale=rescale, images=2)
    trace = assert_equal(model, backend, request, seed=5)
    plain = ours(model, backend, replace(request, guidance_rescale=0.0), seed=5)[1]
    assert not np.array_equal(trace["latents/step00"], plain["latents/step00"])


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name, entry in schedulers.SCHEDULERS.items() if entry.draws])
def test_noise_of_each_step_comes_from_the_stream(model: Model, backend: TorchBackend, name: str) -> None:
    """Any stream serves, torch's global generator is not touched, and the same seed gives the same picture."""
    import torch

    eta = 0.5 if schedulers.SCHEDULERS[name].draws == "eta" else 0.0
    request = Request("txt2img", "a ring", scheduler=name, steps=3, schedule=Schedule(eta=eta))
    state, drawn = torch.get_rng_state(), []

    def draw() -> Trace:
        stream, trace = streams.open("numpy-legacy", seed=5), Trace()

        def noise(shape: tuple[int, ...]) -> np.ndarray:
            drawn.append(shape)
            return stream.normal(shape).astype(np.float32)

        tasks.run(request, model, backend.components(TASK_COMPONENTS["txt2img"]), noise, observe=trace, seed=5)
        return trace

    first, second = draw(), draw()
    assert np.array_equal(first["image"], second["image"])
    assert torch.equal(torch.get_rng_state(), state)
    if name == "dpm++-sde":  # its tree has generators of its own
        assert len(drawn) == 2
    else:
        assert len(drawn) > 4
        assert set(drawn) == {(1, *model.latent_shape)}


WHERE = st.sampled_from([*[(name, Schedule()) for name in schedulers.SCHEDULERS], *SET_UP])


def _hypothesis(examples: int) -> Any:
    def decorate(test: Any) -> Any:
        given_test = given(
            where=WHERE,
            seed=st.integers(0, 2**63 - 1),
            steps=st.integers(3, 9),
            guidance=st.floats(0.0, 12.0, width=32),
        )(test)
        return settings(max_examples=examples, deadline=None, derandomize=True)(given_test)

    return decorate


def _random_request(model: Model, backend: TorchBackend, where: Any, seed: int, steps: int, guidance: float) -> None:
    name, schedule = where
    request = Request("txt2img", "two stars", scheduler=name, steps=steps, guidance_scale=guidance, schedule=schedule)
    assert_equal(model, backend, request, seed)


@pytest.mark.long
@_hypothesis(4)
def test_random_requests_equal_diffusers(
    model: Model, backend: TorchBackend, where: Any, seed: int, steps: int, guidance: float
) -> None:
    _random_request(model, backend, where, seed, steps, guidance)


@pytest.mark.slow
@_hypothesis(200)
def test_many_random_requests_equal_diffusers(
    model: Model, backend: TorchBackend, where: Any, seed: int, steps: int, guidance: float
) -> None:
    _random_request(model, backend, where, seed, steps, guidance)


@pytest.mark.parametrize(("guidance", "images"), [(1.0, 1), (5.0, 2)])
def test_guidance_off_and_several_images_equal_diffusers(
    model: Model, backend: TorchBackend, guidance: float, images: int
) -> None:
    request = Request("txt2img", "two stars", scheduler="ddim", steps=4, guidance_scale=guidance, images=images)
    trace = assert_equal(model, backend, request, seed=7)
    assert trace["image"].shape == (images, 128, 128, 3)
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
