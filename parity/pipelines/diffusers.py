"""How does diffusers turn a request into a picture?

Text to image: encode the prompts, draw latents, denoise with classifier-free guidance, decode. Image to image: encode
the picture, sample its latents, add noise for the strength, then the same. Inpainting puts back what a mask keeps, or
shows it to a UNet of nine channels; ControlNets add to the UNet's skips; SDXL's refiner takes over the last steps; an
unconditional model denoises pixels; a safety checker blackens what it flags.

The order of operations and of random draws is that of diffusers' own pipelines; with PyTorch components on the CPU in
float32 the pictures are equal bit for bit (tests/pipelines proves it for every task and scheduler). All arithmetic here
is float32 on the CPU, whoever runs the networks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.errors import UsageError
from parity.models.model import Model
from parity.networks.signature import Components, Observe
from parity.pipelines import conditions, pictures, sd3, starts
from parity.pipelines.loop import Networks, denoise, ending
from parity.pipelines.prediction import Control, Prediction
from parity.pipelines.request import Request
from parity.pipelines.schedules import diffusers as schedulers
from parity.pipelines.schedules.noise import Drawing, Noise


def run(
    request: Request, model: Model, components: Components, noise: Noise, *, observe: Observe, seed: int = 0
) -> np.ndarray:
    """Draw the pictures of a request.

    Parameters
    ----------
    request : Request
        What to draw.
    model : Model
        Tokenizers, scheduler configuration and geometry; of a refiner that takes over, too.
    components : mapping
        The networks, by the names that :func:`parity.pipelines.request.components` gives, from any mixture of backends.
    noise : callable
        The random stream; it is asked for the encoder's sample first (image to image), then for the latents, then by
        the steps of a scheduler that draws.
    observe : callable
        Receives every named point of the run.
    seed : int
        Of the stream, for the scheduler whose noise is a Brownian tree.

    Returns
    -------
    numpy.ndarray
        uint8 (images, height, width, 3), RGB.

    Raises
    ------
    UnsupportedError, UsageError
        The model does not do this task.
    """
    import torch

    model.check_task(request.task)
    if model.sd3:
        return sd3.run(request, model, components, noise, observe=observe)
    networks = Networks(components.__getitem__, observe, latent=(1, *model.latent_shape), refines=model.refines)
    with torch.inference_mode():
        scheduler = _scheduler(request, model, noise, seed)
        if request.task == "unconditional":
            return _without_texts(request, model, networks, scheduler, noise)
        condition = conditions.encode(request, model, networks)
        start = starts.begin(request, model, networks, scheduler, noise)
        timesteps = start.timesteps if request.refiner_start is None else _before(request, scheduler, start.timesteps)
        controls = _controls(request, model)
        predict = Prediction(
            networks,
            scheduler,
            condition,
            request.guidance_scale,
            "control-unet" if controls else "unet",
            start.beside,
            controls,
            len(timesteps),
            request.guidance_rescale,
        )
        stretches = [_Stretch(timesteps, predict, _step(scheduler, start))]
        if request.refiner_start is not None:
            stretches.append(_refine(request, model, networks, (noise, seed)))
        return _decode(request, _denoise(stretches, start.latents, networks), model, networks)


def _scheduler(request: Request, model: Model, noise: Noise, seed: int) -> Drawing:
    """Return the request's scheduler, set up for a model; it knows its steps and draws from the request's streams."""
    made = schedulers.make(request.scheduler, model.scheduler_config, request.schedule)
    scheduler = Drawing(made, noise, seed=seed, eta=request.schedule.eta)
    scheduler.set_timesteps(request.steps)
    return scheduler


@dataclass(frozen=True)
class _Stretch:
    """Consecutive steps by one UNet: its timesteps, what predicts, what takes a step (given its number)."""

    timesteps: Any
    predict: Callable[[str, Any, Any], Any]
    step: Callable[[int, Any, Any, Any], Any]


def _denoise(stretches: list[_Stretch], latents: Any, networks: Networks) -> Any:
    """Run the one loop over all stretches."""
    owners = [stretch for stretch in stretches for _ in stretch.timesteps]
    numbers = [number for stretch in stretches for number in range(len(stretch.timesteps))]
    count = iter(range(len(owners)))

    def predict(label: str, timestep: Any, latents: Any) -> Any:
        return owners[int(label.removeprefix("step"))].predict(label, timestep, latents)

    def step(predicted: Any, timestep: Any, latents: Any) -> Any:
        index = next(count)
        return owners[index].step(numbers[index], predicted, timestep, latents)

    timesteps = [timestep for stretch in stretches for timestep in stretch.timesteps]
    return denoise(timesteps, latents, predict, step, networks.observe)


def _step(scheduler: Drawing, start: starts.Start | None = None) -> Callable[[int, Any, Any, Any], Any]:
    def step(number: int, predicted: Any, timestep: Any, latents: Any) -> Any:
        latents = scheduler.step(predicted, timestep, latents)
        return latents if start is None or start.kept is None else start.kept.blend(number, latents)

    return step


def _before(request: Request, scheduler: Any, timesteps: Any) -> Any:
    """Return the timesteps that the base model runs before its refiner: diffusers' ``denoising_end``."""
    kept = timesteps[: int((timesteps >= _cutoff(request, scheduler)).sum())]
    if not len(kept):
        raise UsageError(f"refiner_start {request.refiner_start} leaves no step of {request.steps} to the base model")
    return kept


