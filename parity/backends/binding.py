"""A release's networks: converted models, their features bound as that release binds them.

The Swift package binds some features by literal name and takes the first one elsewhere; Core ML converts arrays to the
declared dtypes. The Python pipeline checks names, dtypes and shapes itself. What is missing or does not fit ends the
run with the failure that the tables state for it. The models are those of :mod:`parity.backends.coreml`, on its compute
unit and runtime: on a Mac a release is played through the Core ML framework.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from parity import coreml
from parity.contracts.release import Conventions
from parity.networks.backend import Backend
from parity.networks.signature import Component, kind
from parity.pipelines.settings import ConsumerFailureError

# Which rule of the tables describes a feature that does not fit: (component, feature) to its ids, by consumer
_MISFITS = {
    ("unet", "encoder_hidden_states"): ("projection-tokens", "tokens"),
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
    "text_encoder_2": ("no-text-encoder-2",),
    "mmdit": ("no-mmdit",),
    "multilingual_projection": ("no-projection",),
    "unet": ("no-unet",),
    "refiner": ("no-refiner",),
    "control-unet": ("no-controlled-unet",),
    "controlnet": ("no-controlnet",),
    "vae_decoder": ("no-decoder",),
    "vae_encoder": ("no-encoder", "no-encoder-mochi", "no-encoder-mochi-ignored"),
    "safety_checker": ("no-safety-checker",),
}


class ReleaseBinding(Backend):
    """Converted models as one release of an app runs them.

    Parameters
    ----------
    packages : mapping of str to paths
        Component to its model, or to its two halves in order; of several ControlNets ``controlnet-1`` and so on.
    conventions : Conventions
        What the release does.
    load : callable
        Gives the loaded model of a path.
    numerics : str
        See :class:`parity.networks.backend.Backend`.
    precision_of : callable
        Gives the precision of a component's program.
    """

    name = "coreml"

    def __init__(
        self,
        packages: Mapping[str, Sequence[Path]],
        conventions: Conventions,
        load: Callable[[Path], coreml.Model],
        *,
        numerics: str,
        precision_of: Callable[[str], str],
    ) -> None:
        super().__init__()
        self.conventions = conventions
        self.numerics, self._precision_of = numerics, precision_of
        self.packages = {name: tuple(paths) for name, paths in packages.items()}
        self.precision = "float32" if {precision_of(name) for name in self.packages} == {"float32"} else "float16"
        self._open = load
        self.forget: Callable[[Sequence[Path]], None] = lambda paths: None
        self._swift = conventions.pipeline == "swift"

    def precision_of(self, name: str) -> str:
        """Return the precision of a component's program."""
        return self._precision_of(_package(name))

    @property
    def latent(self) -> tuple[int, ...]:
        """Shape of one image's latents, of the denoiser's own input."""
        if "mmdit" in self.packages:
            return (1, *self._shape(self.models("mmdit")[0], "latent_image_embeddings")[1:])
        name = next((name for name in ("unet", "control-unet") if name in self.packages), "unet")
        return (1, *self._shape(self.models(name)[0], "sample")[1:])

    @property
    def refines(self) -> bool:
        """Whether the UNet is an SDXL refiner: its time ids are five."""
        return "unet" in self.packages and self._shape(self.models("unet")[0], "time_ids")[-1:] == (5,)

    @property
    def width(self) -> int:
        """Width of the text that Stable Diffusion 3's transformer takes; 0 without one."""
        if "mmdit" not in self.packages:
            return 0
        shape = self._shape(self.models("mmdit")[0], "token_level_text_embeddings")
        return shape[1] if len(shape) > 1 else 0

    @property
    def clip_size(self) -> tuple[int, int]:
        """Height and width of the safety checker's prepared picture."""
        height, width = self._shape(self.models("safety_checker")[0], "clip_input")[2:]
        return height, width

    def models(self, name: str) -> tuple[coreml.Model, ...]:
        """Return the loaded models of a component: one, or the halves that the release can run.

        Raises
        ------
        ConsumerFailureError
            There is none, or the release cannot run halves.
        """
        paths = self.packages.get(name, ())
        if not paths or (len(paths) > 1 and not self._swift):
            raise ConsumerFailureError(f"{name} is missing", rule=" ".join(self._missing(name, halves=bool(paths))))
        return tuple(self._open(path) for path in paths)

    def _missing(self, name: str, *, halves: bool) -> tuple[str, ...]:
        rules = _MISSING.get(kind(name), ())
        if name == "text_encoder" and "text_encoder_2" in self.packages and "mmdit" not in self.packages:
            return ("no-text-encoder-xl",)
        if halves:
            return ("chunks-in-python", *rules)
        if name == "unet" and "control-unet" in self.packages:
            return ("no-unet-only-controlled", *rules)
        return rules

    def _forget(self, name: str) -> None:
        super()._forget(name)
        self.forget(self.packages.get(_package(name), ()))

    def _load(self, name: str) -> Component:
        return _Bound(name, self, self.models(_package(name)))

    @staticmethod
    def _shape(model: coreml.Model, feature: str) -> tuple[int, ...]:
        return next((each.shape for each in model.inputs if each.name == feature), ())


