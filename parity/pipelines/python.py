"""The Python pipeline, written once over networks: NumPy's latents, diffusers' schedulers, batches [negative,
positive].

Latents are drawn from NumPy's global generator and rounded to float16; the scheduler is diffusers' (the installed one),
made from the model's own configuration; latents are always divided by 0.18215 before decoding, SDXL's too. One prompt,
one image. SDXL's time ids are the image's own size, as in diffusers' pipeline, from which this one is derived.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity import streams
from parity.pipelines.draws import to_pictures
from parity.pipelines.loop import Networks, denoise
from parity.pipelines.settings import ConsumerFailureError, Material, Settings
from parity.pipelines.swift import repadded, repeated

FACTOR = 0.18215
SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "lms": "LMSDiscreteScheduler",
    "pndm": "PNDMScheduler",
}


def scheduler(config: Mapping[str, Any], name: str) -> Any:
    """Make diffusers' scheduler of that name from the checkpoint's configuration."""
    import diffusers

    return getattr(diffusers, SCHEDULERS[name]).from_config(dict(config))


def zeroed(index: Mapping[str, Any], settings: Settings, material: Material) -> bool:
    """Tell whether the release replaces an empty negative prompt by zeros; 1.1 asks the model only if it is SDXL.

    Parameters
    ----------
    index : mapping
        The checkpoint's ``model_index.json``.
    settings : Settings
        The call.
    material : Material
        Its texts.
    """
    if not _empty(material.negative):
        return False
    rule = settings.conventions.empty_negative
    if rule == "config" or (material.xl and rule == "zeros"):
        return bool(index.get("force_zeros_for_empty_prompt", False))
    return rule == "zeros"


def _empty(ids: np.ndarray) -> bool:
    """Tell whether token ids are those of an empty text: the start, then nothing but the end of text."""
    return len(set(ids[0, 1:].tolist())) == 1


@dataclass(frozen=True)
class _Prediction:
    """What predicts the noise of a step."""

    networks: Networks
    scheduler: Any
    guidance: float
    hidden: np.ndarray
    extra: Mapping[str, np.ndarray]
    controls: tuple[np.ndarray, ...]

    def __call__(self, label: str, timestep: Any, latents: np.ndarray) -> Any:
        import torch

        doubled = torch.from_numpy(np.concatenate([latents] * len(self.hidden)))
        sample = self.scheduler.scale_model_input(doubled, timestep).numpy()
        given = {"sample": sample, "timestep": repeated(float(timestep), sample), "hidden": self.hidden}
        extra = dict(self.extra)
        for net, image in enumerate(self.controls, start=1):
            for name, value in self.networks.call(f"controlnet-{net}", label, **given, cond=image).items():
                extra[name] = extra.get(name, np.float32(0)) + value
        unet = "control-unet" if self.controls else "unet"
        predicted = self.networks.call(unet, label, **given, **extra)["noise_pred"]
        if self.guidance > 1:
            predicted = predicted[:1] + self.guidance * (predicted[1:] - predicted[:1])
        return torch.from_numpy(np.asarray(predicted, np.float32))


def pictures(
    networks: Networks, scheduler: Any, settings: Settings, material: Material, *, zero_negative: bool = False
) -> np.ndarray:
    """Draw the picture of a request.

    Parameters
    ----------
    networks : Networks
        Who computes.
    scheduler : object
        diffusers', see :func:`scheduler`.
    settings : Settings
        The call.
    material : Material
        Texts and control images.
    zero_negative : bool
        Whether the negative prompt's embeddings are replaced by zeros.

    Returns
    -------
    numpy.ndarray
        (1, H, W, 3), float32 in [0, 1].

    Raises
    ------
    ConsumerFailureError
        The release fails.
    """
    import torch

    if settings.images != 1:
        raise ConsumerFailureError("NotImplementedError: one image a call")
    hidden, extra = _conditions(networks, material, zero=zero_negative, guided=settings.guidance > 1)
    controls = tuple(np.concatenate([each[:, :3].astype(np.float32)] * 2) for each in material.controls)
    _, channels, height, width = networks.latent
    if controls and height != width:
        raise ConsumerFailureError("not square", rule="controlnet-python-non-square")
    scheduler.set_timesteps(settings.steps)
    drawn = streams.open("numpy-legacy", settings.seed).normal((1, channels, height, width), dtype="float64")
    latents = drawn.astype(np.float16) * np.float16(float(scheduler.init_noise_sigma))
    predict = _Prediction(networks, scheduler, settings.guidance, hidden, extra, controls)

    def step(noise: Any, timestep: Any, latents: np.ndarray) -> np.ndarray:
        return np.asarray(scheduler.step(noise, timestep, torch.from_numpy(latents)).prev_sample.numpy())

    with torch.inference_mode():
        latents = denoise(scheduler.timesteps, latents, predict, step, networks.observe)
    scaled = latents.astype(np.float32) / np.float32(FACTOR)
    return to_pictures(networks.call("vae_decoder", "final", latents=scaled)["image"])


def _conditions(
    networks: Networks, material: Material, *, zero: bool, guided: bool
) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
    texts = {"negative": material.negative, "prompt": material.prompt} if guided else {"prompt": material.prompt}
    if not material.xl:
        encoded = [networks.call("text_encoder", label, input_ids=ids)["hidden"] for label, ids in texts.items()]
        hidden = np.concatenate(encoded)
        if zero and guided:
            hidden[0] = 0
        return hidden, {}
    if not guided:
        raise ConsumerFailureError("time_ids is a vector of six, never wrapped", rule="unguided-python-xl")
    first = [networks.call("text_encoder", label, input_ids=ids)["hidden"] for label, ids in texts.items()]
    second = [networks.call("text_encoder_2", label, input_ids=repadded(ids)) for label, ids in texts.items()]
    hidden = np.concatenate([np.concatenate(first), np.concatenate([each["hidden"] for each in second])], axis=2)
    pooled = np.concatenate([each["pooled"] for each in second])
    if zero:
        hidden[0], pooled[0] = 0, 0
    size = [8.0 * networks.latent[2], 8.0 * networks.latent[3]]
    rows = np.array([[*size, 0.0, 0.0, *size]] * 2, np.float32)
    return hidden, {"text_embeds": pooled, "time_ids": rows}