def _refine(request: Request, model: Model, networks: Networks, drawn: tuple[Noise, int]) -> _Stretch:
    """Return the refiner's steps: diffusers' ``denoising_start``, with the base's second text encoder and VAE."""
    refiner = model.refiner
    if refiner is None:
        raise UsageError("refiner_start: no refiner was given; name its checkpoint with --refiner")
    scheduler = _scheduler(request, refiner, *drawn)
    count = int((scheduler.timesteps < _cutoff(request, scheduler)).sum())
    if scheduler.order == 2 and count % 2 == 0:  # a second-order step is not cut in the middle
        count += 1
    first = len(scheduler.timesteps) - count
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    if not count:
        raise UsageError(f"refiner_start {request.refiner_start} leaves no step of {request.steps} to the refiner")
    condition = conditions.encode_for_refiner(request, refiner, networks)
    rescale = request.guidance_rescale
    predict = Prediction(networks, scheduler, condition, request.guidance_scale, "refiner", rescale=rescale)
    return _Stretch(scheduler.timesteps[first:], predict, _step(scheduler))


def _cutoff(request: Request, scheduler: Any) -> int:
    assert request.refiner_start is not None
    whole: int = scheduler.config.num_train_timesteps
    return round(whole - request.refiner_start * whole)


def _controls(request: Request, model: Model) -> list[Control]:
    """Return the ControlNets of a request with their images, for each row of the UNet's batch."""
    import torch

    found = []
    shares = (request.per_net(each) for each in (request.control_scale, request.control_start, request.control_end))
    for number, (path, scale, start, end) in enumerate(zip(request.control, *shares, strict=True), start=1):
        image = pictures.read_control(path, model, holes=request.task == "controlnet-inpaint")
        image = image.repeat_interleave(request.images, dim=0)
        rows = torch.cat([image] * 2) if request.guided else image
        found.append(Control(f"controlnet-{number}", rows.numpy(), scale, start, end))
    return found


def _decode(request: Request, latents: Any, model: Model, networks: Networks) -> np.ndarray:
    import torch
    from diffusers.image_processor import VaeImageProcessor

    if (statistics := model.latent_statistics) is None:
        scaled = latents / model.scaling_factor
    else:
        mean, deviation = (torch.tensor(values).view(1, -1, 1, 1) for values in statistics)
        scaled = latents * deviation / model.scaling_factor + mean
    decoded = networks.call("vae_decoder", "final", latents=scaled.numpy())["image"]
    unit = VaeImageProcessor(vae_scale_factor=model.vae_scale).postprocess(torch.from_numpy(decoded), output_type="np")
    image = _as_bytes(unit)
    if request.safety_checker:
        image = _without_unsafe(image, model, networks)
    networks.observe("image", image)
    return image


def _as_bytes(unit: np.ndarray) -> np.ndarray:
    """Return what diffusers' numpy_to_pil stores; NaN becomes black, where a bare cast depends on the processor."""
    return (np.nan_to_num(unit) * 255).round().astype(np.uint8)


def _without_unsafe(image: np.ndarray, model: Model, networks: Networks) -> np.ndarray:
    """Return pictures of which those that the safety checker flags are black."""
    shown = image.copy()
    for index, picture in enumerate(image):
        given = {"clip_input": model.clip_input(picture), "picture": np.float32(picture[None]) / np.float32(255)}
        flag = networks.call("safety_checker", f"final{ending(index)}", **given)["unsafe"]
        if flag[0] > 0:
            shown[index] = 0
    return shown


def _without_texts(request: Request, model: Model, networks: Networks, scheduler: Drawing, noise: Noise) -> np.ndarray:
    """Draw with an unconditional model: diffusers' DDPM and DDIM pipelines, in pixels."""
    import torch

    start = torch.from_numpy(noise((request.images, *model.latent_shape)))

    def predict(label: str, timestep: Any, sample: Any) -> Any:
        repeated = np.repeat(timestep.numpy(), len(sample))
        called = networks.call("unconditional-unet", label, sample=sample.numpy(), timestep=repeated)
        return torch.from_numpy(called["noise_pred"])

    drawn = denoise(scheduler.timesteps, start, predict, scheduler.step, networks.observe)
    image = _as_bytes((drawn / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy())
    networks.observe("image", image)
    return image
