"""A consumer's networks: Core ML programs in the reference runtime, features bound as the consumer binds them.

The Swift package binds some features by literal name and takes the first one elsewhere; Core ML converts arrays to the
declared dtypes. The Python pipeline checks names, dtypes and shapes itself. What is missing or does not fit ends the
run with the failure that the tables state for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from parity import mil
from parity.contracts.release import Conventions
from parity.pipelines.draws import ConsumerFailureError

# Which rule of the tables describes a feature that does not fit: (component, feature) to its ids, by consumer
_MISFITS = {
    ("unet", "encoder_hidden_states"): ("tokens",),
    ("unet", "time_ids"): ("flat-ids-batch",),
    ("unet", "batch of one"): ("batch-one-swift", "batch-one-swift-xl", "batch-one-python", "batch-one-python-xl"),
    ("unet", "batch of two"): ("unguided-swift", "unguided-python"),
    ("unet", "sample"): ("inpaint-unet",),
    ("control-unet", "batch of one"): ("batch-one-controlnet",),
    ("controlnet", "batch of two"): ("unguided-controlnet-swift", "unguided-controlnet-python"),
    ("control-unet", "sample"): ("controlnet-size",),
    ("vae_decoder", "z"): ("sizes",),
    ("safety_checker", "images"): ("safety-size-swift", "safety-size-python"),
}
_MISSING = {
    "text_encoder": ("no-text-encoder",),
    "unet": ("no-unet",),
    "refiner": ("no-refiner",),
    "control-unet": ("no-controlled-unet",),
    "controlnet": ("no-controlnet",),
    "vae_decoder": ("no-decoder",),
    "vae_encoder": ("no-encoder", "no-encoder-mochi", "no-encoder-mochi-ignored"),
    "safety_checker": ("no-safety-checker",),
}


class CoreMLNetworks:
    """Programs of one folder of models.

    Parameters
    ----------
    models : mapping of str to path
        Component (halves as ``unet_chunk1``, ControlNets as ``controlnet:ID``) to package or compiled model.
    conventions : Conventions
    profile : str
        Numerics of the reference runtime.
    kept : dict
        Sessions by path and profile, for later runs.
    """

    def __init__(
        self, models: Mapping[str, Path], conventions: Conventions, profile: str, kept: dict[Any, Any]
    ) -> None:
        self.conventions = conventions
        self._models, self._profile, self._kept = models, profile, kept
        self._nets = [name for name in models if name.startswith("controlnet")]
        self._swift = conventions.pipeline == "swift"

    @property
    def latent(self) -> tuple[int, ...]:
        """Shape of one image's latents, of the UNet's own input."""
        name = next((n for n in ("unet", "unet_chunk1", "control-unet") if n in self._models), "unet")
        return (1, *self._shape(name, "sample")[1:])

    @property
    def refines(self) -> bool:
        """Whether the UNet is an SDXL refiner: its time ids are five."""
        name = next((n for n in ("unet", "unet_chunk1") if n in self._models), "")
        return bool(name) and self._shape(name, "time_ids")[-1:] == (5,)

    def text(self, ids: np.ndarray) -> np.ndarray:
        """Encode token ids (1, S): the last hidden state."""
        result = self._run("text_encoder", {self._first("text_encoder"): ids})
        if "last_hidden_state" not in result:
            raise ConsumerFailureError("the process crashes at nil last_hidden_state in TextEncoder.swift")
        return np.asarray(result["last_hidden_state"], np.float32)

    def text_xl(self, ids: np.ndarray, which: int) -> tuple[np.ndarray, np.ndarray]:
        """Encode for SDXL: hidden state and pooled text."""
        name, rule = ("text_encoder", "no-text-encoder-xl") if which == 1 else ("text_encoder_2", "no-text-encoder-2")
        if name not in self._models:
            raise ConsumerFailureError(f"{name} is missing", rule=rule)
        result = self._run(name, {self._first(name): ids})
        return np.asarray(result["hidden_embeds"], np.float32), np.asarray(result["pooled_outputs"], np.float32)

    def noise(
        self, unet: str, sample: np.ndarray, timestep: float, hidden: np.ndarray, extra: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """Predict noise; a UNet of batch one is called for each row by the releases that can."""
        halves = (f"{unet}_chunk1", f"{unet}_chunk2")
        chunked = self._swift and all(name in self._models for name in halves)
        stages = halves if chunked else (unet,)
        context = np.ascontiguousarray(hidden.transpose(0, 2, 1)[:, :, None, :])
        given: dict[str, np.ndarray] = {"sample": sample, "encoder_hidden_states": context, **extra}
        rows = len(sample)
        if self.conventions.serial and not extra and rows == 2 and self._shape(stages[0], "sample")[0] == 1:
            parts = [{name: value[i : i + 1] for name, value in given.items()} for i in range(rows)]
            return np.concatenate([self._stages(stages, part, timestep, 1) for part in parts])
        if "time_ids" in given:
            flat = self.conventions.time_ids == "flat" or len(self._shape(stages[0], "time_ids")) == 1
            given["time_ids"] = given["time_ids"].reshape(-1) if flat else given["time_ids"]
        # up to the releases that know batch one, two timesteps are sent whatever the batch
        return self._stages(stages, given, timestep, rows if self.conventions.serial else 2)

    def residuals(
        self, net: int, sample: np.ndarray, timestep: float, hidden: np.ndarray, image: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Run one ControlNet."""
        if net >= len(self._nets):
            raise ConsumerFailureError("there is no such ControlNet", rule="no-controlnet")
        given = {
            "sample": sample,
            "timestep": np.full((2,), timestep, np.float32),
            "encoder_hidden_states": np.ascontiguousarray(hidden.transpose(0, 2, 1)[:, :, None, :]),
            "controlnet_cond": image,
        }
        result = self._run(self._nets[net], given)
        if self._swift and any(np.asarray(value).dtype == np.float16 for value in result.values()):
            raise ConsumerFailureError("float16 residuals", rule="float16-controlnet")
        return {name: np.asarray(value, np.float32) for name, value in result.items()}

    def moments(self, image: np.ndarray) -> np.ndarray:
        """Encode an image with an encoder of one input."""
        names = self._names("vae_encoder")
        if self.conventions.encoder == "z" and "z" not in names:
            rule = "legacy-encoder-crash" if len(names) > 1 else "x-encoder-crash"
            raise ConsumerFailureError("nil input z", rule=rule)
        if len(names) > 1:
            raise ConsumerFailureError("more than one input", rule="legacy-encoder-new-swift")
        if tuple(image.shape) != self._shape("vae_encoder", names[0]):
            raise ConsumerFailureError("Encoder.Error.sampleInputShapeNotCorrect is thrown: images are not resized")
        return self._read("vae_encoder", self._run("vae_encoder", {names[0]: image}))

    def noised(
        self, image: np.ndarray, diagonal: np.ndarray, noise: np.ndarray, signal: float, sigma: float
    ) -> np.ndarray:
        """Encode an image with the encoder of five inputs; up to 0.3.0 its array is (1, 3, width, height)."""
        given = {
            "sample": image,
            "diagonal_noise": diagonal,
            "noise": noise,
            "sqrt_alphas_cumprod": np.full((1, 1), signal),
            "sqrt_one_minus_alphas_cumprod": np.full((1, 1), sigma),
        }
        if set(self._names("vae_encoder")) != set(given):
            raise ConsumerFailureError("another encoder", rule="modern-encoder-old-swift")
        if image.shape[2] != image.shape[3]:
            raise ConsumerFailureError("not square", rule="non-square-legacy")
        return self._read("vae_encoder", self._run("vae_encoder", given))

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Decode latents that are divided by the scale."""
        name = self._first("vae_decoder")
        result = self._run("vae_decoder", {name: latents})
        return self._read("vae_decoder", result)

    @property
    def clip_size(self) -> tuple[int, int]:
        """Height and width of the safety checker's prepared picture."""
        height, width = self._shape("safety_checker", "clip_input")[2:]
        return height, width

    def unsafe(self, clip_input: np.ndarray, picture: np.ndarray) -> bool:
        """Ask the safety checker about a picture (1, H, W, 3), of which Swift passes 512x512 zeros."""
        images = np.zeros((1, 512, 512, 3)) if self.conventions.safety == "dummy" else picture
        given = {"clip_input": clip_input, "images": images, "adjustment": np.zeros(1)}
        return bool(np.asarray(self._run("safety_checker", given)["has_nsfw_concepts"]).reshape(-1)[0])

    # -------------------------------------------------------------------------------------------------------- binding

    def _stages(self, stages: tuple[str, ...], given: Mapping[str, np.ndarray], timestep: float, count: int) -> Any:
        inputs = {**given, "timestep": np.full((count,), timestep, np.float32)}
        result: dict[str, Any] = {}
        for name in stages:  # outputs win over original inputs of equal name
            result = self._run(name, inputs)
            inputs = {**inputs, **{key: np.asarray(value) for key, value in result.items()}}
        return np.asarray(result["noise_pred"], np.float32)

    def _session(self, component: str) -> Any:
        from parity.mil.session import Session

        if component not in self._models:
            rules = _MISSING.get(_kind(component), ())
            if component == "unet" and "unet_chunk1" in self._models:
                rules = ("chunks-in-python", *rules)
            elif component == "unet" and "control-unet" in self._models:
                rules = ("no-unet-only-controlled", *rules)
            raise ConsumerFailureError(f"{component} is missing", rule=" ".join(rules))
        path = Path(self._models[component])
        key = ("session", str(path), self._profile)
        if key not in self._kept:
            self._kept[key] = Session(mil.load(path), self._profile)
        return self._kept[key]

    def _names(self, component: str) -> list[str]:
        return [feature.name for feature in self._session(component).function.inputs]

    def _first(self, component: str) -> str:
        return self._names(component)[0]

    def _shape(self, component: str, feature: str) -> tuple[int, ...]:
        inputs = self._session(component).function.inputs
        return next((f.shape for f in inputs if f.name == feature), ())

    def _read(self, component: str, result: Mapping[str, Any]) -> np.ndarray:
        value = np.asarray(next(iter(result.values())))
        if value.dtype == np.float16 and self.conventions.reads == "float32":
            kind = component.removeprefix("vae_")
            raise ConsumerFailureError("float16 output", rule=f"float16-{kind}-old-swift")
        return value.astype(np.float32)

    def _run(self, component: str, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Predict, features bound by name; Core ML converts Float32 arrays to the declared dtype."""
        session = self._session(component)
        declared = {feature.name: feature for feature in session.function.inputs}
        missing = sorted(declared.keys() - inputs.keys())
        if missing:
            raise ConsumerFailureError(f"Core ML error: {component} requires the input feature {missing[0]}")
        given = {}
        for name, feature in declared.items():
            shape = tuple(inputs[name].shape)
            if shape != feature.shape:
                rules = _misfit(_kind(component), name, shape, feature.shape)
                text = f"{component} input {name} is {feature.shape}, given {shape}"
                raise ConsumerFailureError(f"Core ML shape error: {text}", rule=" ".join(rules))
            given[name] = inputs[name].astype(np.float16 if feature.dtype == "fp16" else np.float32)
        return dict(session.predict(given))


def _misfit(kind: str, name: str, given: tuple[int, ...], declared: tuple[int, ...]) -> tuple[str, ...]:
    """Return the rules of the tables that can describe a feature of another shape than is given."""
    if name == "sample" and given[1:] == declared[1:]:
        name = "batch of one" if declared[0] == 1 else "batch of two"
    elif name.startswith("additional_residual_") or name == "controlnet_cond":
        return ("controlnet-size",)
    return _MISFITS.get((kind, name), ())


def _kind(component: str) -> str:
    """Component without half and identifier: ``unet_chunk1`` is a ``unet``, ``controlnet:ID`` a ``controlnet``."""
    return component.split("_chunk")[0].split(":")[0]
