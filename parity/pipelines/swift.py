"""The Swift package's pipelines, written once over networks: order of draws, guidance, residuals, refiner, decoding.

Batches are [negative, positive]. What differs between releases is read from their conventions. Prompts come as token
ids; SDXL's second text encoder gets the same ids padded with 0 ("!") instead of the end of text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from parity.models.projection import TOKENS
from parity.pipelines.draws import Draws, draw, hidden_holes, noise_level, starting_latents, to_pictures
from parity.pipelines.loop import Networks, denoise, ending
from parity.pipelines.schedules.swift import Schedule
from parity.pipelines.settings import ConsumerFailureError, Material, Settings

# One number for both axes; the package's defaults, which its command line never changes
ORIGINAL_SIZE, CROP, TARGET_SIZE = 1024, 0, 1024
SCORES = (2.5, 6.0)  # negative and positive row of the refiner


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
    """
    found: list[np.ndarray] = []
    for call in settings.calls():
        condition = (XLCondition if material.xl else Condition)(networks, call, material, ending(len(found)))
        for draws in draw(call, networks.latent):
            image = _Image(networks, call, condition, draws, ending(len(found)))
            found.append(image.picture(schedule(call), material.image))
    return np.concatenate(found)


class Condition:
    """Text and control images of the SD pipeline, and the prediction under them."""

    def __init__(self, networks: Networks, settings: Settings, material: Material, ending: str) -> None:
        self.networks, self.settings = networks, settings
        self.guided = settings.conventions.guidance == "always" or settings.guidance >= 1
        texts = {"negative": material.negative, "prompt": material.prompt}
        if not self.guided:
            del texts["negative"]
        if settings.task == "multilingual":
            vectors = dict(zip(("prompt", "negative"), material.embeddings, strict=True))
            encoded = [
                networks.call("multilingual_projection", f"{name}{ending}", embeddings=padded(vectors[name]))
                for name in texts
            ]
        else:
            encoded = [networks.call("text_encoder", f"{name}{ending}", input_ids=ids) for name, ids in texts.items()]
        self.hidden = np.concatenate([result["hidden"] for result in encoded])
        holes = settings.conventions.holes
        self.controls = [np.concatenate([hidden_holes(each, holes=holes)] * 2) for each in material.controls]

    def noise(self, label: str, latents: np.ndarray, timestep: int, *, refined: bool) -> np.ndarray:
        """Predict the guided noise of one image's latents; there is no refiner."""
        sample = np.concatenate([latents] * len(self.hidden))
        given = {"sample": sample, "timestep": repeated(timestep, sample), "hidden": self.hidden}
        extra: dict[str, np.ndarray] = {}
        for net, image in enumerate(self.controls, start=1):
            residuals = self.networks.call(f"controlnet-{net}", label, **given, cond=image)
            if self.settings.conventions.controlnets == "all" or not extra:
                extra = {name: extra.get(name, np.float32(0)) + value for name, value in residuals.items()}
        unet = "control-unet" if self.controls else "unet"
        predicted = self.networks.call(unet, label, **given, **extra)["noise_pred"]
        return guide(predicted, self.settings.guidance) if self.guided else predicted


class XLCondition:
    """Text and sizes of the SDXL pipeline; the refiner gets the second encoder's text alone.

    A refiner can also stand in the place of the base model; then it draws from the first step on.
    """

    def __init__(self, networks: Networks, settings: Settings, material: Material, ending: str) -> None:
        self.networks, self.settings = networks, settings
        texts = {f"negative{ending}": material.negative, f"prompt{ending}": material.prompt}
        second = [networks.call("text_encoder_2", label, input_ids=repadded(ids)) for label, ids in texts.items()]
        own = np.concatenate([result["hidden"] for result in second])
        self.hidden = {"unet": own, "refiner": own}
        size, target = [ORIGINAL_SIZE] * 2 + [CROP] * 2, [TARGET_SIZE] * 2
        scored = [[*size, score] for score in SCORES]
        ids = {"unet": scored, "refiner": scored}
        if not networks.refines:
            first = [networks.call("text_encoder", label, input_ids=ids)["hidden"] for label, ids in texts.items()]
            self.hidden["unet"] = np.concatenate([np.concatenate(first), own], axis=2)
            ids["unet"] = [[*size, *target]] * 2
        pooled = np.concatenate([result["pooled"] for result in second])
        self.extra = {
            unet: {"text_embeds": pooled, "time_ids": np.array(rows, np.float32)} for unet, rows in ids.items()
        }

    def noise(self, label: str, latents: np.ndarray, timestep: int, *, refined: bool) -> np.ndarray:
        """Predict the guided noise of one image's latents, by the refiner or the base model."""
        unet = "refiner" if refined else "unet"
        sample = np.concatenate([latents, latents])
        predicted = self.networks.call(
            unet,
            label,
            sample=sample,
            timestep=repeated(timestep, sample),
            hidden=self.hidden[unet],
            **self.extra[unet],
        )
        return guide(predicted["noise_pred"], self.settings.guidance)


