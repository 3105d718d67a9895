"""Core AI components: the user's ``.aimodel`` files, or the original's networks converted here.

On Linux Apple's packages contain an interpreter: what it computes is Apple's implementation and says nothing about
hardware; in float16 it is slow and rounds every product, so a float16 run there is no evidence about a device. On
macOS 27 the same lines use Core AI's compute units; *not verified on hardware*.

A converted network is kept in the cache by its weights, the shapes it was asked for, and the versions that made it.
Each network runs in a process of its own (:mod:`parity.coreai.process`).
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from parity import cache, quiet
from parity.backends.registry import Subject
from parity.coreai import availability
from parity.coreai.process import Process
from parity.errors import FormatError, MissingError, UnsupportedError, UsageError
from parity.files import replacing
from parity.networks.backend import Backend
from parity.networks.signature import SIGNATURES, Component, last_layer_only

UNITS = ("CPU", "GPU", "NEURAL_ENGINE")
PRECISIONS = ("float32", "float16")
_EDITION = 1  # raise it when parity.coreai.networks or the converter's settings change

# component -> how the names of users' files end, in lower case and without _ and -
_FILES = {
    "text_encoder": "textencoder",
    "unet": "unet",
    "vae_decoder": "vaedecoder",
    "vae_encoder": "vaeencoder",
}
# component's input -> other names that files give it
_ALIASES = {
    "hidden": ("encoder_hidden_states", "context"),
    "sample": ("x", "latents"),
    "timestep": ("t", "timesteps"),
    "latents": ("z", "sample"),
    "image": ("sample", "x"),
    "input_ids": ("tokens", "ids"),
}


class Opener:
    """``coreai[:UNIT][:PRECISION]``."""

    def resolve(self, words: tuple[str, ...]) -> str:
        """Return the numerics; Core AI's packages must be here, and macOS 27 for compute units."""
        unit, precision = self._read(words)
        availability.require()
        if unit is not None and not has_units():
            raise UnsupportedError(
                f"--backend coreai:{unit}: compute units need macOS 27; 'coreai' runs its interpreter"
            )
        if has_units():
            return f"Core AI {unit or 'default units'} ({precision})"
        return f"Core AI interpreter ({precision})"

    def open(self, words: tuple[str, ...], subject: Subject) -> Backend:
        """Return the backend over the user's files, or over networks converted here."""
        unit, precision = self._read(words)
        files = find(subject.models) if subject.models is not None else {}
        return CoreAIBackend(subject, self.resolve(words), files=files, precision=precision, unit=unit)

    def _read(self, words: tuple[str, ...]) -> tuple[str | None, str]:
        left = list(words)
        unit = left.pop(0) if left and left[0] in UNITS else None
        precision = left.pop(0) if left and left[0] in PRECISIONS else "float32"
        if left:
            raise UsageError(
                f"--backend coreai:{':'.join(words)}: {left[0]!r} is not known; coreai[:{'|'.join(UNITS)}]"
                f"[:{'|'.join(PRECISIONS)}] is expected"
            )
        return unit, precision


def has_units() -> bool:
    """Return whether Core AI's compute units are here: macOS 27 and later."""
    return sys.platform == "darwin" and int(platform.mac_ver()[0].split(".")[0] or 0) >= 27


