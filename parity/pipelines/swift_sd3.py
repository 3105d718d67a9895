"""The Swift package's pipeline for Stable Diffusion 3, written over networks: texts, guidance, flow, decoding.

Batches are [positive, negative], the other way round than in the package's older pipelines, and there are always both.
The second encoder's ids are padded with 0 ("!"). T5's tokens are zeros: the package leaves T5 out where one of its
files is absent. What it gives a T5 that is there (ids of another tokenizer, a mask in which 1 seems to mean padding) is
not known well enough to be played.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from parity.errors import UnsupportedError
from parity.pipelines.draws import draw, to_pictures
from parity.pipelines.loop import Networks, denoise, ending
from parity.pipelines.schedules.discrete_flow import DiscreteFlow
from parity.pipelines.schedules.swift import Schedule
from parity.pipelines.sd3 import joint
from parity.pipelines.settings import ConsumerFailureError, Material, Settings
from parity.pipelines.swift import repadded, repeated

T5 = "text_encoder_t5"


def schedule(settings: Settings) -> DiscreteFlow:
    """Return the scheduler for one image: the package ignores the one that is asked for."""
    return DiscreteFlow(settings.steps, settings.flow_shift)


def pictures(
    networks: Networks, schedule: Callable[[Settings], Schedule], settings: Settings, material: Material
) -> np.ndarray:
    """Draw the pictures of a request.

    Parameters
    ----------
    networks : Networks
        Who computes.
    schedule : callable
        Makes a scheduler for one image.
    settings : Settings
        The call.
    material : Material
        Texts and pictures.

    Returns
    -------
    numpy.ndarray
        (images, H, W, 3), float32 in [0, 1].

    Raises
    ------
    ConsumerFailureError
        The release fails.
    UnsupportedError
        T5 is among the models.
    """
    if material.third:
        raise UnsupportedError(
            "Stable Diffusion 3 with T5 is not played: what the package gives T5 as ids and mask, and T5's types, are "
            "not known; without TextEncoderT5 its tokens are zeros, and that is played"
        )
    found: list[np.ndarray] = []
    for call in settings.calls():
        condition = Condition(networks, call, material, ending(len(found)))
        for draws in draw(call, networks.latent):
            if call.task == "img2img":
                networks.component("vae_encoder")  # whose absence is said before
                raise ConsumerFailureError("alphasCumprod of the flow scheduler is empty", rule="sd3-img2img")
            found.append(_picture(networks, call, condition, schedule(call), draws.noise, ending(len(found))))
    return np.concatenate(found)


class Condition:
    """Texts of a call, and the prediction under them."""

    def __init__(self, networks: Networks, settings: Settings, material: Material, ending: str) -> None:
        self.networks, self.settings = networks, settings
        texts = {f"prompt{ending}": material.prompt, f"negative{ending}": material.negative}
        encoded = [
            [
                networks.call("text_encoder", label, input_ids=ids),
                networks.call("text_encoder_2", label, input_ids=repadded(ids)),
            ]
            for label, ids in texts.items()
        ]
        third = np.zeros((1, material.prompt.shape[1], networks.width), np.float32)
        self.hidden = np.concatenate([joint([clip["hidden"] for clip in clips], third) for clips in encoded])
        self.pooled = np.concatenate([np.concatenate([clip["pooled"] for clip in clips], axis=1) for clips in encoded])

    def flow(self, label: str, timestep: float, latents: np.ndarray) -> np.ndarray:
        """Predict the guided flow of one image's latents."""
        sample = np.concatenate([latents, latents])
        given = {"sample": sample, "timestep": repeated(timestep, sample), "hidden": self.hidden, "pooled": self.pooled}
        positive, negative = np.split(self.networks.call("mmdit", label, **given)["flow"], 2)
        return negative + np.float32(self.settings.guidance) * (positive - negative)


def _picture(
    networks: Networks, settings: Settings, condition: Condition, schedule: Schedule, noise: np.ndarray, ending: str
) -> np.ndarray:
    denoise(schedule.timesteps, noise, condition.flow, schedule.step, networks.observe, ending=ending)
    networks.observe(f"latents/decoded{ending}", schedule.estimate)
    scaled = schedule.estimate / np.float32(settings.factor) + np.float32(settings.shift)
    return to_pictures(networks.call("vae_decoder", f"final{ending}", latents=scaled)["image"])
