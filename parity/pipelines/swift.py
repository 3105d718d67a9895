"""The Swift package's pipelines, written once over networks: order of draws, guidance, residuals, refiner, decoding.

Batches are [negative, positive]. What differs between releases is read from their conventions. Prompts come as token
ids; SDXL's second text encoder gets the same ids padded with 0 ("!") instead of the end of text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from parity.networks.played import Networks
from parity.pipelines.draws import (
    ConsumerFailureError,
    Draws,
    Settings,
    draw,
    hidden_holes,
    noise_level,
    starting_latents,
    to_pictures,
)
from parity.pipelines.schedules.swift import Schedule

# One number for both axes; the package's defaults, which its command line never changes
ORIGINAL_SIZE, CROP, TARGET_SIZE = 1024, 0, 1024
SCORES = (2.5, 6.0)  # negative and positive row of the refiner


def pictures(
    networks: Networks,
    schedule: Callable[[Settings], Schedule],
    settings: Settings,
    *,
    prompt: np.ndarray,
    negative: np.ndarray,
    image: np.ndarray | None = None,
    controls: Sequence[np.ndarray] = (),
    xl: bool = False,
) -> np.ndarray:
    """Draw the pictures of a request.

    Parameters
    ----------
    networks : Networks
    schedule : callable
        Makes a scheduler for one image.
    settings : Settings
    prompt, negative : numpy.ndarray
        Token ids (1, S).
    image : numpy.ndarray, optional
        Starting image (1, 3, H, W) in [-1, 1].
    controls : sequence of numpy.ndarray
        One control image (1, 3 or 4, H, W) in [0, 1] for each ControlNet.
    xl : bool
        Whether it is the SDXL pipeline.

    Returns
    -------
    numpy.ndarray
        (images, H, W, 3), float32 in [0, 1].
    """
    found = []
    for call in settings.calls():
        condition: Condition | XLCondition = (
            XLCondition(networks, call, prompt, negative)
            if xl
            else Condition(networks, call, prompt, negative, controls)
        )
        for draws in draw(call, networks.latent):
            found.append(_one(networks, schedule(call), call, condition, draws, image))
    return np.concatenate(found)


class Condition:
    """Text and control images of the SD pipeline, and the prediction under them."""

    def __init__(
        self,
        networks: Networks,
        settings: Settings,
        prompt: np.ndarray,
        negative: np.ndarray,
        controls: Sequence[np.ndarray],
    ) -> None:
        self.networks, self.settings = networks, settings
        self.guided = settings.conventions.guidance == "always" or settings.guidance >= 1
        texts = [networks.text(negative), networks.text(prompt)] if self.guided else [networks.text(prompt)]
        self.hidden = np.concatenate(texts)
        holes = settings.conventions.holes
        self.controls = [np.concatenate([hidden_holes(each, holes=holes)] * 2) for each in controls]

    def noise(self, latents: np.ndarray, timestep: int, *, refined: bool) -> np.ndarray:
        """Predict the guided noise of one image's latents; there is no refiner."""
        sample = np.concatenate([latents] * len(self.hidden))
        extra: dict[str, np.ndarray] = {}
        for net, image in enumerate(self.controls):
            residuals = self.networks.residuals(net, sample, timestep, self.hidden, image)
            if self.settings.conventions.controlnets == "all" or not extra:
                extra = {name: extra.get(name, np.float32(0)) + value for name, value in residuals.items()}
        unet = "control-unet" if self.controls else "unet"
        predicted = self.networks.noise(unet, sample, timestep, self.hidden, extra)
        return guide(predicted, self.settings.guidance) if self.guided else predicted


class XLCondition:
    """Text and sizes of the SDXL pipeline; the refiner gets the second encoder's text alone.

    A refiner can also stand in the place of the base model; then it draws from the first step on.
    """

    guided = True

    def __init__(self, networks: Networks, settings: Settings, prompt: np.ndarray, negative: np.ndarray) -> None:
        self.networks, self.settings = networks, settings
        second = [networks.text_xl(repadded(ids), 2) for ids in (negative, prompt)]
        own = np.concatenate([hidden for hidden, _ in second])
        self.hidden = {"unet": own, "refiner": own}
        size, target = [ORIGINAL_SIZE] * 2 + [CROP] * 2, [TARGET_SIZE] * 2
        scored = [[*size, score] for score in SCORES]
        ids = {"unet": scored, "refiner": scored}
        if not networks.refines:
            first = [networks.text_xl(ids, 1)[0] for ids in (negative, prompt)]
            self.hidden["unet"] = np.concatenate([np.concatenate(first), own], axis=2)
            ids["unet"] = [[*size, *target]] * 2
        self.extra = {
            unet: {"text_embeds": np.concatenate([p for _, p in second]), "time_ids": np.array(rows, np.float32)}
            for unet, rows in ids.items()
        }

    def noise(self, latents: np.ndarray, timestep: int, *, refined: bool) -> np.ndarray:
        """Predict the guided noise of one image's latents, by the refiner or the base model."""
        unet = "refiner" if refined else "unet"
        sample = np.concatenate([latents, latents])
        predicted = self.networks.noise(unet, sample, timestep, self.hidden[unet], self.extra[unet])
        return guide(predicted, self.settings.guidance)


def guide(predicted: np.ndarray, guidance: float) -> np.ndarray:
    """Combine the rows [negative, positive]."""
    negative, positive = predicted[:1], predicted[1:]
    return negative + np.float32(guidance) * (positive - negative)


def repadded(ids: np.ndarray) -> np.ndarray:
    """Pad with 0 ("!") behind the first end of text, which is the largest id."""
    result = ids.copy()
    for row in result:
        row[int(row.argmax()) + 1 :] = 0
    return result


def _one(
    networks: Networks,
    schedule: Schedule,
    settings: Settings,
    condition: Condition | XLCondition,
    draws: Draws,
    image: np.ndarray | None,
) -> np.ndarray:
    latents = draws.noise
    if settings.task == "img2img":
        assert image is not None
        latents = _start(networks, settings, schedule.timesteps, draws, image)
    timesteps = schedule.timesteps[settings.start :]
    switch = int(len(timesteps) * settings.refiner_start) if settings.refined else len(timesteps)
    for index, timestep in enumerate(timesteps):
        latents = schedule.step(condition.noise(latents, timestep, refined=index >= switch), timestep, latents)
    decoded = latents if settings.conventions.decodes == "latents" else schedule.estimate
    return to_pictures(networks.decode(decoded / np.float32(settings.factor)))


def _start(networks: Networks, settings: Settings, timesteps: list[int], draws: Draws, image: np.ndarray) -> np.ndarray:
    pixels = settings.conventions.start_pixels
    if pixels and image.shape[2:] != (pixels, pixels):
        raise ConsumerFailureError(f"the starting image is {image.shape[3]}x{image.shape[2]}", rule="mochi-3-size")
    level = noise_level(settings, timesteps)
    if settings.conventions.encoder == "five":
        assert draws.latent is not None
        return networks.noised(image, draws.latent, draws.noise, float(np.sqrt(level)), float(np.sqrt(1 - level)))
    return starting_latents(settings, networks.moments(image), draws, level)
