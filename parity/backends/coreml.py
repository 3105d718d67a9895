"""Core ML components from converted models: what do their features mean?

A model's feature names, layouts and batch are those of the ml-stable-diffusion contract (docs/contracts.md): the UNet
takes a batch of two [negative, positive] and its context as (batch, width, 1, tokens), the others a batch of one. The
components here have the pipelines' names and any batch. A UNet may be two halves: the second takes what the first gives
and, by name, what the first was given. Shapes are checked before anything is run, so a package of another model is
refused with both shapes in the message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from parity import coreml, mil
from parity.backends.binding import ReleaseBinding
from parity.contracts.fingerprint import operations
from parity.contracts.release import Conventions
from parity.errors import FormatError, MissingError, ParityError, UnsupportedError
from parity.mil import dtypes
from parity.networks.backend import Backend
from parity.networks.signature import SIGNATURES, Component, kind, last_layer_only

_PRODUCTS = ("conv", "linear", "matmul", "einsum", "scaled_dot_product_attention")
_DENOISER = ("sample", "timestep", "encoder_hidden_states")
_FEATURES = {"hidden": "encoder_hidden_states", "cond": "controlnet_cond", "picture": "images"}  # tensor -> feature
_MMDIT = {
    "sample": "latent_image_embeddings",
    "hidden": "token_level_text_embeddings",
    "pooled": "pooled_text_embeddings",
    "timestep": "timestep",
}  # tensor -> feature of SD3's transformer
_OUTPUTS = {"unsafe": "has_nsfw_concepts"}  # tensor -> feature, of models with further outputs


class CoreMLBackend(Backend):
    """Converted models on one compute unit of one runtime.

    Parameters
    ----------
    packages : mapping
        Component name to ``.mlpackage`` or ``.mlmodelc``, or to its two halves in order.
    compute_unit : str
        One of :data:`parity.coreml.COMPUTE_UNITS`.
    runtime : str
        ``auto``, ``native`` or ``reference``.
    profile : str
        Numerics of the reference runtime, see :data:`parity.mil.PROFILES`.
    loaded : dict, optional
        Keeps loaded models, for other backends over the same files.

    Raises
    ------
    UsageError, UnsupportedError
        Unknown unit or runtime; the native runtime away from macOS.
    """

    name = "coreml"

    def __init__(
        self,
        packages: Mapping[str, Path | Sequence[Path]],
        *,
        compute_unit: str = "CPU_ONLY",
        runtime: str = "auto",
        profile: str = "declared",
        loaded: dict[Any, coreml.Model] | None = None,
    ) -> None:
        super().__init__()
        self.packages = {name: (p,) if isinstance(p, Path) else tuple(p) for name, p in packages.items()}
        self._models = {} if loaded is None else loaded
        self.compute_unit = compute_unit
        self.runtime = runtime
        self.profile = profile
        self.numerics = coreml.resolve(runtime, compute_unit, profile=profile)
        precisions = {self.precision_of(name) for name in self.packages}
        self.precision = "float32" if precisions == {"float32"} else "float16"

    def precision_of(self, name: str) -> str:
        """Return the precision of a component's program, as the package says."""
        if self.profile == "float32":
            return "float32"
        found = {computes_in(str(path)) for path in self.packages.get(_part(name), ())}
        return "float32" if found == {"float32"} else "float16"

    def as_release(self, conventions: Conventions) -> ReleaseBinding:
        """Return the same models as a release binds them."""
        found = ReleaseBinding(
            self.packages, conventions, self._open, numerics=self.numerics, precision_of=self.precision_of
        )
        found.frugal, found.forget = self.frugal, self._close
        return found

    def _forget(self, name: str) -> None:
        super()._forget(name)
        self._close(self.packages.get(_part(name), ()))

    def _close(self, paths: Sequence[Path]) -> None:
        for key in [key for key in self._models if isinstance(key, tuple) and key[1:2] in [(str(p),) for p in paths]]:
            del self._models[key]

    def _open(self, path: Path) -> coreml.Model:
        key = ("model", str(path), self.compute_unit, self.runtime, self.profile)
        if key not in self._models:
            self._models[key] = self._read(path)
        return self._models[key]

    def _read(self, path: Path) -> coreml.Model:
        return coreml.load(path, self.compute_unit, runtime=self.runtime, profile=self.profile)

    def _load(self, name: str) -> Component:
        if _part(name) not in self.packages:
            there = ", ".join(sorted(self.packages)) or "none"
            raise MissingError(f"no converted {name} among the models (found: {there})")
        models = [self._open(path) for path in self.packages[_part(name)]]
        return CoreMLComponent(name, models, xl="text_encoder_2" in self.packages)