class _Bound:
    """One network of a release."""

    def __init__(self, name: str, owner: ReleaseBinding, models: tuple[coreml.Model, ...]) -> None:
        self.name = name
        self.paths = tuple(model.path for model in models)
        self._models = models
        self._rules = owner.conventions
        self._swift = owner.conventions.pipeline == "swift"
        self._xl = "text_encoder_2" in owner.packages or "mmdit" in owner.packages
        self._features = {feature.name: feature for model in models for feature in model.inputs}
        self._made: list[dict[str, np.ndarray]] | None = None  # asked for by ``calls`` alone

    def calls(self, inputs: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Return the features of each prediction that a call asks of the first model, by making the call."""
        made = self._made = []
        try:
            self(inputs)
        finally:
            self._made = None
        return made

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        runs: dict[str, Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]] = {
            "text_encoder": self._text,
            "text_encoder_2": self._text,
            "mmdit": self._flow,
            "multilingual_projection": self._project,
            "controlnet": self._residuals,
            "vae_decoder": self._decode,
            "vae_encoder": self._encode,
            "noising_encoder": self._noised,
            "safety_checker": self._unsafe,
        }
        return runs.get(kind(self.name), self._noise)(inputs)

    def _text(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        result = self._predict(self._models[0], {next(iter(self._features)): inputs["input_ids"]})
        if not self._xl:
            if "last_hidden_state" not in result:
                raise ConsumerFailureError("the process crashes at nil last_hidden_state in TextEncoder.swift")
            return {"hidden": result["last_hidden_state"]}
        wanted = {"hidden": "hidden_embeds", "pooled": "pooled_outputs"}
        if absent := [name for name in wanted.values() if name not in result]:
            raise ConsumerFailureError(f"the process crashes at nil {absent[0]} in TextEncoderXL.swift")
        return {name: result[feature] for name, feature in wanted.items()}

    def _noise(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Predict noise; a UNet of batch one is called for each row by the releases that can."""
        given = {name: value for name, value in inputs.items() if name not in ("hidden", "timestep")}
        given["encoder_hidden_states"] = _context(inputs["hidden"])
        timestep, rows = inputs["timestep"], len(inputs["sample"])
        extra = len(given) > 2
        if self._rules.serial and not extra and rows == 2 and self._declared("sample")[:1] == (1,):
            parts = [{name: value[row : row + 1] for name, value in given.items()} for row in range(rows)]
            return {"noise_pred": np.concatenate([self._stages(part, timestep[:1]) for part in parts])}
        if "time_ids" in given:
            flat = self._rules.time_ids == "flat" or len(self._declared("time_ids")) == 1
            given["time_ids"] = given["time_ids"].reshape(-1) if flat else given["time_ids"]
        # up to the releases that know batch one, two timesteps are sent whatever the batch
        count = rows if self._rules.serial else 2
        return {"noise_pred": self._stages(given, np.resize(timestep, count))}

    def _flow(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Predict the flow: four literal names in, the first output out."""
        given = {
            "latent_image_embeddings": inputs["sample"],
            "token_level_text_embeddings": _context(inputs["hidden"]),
            "pooled_text_embeddings": inputs["pooled"][:, :, None, None],
            "timestep": inputs["timestep"],
        }
        output, result = self._models[0].outputs[0], self._predict(self._models[0], given)
        return {"flow": result[output.name]}

    def _project(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Give token vectors the UNet's width: first input, first output, which is (1, width, 1, tokens)."""
        found = self._first({next(iter(self._features)): inputs["embeddings"]})
        return {"hidden": found[:, :, 0].transpose(0, 2, 1)}

    def _residuals(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        model = self._models[0]
        given = {
            "sample": inputs["sample"],
            "timestep": np.resize(inputs["timestep"], 2),
            "encoder_hidden_states": _context(inputs["hidden"]),
            "controlnet_cond": inputs["cond"],
        }
        residuals = self._predict(model, given)
        if self._swift and any(feature.dtype == np.float16 for feature in model.outputs):
            raise ConsumerFailureError("float16 residuals", rule="float16-controlnet")
        return residuals

    def _encode(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Encode an image with an encoder of one input."""
        names, image = list(self._features), inputs["image"]
        if self._rules.encoder == "z" and "z" not in names:
            raise ConsumerFailureError(
                "nil input z", rule="legacy-encoder-crash" if len(names) > 1 else "x-encoder-crash"
            )
        if len(names) > 1:
            raise ConsumerFailureError("more than one input", rule="legacy-encoder-new-swift")
        if tuple(image.shape) != self._declared(names[0]):
            raise ConsumerFailureError("Encoder.Error.sampleInputShapeNotCorrect is thrown: images are not resized")
        return {"moments": self._first({names[0]: image})}

    def _noised(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Encode an image with the encoder of five inputs; up to 0.3.0 its array is (1, 3, width, height)."""
        image = inputs["image"]
        given = {
            "sample": image,
            "diagonal_noise": inputs["diagonal"],
            "noise": inputs["noise"],
            "sqrt_alphas_cumprod": inputs["signal"].reshape(1, 1),
            "sqrt_one_minus_alphas_cumprod": inputs["sigma"].reshape(1, 1),
        }
        if set(self._features) != set(given):
            raise ConsumerFailureError("another encoder", rule="modern-encoder-old-swift")
        if image.shape[2] != image.shape[3]:
            raise ConsumerFailureError("not square", rule="non-square-legacy")
        return {"latents": self._first(given)}

    def _decode(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"image": self._first({next(iter(self._features)): inputs["latents"]})}

    def _unsafe(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Ask the safety checker about a picture, of which Swift passes 512x512 zeros."""
        picture = np.zeros((1, 512, 512, 3)) if self._rules.safety == "dummy" else inputs["picture"]
        given = {"clip_input": inputs["clip_input"], "images": picture, "adjustment": np.zeros(1)}
        return {"unsafe": self._predict(self._models[0], given)["has_nsfw_concepts"].reshape(-1)[:1]}

    # -------------------------------------------------------------------------------------------------------- binding

    def _declared(self, feature: str) -> tuple[int, ...]:
        return self._features[feature].shape if feature in self._features else ()

    def _stages(self, given: Mapping[str, np.ndarray], timestep: np.ndarray) -> np.ndarray:
        known = {**given, "timestep": timestep.astype(np.float32)}
        for model in self._models:  # outputs win over original inputs of equal name
            known |= self._predict(model, known)
        return known["noise_pred"]

    def _first(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return a VAE's first output, which old releases read as Float32 whatever it is."""
        output, result = self._models[0].outputs[0], self._predict(self._models[0], inputs)
        if output.dtype == np.float16 and self._rules.reads == "float32":
            component = "encoder" if "encoder" in self.name else "decoder"
            raise ConsumerFailureError("float16 output", rule=f"float16-{component}-old-swift")
        return result[output.name]

    def _predict(self, model: coreml.Model, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Predict, features bound by name; Core ML converts Float32 arrays to the declared dtype."""
        missing = sorted(feature.name for feature in model.inputs if feature.name not in inputs)
        if missing:
            raise ConsumerFailureError(f"Core ML error: {self.name} requires the input feature {missing[0]}")
        given = {}
        for feature in model.inputs:
            value = inputs[feature.name]
            if tuple(value.shape) != feature.shape:
                rules = _misfit(kind(self.name), feature.name, tuple(value.shape), feature.shape)
                text = f"{self.name} input {feature.name} is {feature.shape}, given {tuple(value.shape)}"
                raise ConsumerFailureError(f"Core ML shape error: {text}", rule=" ".join(rules))
            given[feature.name] = value.astype(feature.dtype)
        if self._made is not None and model is self._models[0]:
            self._made.append(given)
        return {name: np.asarray(value, np.float32) for name, value in model.predict(given).items()}


def _package(name: str) -> str:
    """Return the package of a network: the noising encoder is a form of the VAE encoder."""
    return "vae_encoder" if name == "noising_encoder" else name


def _context(hidden: np.ndarray) -> np.ndarray:
    """Turn hidden states (batch, tokens, width) into the converted UNet's (batch, width, 1, tokens)."""
    return np.ascontiguousarray(hidden.transpose(0, 2, 1)[:, :, None, :])


def _misfit(kind: str, name: str, given: tuple[int, ...], declared: tuple[int, ...]) -> tuple[str, ...]:
    """Return the rules of the tables that can describe a feature of another shape than is given."""
    if name == "sample" and given[1:] == declared[1:]:
        name = "batch of one" if declared[0] == 1 else "batch of two"
    elif name.startswith("additional_residual_") or name == "controlnet_cond":
        return ("controlnet-size",)
    return _MISFITS.get((kind, name), ())
