"""The Python pipeline, written once over networks: NumPy's latents, diffusers' schedulers, batches [negative,
positive].

Latents are drawn from NumPy's global generator and rounded to float16; the scheduler is diffusers' (the installed one),
made from the model's own configuration; latents are always divided by 0.18215 before decoding, SDXL's too. One prompt,
one image. SDXL's time ids are the image's own size, as in diffusers' pipeline, from which this one is derived.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from parity import streams
from parity.networks.played import Networks
from parity.pipelines.draws import ConsumerFailureError, Settings, to_pictures

FACTOR = 0.18215
SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "lms": "LMSDiscreteScheduler",
    "pndm": "PNDMScheduler",
}


def scheduler(checkpoint: Path, name: str) -> Any:
    """Make diffusers' scheduler of that name from the checkpoint's configuration."""
    import diffusers

    config = json.loads((checkpoint / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    return getattr(diffusers, SCHEDULERS[name]).from_config(config)


def zeroed(checkpoint: Path, settings: Settings, *, xl: bool) -> bool:
    """Tell whether the release replaces an empty negative prompt by zeros; 1.1 asks the model only if it is SDXL."""
    if settings.conventions.empty_negative == "config" or (xl and settings.conventions.empty_negative == "zeros"):
        index = json.loads((checkpoint / "model_index.json").read_text(encoding="utf-8"))
        return bool(index.get("force_zeros_for_empty_prompt", False))
    return settings.conventions.empty_negative == "zeros"


def pictures(
    networks: Networks,
    settings: Settings,
    *,
    scheduler: Any,
    prompt: np.ndarray,
    negative: np.ndarray,
    zero_negative: bool = False,
    controls: Sequence[np.ndarray] = (),
    xl: bool = False,
) -> np.ndarray:
    """Draw the picture of a request; parameters and result as :func:`parity.pipelines.swift.pictures`.

    ``scheduler`` is diffusers'; ``zero_negative`` replaces the negative prompt's embeddings by zeros.
    """
    import torch

    if settings.images != 1:
        raise ConsumerFailureError("NotImplementedError: one image a call")
    guided = settings.guidance > 1
    hidden, extra = _conditions(networks, prompt, negative, zero=zero_negative, guided=guided, xl=xl)
    images = [np.concatenate([each[:, :3].astype(np.float32)] * 2) for each in controls]
    _, channels, height, width = networks.latent
    if images and height != width:
        raise ConsumerFailureError("not square", rule="controlnet-python-non-square")
    scheduler.set_timesteps(settings.steps)
    drawn = streams.open("numpy-legacy", settings.seed).normal((1, channels, height, width), dtype="float64")
    latents = drawn.astype(np.float16) * np.float16(float(scheduler.init_noise_sigma))
    with torch.inference_mode():
        for timestep in scheduler.timesteps:
            doubled = torch.from_numpy(np.concatenate([latents] * len(hidden)))
            sample = scheduler.scale_model_input(doubled, timestep).numpy()
            given = dict(extra)
            for net, image in enumerate(images):
                for name, value in networks.residuals(net, sample, float(timestep), hidden, image).items():
                    given[name] = given.get(name, np.float32(0)) + value
            predicted = networks.noise("control-unet" if images else "unet", sample, float(timestep), hidden, given)
            if guided:
                predicted = predicted[:1] + settings.guidance * (predicted[1:] - predicted[:1])
            noise = torch.from_numpy(np.asarray(predicted, np.float32))
            latents = scheduler.step(noise, timestep, torch.from_numpy(latents)).prev_sample.numpy()
    return to_pictures(networks.decode(latents.astype(np.float32) / np.float32(FACTOR)))


def _conditions(
    networks: Networks, prompt: np.ndarray, negative: np.ndarray, *, zero: bool, guided: bool, xl: bool
) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
    prompts = [negative, prompt] if guided else [prompt]
    if not xl:
        hidden = np.concatenate([networks.text(ids) for ids in prompts])
        if zero and guided:
            hidden[0] = 0
        return hidden, {}
    from parity.pipelines.swift import repadded

    if not guided:
        raise ConsumerFailureError("time_ids is a vector of six, never wrapped", rule="unguided-python-xl")
    first = np.concatenate([networks.text_xl(ids, 1)[0] for ids in prompts])
    second = [networks.text_xl(repadded(ids), 2) for ids in prompts]
    hidden = np.concatenate([first, np.concatenate([own for own, _ in second])], axis=2)
    pooled = np.concatenate([own for _, own in second])
    if zero:
        hidden[0], pooled[0] = 0, 0
    size = [8.0 * networks.latent[2], 8.0 * networks.latent[3]]
    ids = np.array([[*size, 0.0, 0.0, *size]] * 2, np.float32)
    return hidden, {"text_embeds": pooled, "time_ids": ids}