def _part(name: str) -> str:
    """Return the package of a network: an unconditional model's UNet is its only one."""
    return "unet" if name == "unconditional-unet" else name


@lru_cache(maxsize=256)
def computes_in(path: str) -> str:
    """Return ``float32`` if a package's program multiplies nothing in float16, else ``float16``.

    >>> computes_in("no/such.mlpackage")
    'float16'
    """
    try:
        model = mil.load(path)
    except ParityError:  # said where it is loaded; float16 is what converters write
        return "float16"
    if model.kind != "mlProgram":
        return "float16"
    products = [operation for operation in operations(model.program) if operation.type in _PRODUCTS]
    kinds = {dtypes.BY_CODE[operation.outputs[0].type.tensorType.dataType].name for operation in products}
    return "float32" if kinds == {"fp32"} else "float16"


def by_component(models: Mapping[str, Path]) -> dict[str, tuple[Path, ...]]:
    """Gather single models by component: halves in order, ControlNets numbered.

    Parameters
    ----------
    models : mapping of str to path
        As :func:`parity.convert.cached` names them: halves as ``unet_chunk1``, ControlNets as ``controlnet:ID``.

    Examples
    --------
    >>> found = by_component({"unet_chunk1": Path("a"), "unet_chunk2": Path("b"), "controlnet:x/y": Path("c")})
    >>> {name: [str(path) for path in paths] for name, paths in found.items()}
    {'unet': ['a', 'b'], 'controlnet-1': ['c']}
    """
    found: dict[str, tuple[Path, ...]] = {}
    nets = [name for name in models if name.startswith("controlnet")]
    for name, path in models.items():
        component = f"controlnet-{nets.index(name) + 1}" if name in nets else name.split("_chunk")[0]
        found[component] = (*found.get(component, ()), path)
    return found