def repeated(timestep: float, sample: np.ndarray) -> np.ndarray:
    """Return a timestep for each row of a sample, float32."""
    return np.full(len(sample), timestep, np.float32)


def guide(predicted: np.ndarray, guidance: float) -> np.ndarray:
    """Combine the rows [negative, positive]."""
    negative, positive = predicted[:1], predicted[1:]
    return negative + np.float32(guidance) * (positive - negative)


def padded(vectors: np.ndarray) -> np.ndarray:
    """Lay token vectors (tokens, 512) into the array that the package makes, (1, 256, 512); the rest is zeros.

    Raises
    ------
    ConsumerFailureError
        There are more than 256: the package does not cut, it writes behind its array.
    """
    if len(vectors) > TOKENS:
        raise ConsumerFailureError(
            f"{len(vectors)} token vectors are written into room for {TOKENS}: memory behind the array is overwritten",
            rule="multilingual-length",
        )
    result = np.zeros((1, TOKENS, vectors.shape[1]), np.float32)
    result[0, : len(vectors)] = vectors
    return result


def repadded(ids: np.ndarray) -> np.ndarray:
    """Pad with 0 ("!") behind the first end of text, which is the largest id."""
    result = ids.copy()
    for row in result:
        row[int(row.argmax()) + 1 :] = 0
    return result


@dataclass(frozen=True)
class _Image:
    """One image of a call."""

    networks: Networks
    settings: Settings
    condition: Condition | XLCondition
    draws: Draws
    ending: str

    def picture(self, schedule: Schedule, start: np.ndarray | None) -> np.ndarray:
        """Draw it; (1, H, W, 3), float32 in [0, 1]."""
        settings = self.settings
        latents = self.draws.noise
        if settings.task == "img2img":
            assert start is not None
            latents = self._start(schedule.timesteps, start)
        timesteps = schedule.timesteps[settings.start :]
        switch = int(len(timesteps) * settings.refiner_start) if settings.refined else len(timesteps)
        refined = {f"step{index:02d}{self.ending}": index >= switch for index in range(len(timesteps))}

        def predict(label: str, timestep: int, latents: np.ndarray) -> np.ndarray:
            return self.condition.noise(label, latents, timestep, refined=refined[label])

        latents = denoise(timesteps, latents, predict, schedule.step, self.networks.observe, ending=self.ending)
        decoded = latents if settings.conventions.decodes == "latents" else schedule.estimate
        self.networks.observe(f"latents/decoded{self.ending}", decoded)
        scaled = decoded / np.float32(settings.factor)
        return to_pictures(self.networks.call("vae_decoder", f"final{self.ending}", latents=scaled)["image"])

    def _start(self, timesteps: list[int], image: np.ndarray) -> np.ndarray:
        settings, draws, label = self.settings, self.draws, f"start{self.ending}"
        pixels = settings.conventions.start_pixels
        if pixels and image.shape[2:] != (pixels, pixels):
            raise ConsumerFailureError(f"the starting image is {image.shape[3]}x{image.shape[2]}", rule="mochi-3-size")
        level = noise_level(settings, timesteps)
        if settings.conventions.encoder != "five":
            moments = self.networks.call("vae_encoder", label, image=image)["moments"]
            return starting_latents(settings, moments, draws, level)
        assert draws.latent is not None
        return self.networks.call(
            "noising_encoder",
            label,
            image=image,
            diagonal=draws.latent,
            noise=draws.noise,
            signal=np.sqrt([level]),
            sigma=np.sqrt([1 - level]),
        )["latents"]