def find(folder: Path) -> dict[str, Path]:
    """Return the ``.aimodel`` files of a folder by component; empty when it has none.

    Raises
    ------
    FormatError
        Two files for one component.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.aimodel")):
        bare = path.stem.lower().replace("_", "").replace("-", "")
        for component, ending in _FILES.items():
            if bare.endswith(ending):
                if component in found:
                    raise FormatError(
                        f"--models {folder}: two candidates for {component}: {found[component].name}, {path.name}"
                    )
                found[component] = path
    return found


class CoreAIBackend(Backend):
    """Core AI's networks.

    Parameters
    ----------
    subject : Subject
        The checkpoint; converted where ``files`` has no component of a name.
    numerics : str
        What :meth:`Opener.resolve` says.
    files : mapping of str to path
        The user's files. When there are any, nothing is converted.
    precision : str
        ``float32`` or ``float16``, of networks converted here.
    unit : str, optional
        macOS 27 only.
    """

    name = "coreai"

    def __init__(
        self, subject: Subject, numerics: str, *, files: Mapping[str, Path], precision: str, unit: str | None
    ) -> None:
        super().__init__()
        self.numerics = numerics
        self.precision = precision
        self._subject = subject
        self._files = dict(files)
        self._unit = unit

    def _load(self, name: str) -> Component:
        if name not in _FILES:
            raise UnsupportedError(f"Core AI runs {', '.join(_FILES)} here, not {name}")
        if not self._files:
            return _Converted(name, self._subject, precision=self.precision, unit=self._unit)
        if name not in self._files:
            raise MissingError(
                f"--models {self._subject.models}: no .aimodel for {name} (a name ending in {name}.aimodel); "
                f"found: {', '.join(sorted(self._files))}"
            )
        return _Given(name, Process(self._files[name], unit=self._unit))


class _Given:
    """A component in the user's file, with whatever names and batch it has."""

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self._process = process

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        last_layer_only(self.name, inputs)
        return {SIGNATURES[self.name].output: self._run(inputs)}

    def _run(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        (function,) = list(self._process.functions.values())[:1]
        names = _matched(self._process.path, inputs, [feature.name for feature in function.inputs])
        features = {names[feature.name]: feature for feature in function.inputs}
        count = next(iter(inputs.values())).shape[0]
        batch = next(iter(features.values())).shape[0] or count
        if count % batch:
            raise UnsupportedError(
                f"{self._process.path}: a batch of {count} cannot be run by a file with batch {batch}"
            )
        outputs = []
        for start in range(0, count, batch):
            part = {feature.name: inputs[key][start : start + batch] for key, feature in features.items()}
            outputs.append(next(iter(self._process.run(part).values())))
        return np.concatenate(outputs).astype(np.float32)


def _matched(path: Path, inputs: Mapping[str, np.ndarray], names: list[str]) -> dict[str, str]:
    """Match a file's inputs with the component's, by name; where no name is known, by order."""
    if len(names) != len(inputs):
        raise FormatError(f"{path}: inputs {', '.join(names)}; {len(inputs)} are needed: {', '.join(inputs)}")
    matched = {name: key for name in names for key in inputs if name == key or name in _ALIASES.get(key, ())}
    if sorted(matched.values()) != sorted(inputs):
        matched = dict(zip(names, inputs, strict=True))
    return matched


class _Converted:
    """A component converted here, once for each set of shapes."""

    def __init__(self, name: str, subject: Subject, *, precision: str, unit: str | None) -> None:
        self.name = name
        self._subject = subject
        self._precision = precision
        self._unit = unit
        self._processes: dict[tuple[tuple[int, ...], ...], Process] = {}
        self._module: Any = None

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        last_layer_only(self.name, inputs)
        names = SIGNATURES[self.name].inputs
        if further := [name for name in inputs if name not in names]:
            raise UnsupportedError(
                f"Core AI: a {self.name} that takes {further[0]} (SDXL, ControlNet) is not converted"
            )
        key = tuple(inputs[name].shape for name in names)
        if key not in self._processes:
            for process in self._processes.values():
                process.close()  # one network's memory at a time
            self._processes[key] = Process(self._file({name: inputs[name] for name in names}), unit=self._unit)
        process = self._processes[key]
        features = next(iter(process.functions.values())).inputs
        (output,) = process.run({f.name: inputs[f.name].astype(f.dtype) for f in features}).values()
        return {SIGNATURES[self.name].output: output.astype(np.float32)}

    def _file(self, inputs: dict[str, np.ndarray]) -> Path:
        from parity.models import source

        opened = source.open_model(self._subject.location)
        part = "vae" if self.name.startswith("vae_") else self.name
        key = cache.key(
            part=self.name,
            weights=opened.fingerprint(part),
            shapes={name: array.shape for name, array in inputs.items()},
            precision=self._precision,
            edition=_EDITION,
            versions=availability.versions() | _torch_version(),
        )
        path = cache.folder("coreai", key) / f"{self.name}.aimodel"
        with cache.locked(path.parent):
            if not path.is_dir():
                availability.require(convert=True)
                self._subject.progress(f"converting {self.name} to Core AI (kept for later runs)")
                self._convert(opened.module(part), inputs, path)
        _refuse_wrong(self.name, path)
        return path

    def _convert(self, module: Any, inputs: dict[str, np.ndarray], path: Path) -> None:
        import torch

        from parity.coreai import converter, networks

        dtype = getattr(torch, self._precision)
        if dtype != torch.float32:
            with quiet.loading():
                module = module.to(dtype)
        network = networks.component(self.name, module, inputs, dtype=dtype)
        made = converter.convert(network.module, network.inputs, path, outputs=network.outputs)
        with replacing(path.with_name("findings.json")) as scratch:
            scratch.write_text(json.dumps([str(finding) for finding in made.wrong]), encoding="utf-8")


def _refuse_wrong(name: str, path: Path) -> None:
    findings = json.loads(path.with_name("findings.json").read_text(encoding="utf-8"))
    if findings:
        raise UnsupportedError(f"{name}: coreai-torch would compute something else: {'; '.join(findings)}")


def _torch_version() -> dict[str, str]:
    from importlib import metadata

    return {"torch": metadata.version("torch"), "diffusers": metadata.version("diffusers")}