class CoreMLComponent:
    """A component of one model, or of models in a row.

    Parameters
    ----------
    name : str
        A network that :func:`parity.networks.signature.kind` knows.
    models : sequence of parity.coreml.Model
        In the order in which they run.
    xl : bool
        Whether it belongs to SDXL: UNets take pooled text and sizes, text encoders give their last layer but one.

    Raises
    ------
    FormatError, UnsupportedError
        Features that are not those of such a component; halves that do not fit.
    """

    def __init__(self, name: str, models: Sequence[coreml.Model], *, xl: bool = False) -> None:
        self.name = name
        self.paths = tuple(model.path for model in models)
        self._models = models
        self._inputs = _input_names(name, models, xl=xl)
        self._outputs = _output_names(name, models[-1], xl=xl)
        _check_row(self._inputs, models)
        self._declared = {feature.name: feature for model in reversed(models) for feature in model.inputs}
        first = self._declared.get(self._inputs[0])
        self._batch = first.shape[0] if first is not None and first.shape else 1

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the models on a batch of any size and return the outputs as float32.

        Raises
        ------
        UnsupportedError
            An earlier layer of a text encoder is asked for: a package gives its last one.
        """
        last_layer_only(self.name, inputs)
        batch, wanted = len(next(iter(inputs.values()))), self._batch
        results = [self._predict(features) for features in self.calls(inputs)]
        return {tensor: _joined([each[tensor] for each in results], batch, wanted) for tensor in results[0]}

    def calls(self, inputs: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Return the features of each prediction that a call is made of."""
        features = self._translate(inputs)
        rows = _batches(len(features[self._inputs[0]]), self._batch)
        return [{name: self._shaped(name, array[chosen]) for name, array in features.items()} for chosen in rows]

    def _translate(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if len(self._inputs) == 1:
            return {self._inputs[0]: next(iter(inputs.values()))}
        if self.name == "safety_checker":  # its picture and its threshold do not change the flag
            return {"clip_input": inputs["clip_input"]}
        if self.name == "mmdit":
            features = {_MMDIT[tensor]: array for tensor, array in inputs.items()}
            features[_MMDIT["hidden"]] = inputs["hidden"].transpose(0, 2, 1)[:, :, None, :]
            return {**features, _MMDIT["pooled"]: inputs["pooled"][:, :, None, None]}
        features = {_FEATURES.get(tensor, tensor): array for tensor, array in inputs.items()}
        if "hidden" in inputs:  # (batch, width, 1, tokens)
            features["encoder_hidden_states"] = inputs["hidden"].transpose(0, 2, 1)[:, :, None, :]
        return features

    def _shaped(self, name: str, array: np.ndarray) -> np.ndarray:
        """Lay SDXL's time ids out as the model has them: rows, or one after the other."""
        declared = self._declared.get(name)
        if name != "time_ids" or declared is None or array.size != int(np.prod(declared.shape)):
            return array
        return array.reshape(declared.shape)

    def _predict(self, features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        known: dict[str, Any] = dict(features)
        if self.name == "safety_checker":
            known |= {name: np.zeros(self._declared[name].shape, np.float32) for name in ("images", "adjustment")}
        for model in self._models:
            known |= model.predict(_typed(model, known))
        found = {tensor: np.asarray(known[feature], np.float32) for tensor, feature in self._outputs.items()}
        return {tensor: value.reshape(-1) if tensor == "unsafe" else value for tensor, value in found.items()}


def _joined(outputs: list[np.ndarray], batch: int, wanted: int) -> np.ndarray:
    """Put the rows of several predictions into the order of the batch."""
    if wanted == 1 or batch == wanted:
        return np.concatenate(outputs)
    if batch == 1:  # guidance is off, the package takes two: the row was doubled
        return outputs[0][:1]
    return np.concatenate([output[half : half + 1] for half in range(2) for output in outputs])


def _typed(model: coreml.Model, known: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Choose what a model takes and convert it to the declared dtypes, once shapes are known to fit."""
    typed: dict[str, np.ndarray] = {}
    for feature in model.inputs:
        if feature.name not in known:
            continue  # optional, or the model says what it misses
        array = np.asarray(known[feature.name])
        if tuple(feature.shape) != array.shape and not feature.flexible:
            raise FormatError(
                f"{model.path}: input {feature.name} has shape {tuple(feature.shape)} in the package, but the model's "
                f"pipeline gives {array.shape}: this package belongs to another model or size"
            )
        typed[feature.name] = array.astype(feature.dtype)
    return typed


def _input_names(name: str, models: Sequence[coreml.Model], *, xl: bool) -> tuple[str, ...]:
    """Return the features that a pipeline gives to a component; the first one's batch decides."""
    declared = [feature.name for model in models for feature in model.inputs]
    sizes = ("text_embeds", "time_ids") if xl else ()
    residuals = tuple(feature for feature in dict.fromkeys(declared) if feature.startswith("additional_residual_"))
    given = {
        "unet": (*_DENOISER, *sizes),
        "refiner": (*_DENOISER, "text_embeds", "time_ids"),
        "control-unet": (*_DENOISER, *residuals),
        "controlnet": (*_DENOISER, "controlnet_cond"),
        "unconditional-unet": ("sample", "timestep"),
        "mmdit": tuple(_MMDIT.values()),
        "safety_checker": ("clip_input", "images", "adjustment"),
    }
    if name == "control-unet" and not residuals:
        raise FormatError(
            f"{models[0].path}: a UNet that takes no residuals of a ControlNet; controlnet needs one that was "
            "converted for it (control-unet)"
        )
    return given.get(kind(name)) or (_only_input(name, models[0]),)


def _only_input(name: str, model: coreml.Model) -> str:
    names = [feature.name for feature in model.inputs]
    if len(names) != 1:
        raise UnsupportedError(
            f"{model.path}: a {name} with inputs {', '.join(names)}; one input is needed. Encoders "
            "of ml-stable-diffusion 0.2.0 and 0.3.0 have five: run 'parity repair' on the folder"
        )
    return names[0]


def _check_row(given: Sequence[str], models: Sequence[coreml.Model]) -> None:
    """Refuse models that need what nobody gives, or ignore what every one must see."""
    known: dict[str, tuple[int, ...] | None] = dict.fromkeys(given)
    taken: set[str] = set()
    for number, model in enumerate(models):
        for feature in model.inputs:
            if feature.name not in known and not feature.optional:
                have = "the first half does not give it" if number else f"only {', '.join(given)} are given"
                raise FormatError(
                    f"{model.path}: it needs the input {feature.name}, and {have}; another half, another kind of "
                    "UNet (SDXL, or one for ControlNet), or another converter's"
                )
            shape = known.get(feature.name)
            if shape and feature.shape and shape != feature.shape and not feature.flexible:
                raise FormatError(
                    f"{model.path}: input {feature.name} has shape {feature.shape}, but {models[number - 1].path} "
                    f"gives {shape}: halves of two models"
                )
            taken.add(feature.name)
        known |= {feature.name: feature.shape for feature in model.outputs}
    if ignored := [name for name in given if name not in taken]:
        there = ", ".join(feature.name for feature in models[0].inputs)
        raise FormatError(f"{models[0].path}: no input named {ignored[0]}; it has {there}")


def _output_names(name: str, model: coreml.Model, *, xl: bool) -> dict[str, str]:
    """Return the model's output for each tensor that a component gives."""
    outputs = [feature.name for feature in model.outputs]
    if kind(name) == "controlnet":
        found = {output: output for output in outputs if output.startswith("additional_residual_")}
        if not found:
            raise FormatError(f"{model.path}: no output additional_residual_0; it has {', '.join(outputs)}")
        return found
    if name in ("text_encoder", "text_encoder_2"):
        wanted = {"hidden": "hidden_embeds", "pooled": "pooled_outputs"} if xl else {"hidden": "last_hidden_state"}
        if absent := [feature for feature in wanted.values() if feature not in outputs]:
            other = "of Stable Diffusion 1 or 2" if xl else "an SDXL text encoder"
            raise FormatError(f"{model.path}: no output {absent[0]}; it has {', '.join(outputs)} ({other}?)")
        return wanted
    tensor = SIGNATURES[name].output
    if (feature := _OUTPUTS.get(tensor)) in outputs:
        return {tensor: str(feature)}
    if len(outputs) != 1:
        raise FormatError(f"{model.path}: a {name} has one output, this package has {', '.join(outputs)}")
    return {tensor: outputs[0]}


def _batches(batch: int, wanted: int) -> list[list[int]]:
    """Return the rows of each prediction: all at once, one by one, or in pairs [negative i, positive i]."""
    if batch == wanted:
        return [list(range(batch))]
    if wanted == 1:
        return [[row] for row in range(batch)]
    if wanted == 2 and batch == 1:
        return [[0, 0]]
    if wanted == 2 and batch % 2 == 0:
        return [[row, batch // 2 + row] for row in range(batch // 2)]
    raise UnsupportedError(f"a batch of {batch} cannot be run by a package with batch {wanted}")
