"""Core ML components from converted packages: which file is which, and what do their features mean?

A package's feature names, layouts and batch are those of the ml-stable-diffusion contract (docs/contracts.md): the UNet
takes a batch of two [negative, positive] and its context as (batch, width, 1, tokens), the others a batch of one. The
components here have the pipelines' names and any batch. Shapes are checked before anything is run, so a package of
another model is refused with both shapes in the message.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from parity import coreml
from parity.backends.base import Backend
from parity.errors import FormatError, MissingError, UnsupportedError
from parity.pipelines.components import SIGNATURES, Component

# component -> endings of package names that converters wrote, and compiled names of Swift resources
FILE_NAMES: dict[str, tuple[str, ...]] = {
    "text_encoder": ("_text_encoder.mlpackage", "TextEncoder.mlmodelc"),
    "unet": ("_unet.mlpackage", "Unet.mlmodelc"),
    "vae_decoder": ("_vae_decoder.mlpackage", "VAEDecoder.mlmodelc"),
    "vae_encoder": ("_vae_encoder.mlpackage", "VAEEncoder.mlmodelc"),
}


def find(folder: Path) -> dict[str, Path]:
    """Find the components in a folder of converted models, or in its ``Resources`` folder.

    Raises
    ------
    MissingError
        No such folder, or no component of Stable Diffusion in it.
    FormatError
        Two packages for one component.
    """
    if not folder.is_dir():
        raise MissingError(f"--models {folder}: no such folder")
    found: dict[str, Path] = {}
    for path in sorted([*folder.iterdir(), *(folder / "Resources").glob("*")]):
        for component, endings in FILE_NAMES.items():
            if path.name.endswith(endings) and (path.suffix == ".mlpackage" or component not in found):
                if component in found and found[component].suffix == path.suffix:
                    raise FormatError(
                        f"--models {folder}: two candidates for {component}: {found[component].name} and {path.name}; "
                        "keep the models of one checkpoint in a folder"
                    )
                found[component] = path
    if not found:
        raise MissingError(
            f"--models {folder}: no converted model in it; expected names such as "
            "Stable_Diffusion_version_…_unet.mlpackage or Unet.mlmodelc"
        )
    return found


class CoreMLBackend(Backend):
    """Converted packages on one compute unit of one runtime.

    Parameters
    ----------
    packages : mapping
        Component name to ``.mlpackage`` or ``.mlmodelc``.
    compute_unit : str
        One of :data:`parity.coreml.COMPUTE_UNITS`.
    runtime : str
        ``auto``, ``native`` or ``reference``.

    Raises
    ------
    UsageError, UnsupportedError
        Unknown unit or runtime; the native runtime away from macOS.
    """

    name = "coreml"
    precision = "float16"

    def __init__(self, packages: Mapping[str, Path], *, compute_unit: str = "CPU_ONLY", runtime: str = "auto") -> None:
        super().__init__()
        self.packages = dict(packages)
        self.compute_unit = compute_unit
        self.runtime = runtime
        self.numerics = coreml.resolve(runtime, compute_unit)

    def _load(self, name: str) -> Component:
        if name not in self.packages:
            there = ", ".join(sorted(self.packages)) or "none"
            raise MissingError(
                f"no converted {name} among the models (found: {there}); "
                f"expected a name ending in {FILE_NAMES[name][0]}"
            )
        path = self.packages[name]
        return _CoreMLComponent(name, path, coreml.load(path, compute_unit=self.compute_unit, runtime=self.runtime))


class _CoreMLComponent:
    def __init__(self, name: str, path: Path, model: Any) -> None:
        self.name = name
        self._path = path
        self._model = model
        self._features = {feature.name: feature for feature in model.inputs}
        self._output = _output_name(name, path, model)

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        features = self._translate(inputs)
        batch = next(iter(features.values())).shape[0]
        wanted = next(iter(self._features.values())).shape[0]
        outputs = [self._predict({n: a[rows] for n, a in features.items()}) for rows in _batches(batch, wanted)]
        if wanted == 1 or batch == wanted:
            return np.concatenate(outputs)
        if batch == 1:  # guidance is off, the package takes two: the row was doubled
            return outputs[0][:1]
        return np.concatenate([output[half : half + 1] for half in range(2) for output in outputs])

    def _translate(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self.name == "unet":
            context = inputs["hidden"].transpose(0, 2, 1)[:, :, None, :]  # (batch, width, 1, tokens)
            return {"sample": inputs["sample"], "timestep": inputs["timestep"], "encoder_hidden_states": context}
        if len(self._features) != 1:
            raise UnsupportedError(
                f"{self._path}: a {self.name} with inputs {', '.join(self._features)}; one input is needed. Encoders "
                "of ml-stable-diffusion 0.2.0 and 0.3.0 have five: run 'parity repair' on the folder"
            )
        return {next(iter(self._features)): inputs[SIGNATURES[self.name].inputs[0]]}

    def _predict(self, features: dict[str, np.ndarray]) -> np.ndarray:
        typed: dict[str, np.ndarray] = {}
        for name, array in features.items():
            feature = self._features.get(name)
            if feature is None:
                raise FormatError(f"{self._path}: no input named {name}; it has {', '.join(self._features)}")
            if tuple(feature.shape) != array.shape:
                raise FormatError(
                    f"{self._path}: input {name} has shape {tuple(feature.shape)} in the package, but the model's "
                    f"pipeline gives {array.shape}: this package belongs to another model or size"
                )
            typed[name] = array.astype(feature.dtype)
        return np.asarray(self._model.predict(typed)[self._output], dtype=np.float32)


def _output_name(name: str, path: Path, model: Any) -> str:
    outputs = [feature.name for feature in model.outputs]
    if name == "text_encoder":
        if "last_hidden_state" not in outputs:
            raise FormatError(
                f"{path}: no output last_hidden_state; it has {', '.join(outputs)} (an SDXL text encoder?)"
            )
        return "last_hidden_state"
    if len(outputs) != 1:
        raise FormatError(f"{path}: a {name} has one output, this package has {', '.join(outputs)}")
    return outputs[0]


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
