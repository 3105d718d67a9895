"""Playing a Swift release: components in the reference runtime, features bound as that release binds them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from parity import mil
from parity.contracts.consumers import consumers
from parity.contracts.conventions.draws import (
    SCALE,
    ConsumerFailureError,
    Draws,
    Settings,
    draw,
    noise_level,
    starting_latents,
    timesteps,
    to_picture,
)
from parity.contracts.conventions.plms import PLMS


class Swift:
    """The package, with components in the reference runtime."""

    def __init__(self, models: Mapping[str, Path], settings: Settings, profile: str) -> None:
        from parity.mil.session import Session

        self.settings = settings
        self.sessions = {name: Session(mil.load(path), profile) for name, path in models.items()}

    def picture(self, prompt: np.ndarray, negative: np.ndarray, image: np.ndarray | None) -> np.ndarray:
        hidden = np.concatenate([self._text(negative), self._text(prompt)])
        hidden = np.ascontiguousarray(hidden.transpose(0, 2, 1)[:, :, None, :])
        unet = self.sessions["unet"].function
        shape = (1, *next(f.shape for f in unet.inputs if f.name == "sample")[1:])
        draws = draw(self.settings, shape)
        latents = draws.noise if self.settings.task == "txt2img" else self._encode(image, draws)
        scheduler = PLMS(self.settings.steps)
        for step in timesteps(self.settings.steps)[self.settings.start :]:
            inputs = {
                "sample": np.concatenate([latents, latents]),
                "timestep": np.full((2,), step, np.float32),
                "encoder_hidden_states": hidden,
            }
            result = self._run("unet", inputs)
            noise = np.asarray(next(iter(result.values())), np.float32)
            noise = noise[:1] + np.float32(self.settings.guidance) * (noise[1:] - noise[:1])
            latents = scheduler.step(noise, step, latents)
        decoded = latents if self.settings.release < 6 else scheduler.estimate
        result = self._run("vae_decoder", {self._first("vae_decoder"): decoded / np.float32(SCALE)})
        return to_picture(self._read("vae_decoder", result, converting=self.settings.release >= 6))

    def _text(self, ids: np.ndarray) -> np.ndarray:
        result = self._run("text_encoder", {self._first("text_encoder"): ids.astype(np.float32)})
        if "last_hidden_state" not in result:
            raise ConsumerFailureError("the process crashes at nil last_hidden_state in TextEncoder.swift")
        return np.asarray(result["last_hidden_state"], np.float32)

    def _encode(self, image: np.ndarray | None, draws: Draws) -> np.ndarray:
        assert image is not None
        assert draws.latent is not None
        release = self.settings.release
        names = {feature.name for feature in self.sessions["vae_encoder"].function.inputs}
        if release < 3:
            raise ConsumerFailureError("the release has no image to image")
        if release == 3:
            level = noise_level(self.settings)
            inputs = {
                "sample": image,
                "diagonal_noise": draws.latent,
                "noise": draws.noise,
                "sqrt_alphas_cumprod": np.full((1, 1), np.sqrt(level)),
                "sqrt_one_minus_alphas_cumprod": np.full((1, 1), np.sqrt(1 - level)),
            }
            if names != set(inputs):
                raise ConsumerFailureError(_failure("modern-encoder-old-swift"))
            return self._read("vae_encoder", self._run("vae_encoder", inputs), converting=False)
        if release < 7 and "z" not in names:
            rule = "legacy-encoder-crash" if len(names) > 1 else "x-encoder-crash"
            raise ConsumerFailureError(_failure(rule))
        if len(names) > 1:
            raise ConsumerFailureError(_failure("legacy-encoder-new-swift"))
        name = "z" if release < 7 else next(iter(names))
        moments = self._read("vae_encoder", self._run("vae_encoder", {name: image}), converting=release >= 6)
        return starting_latents(self.settings, moments, draws)

    def _first(self, component: str) -> str:
        return self.sessions[component].function.inputs[0].name

    def _read(self, component: str, result: Mapping[str, Any], *, converting: bool) -> np.ndarray:
        value = np.asarray(next(iter(result.values())))
        if value.dtype == np.float16 and not converting:
            kind = "decoder" if component == "vae_decoder" else "encoder"
            raise ConsumerFailureError(_failure(f"float16-{kind}-old-swift"))
        return value.astype(np.float32)

    def _run(self, component: str, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Predict, features bound by name; Core ML converts Float32 arrays to the declared dtype."""
        session = self.sessions[component]
        declared = {feature.name: feature for feature in session.function.inputs}
        missing = sorted(declared.keys() - inputs.keys())
        if missing:
            raise ConsumerFailureError(f"Core ML error: {component} requires the input feature {missing[0]}")
        given = {}
        for name, feature in declared.items():
            if tuple(inputs[name].shape) != feature.shape:
                raise ConsumerFailureError(
                    f"Core ML shape error: {component} input {name} is {feature.shape}, given {inputs[name].shape}"
                )
            given[name] = inputs[name].astype(np.float16 if feature.dtype == "fp16" else np.float32)
        return session.predict(given)


def _failure(rule: str) -> str:
    return next(entry.failure for entry in consumers().rules if entry.id == rule)
