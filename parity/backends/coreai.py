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
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from parity import cache
from parity.backends import pytorch
from parity.backends.coreai_files import Given, file_of, find
from parity.backends.pytorch import TorchBackend
from parity.backends.registry import Subject
from parity.coreai import availability
from parity.coreai.process import Process
from parity.errors import MissingError, UnsupportedError, UsageError
from parity.files import replacing
from parity.models import source
from parity.models.content import folder_hash
from parity.networks.backend import Backend
from parity.networks.signature import Component, kind

UNITS = ("CPU", "GPU", "NEURAL_ENGINE")
PRECISIONS = ("float32", "float16")
_FINDINGS = "findings.json"  # beside a converted file: what its converter changed
_EDITION = 3  # raise it when parity.coreai.networks or the converter's settings change


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
        if self._files:
            path = file_of(self._files, name)
            if path is None:
                raise MissingError(
                    f"--models {self._subject.models}: no .aimodel for {name} (a name ending in {name}.aimodel); "
                    f"found: {', '.join(sorted(self._files))}"
                )
            return Given(name, Process(path, unit=self._unit))
        _folder(self._original, name)
        options: dict[str, Any] = {"precision": self.precision, "unit": self._unit}
        return _Converted(name, self._original, **options, progress=self._subject.progress)

    @cached_property
    def _original(self) -> TorchBackend:
        """PyTorch's networks, of which one at a time is loaded to be converted."""
        subject = self._subject
        return TorchBackend(
            _local(subject.location),
            precision=self.precision,
            controlnets=subject.controlnets,
            refiner=None if subject.refiner is None else _local(subject.refiner),
        )


def _folder(original: TorchBackend, name: str) -> Path:
    """Return where a network of the original lies.

    Raises
    ------
    MissingError
        The model has none, or no refiner or ControlNet was given.
    """
    if name == "multilingual_projection":
        raise UnsupportedError("Core AI: the adapter of Apple's multilingual text encoder is not converted")
    if found := pytorch.folder_of(original, name):
        return found
    raise MissingError(f"{original.location}: the model has no {name}; this task needs it")


def _local(location: str) -> Path:
    """Return the folder of a checkpoint; a hub id is downloaded, since its files' digests name what is converted."""
    return Path(location) if Path(location).is_dir() else source.folder_of(location)


class _Converted:
    """A network converted here, once for each set of shapes."""

    def __init__(
        self, name: str, original: TorchBackend, *, precision: str, unit: str | None, progress: Callable[[str], None]
    ) -> None:
        self.name = name
        self._original = original
        self._precision = precision
        self._unit = unit
        self._progress = progress
        self._processes: dict[tuple[Any, ...], Process] = {}

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        skipped = int(inputs["skip"][0]) if "skip" in inputs else 0
        inputs = {name: array for name, array in inputs.items() if name not in ("skip", "picture")}
        key = (skipped, *((name, array.shape) for name, array in inputs.items()))
        if key not in self._processes:
            for process in self._processes.values():
                process.close()  # one network's memory at a time
            self._processes[key] = Process(self._file(inputs, skipped), unit=self._unit)
        process = self._processes[key]
        features = next(iter(process.functions.values())).inputs
        outputs = process.run({feature.name: inputs[feature.name].astype(feature.dtype) for feature in features})
        return {name: array.astype(np.float32) for name, array in outputs.items()}

    def _file(self, inputs: dict[str, np.ndarray], skipped: int) -> Path:
        name = kind(self.name)
        key = cache.key(
            part=name,
            weights=folder_hash(_folder(self._original, self.name)),
            shapes={name: array.shape for name, array in inputs.items()},
            skipped=skipped,
            xl=self._original.xl,
            precision=self._precision,
            edition=_EDITION,
            versions=availability.versions() | _torch_version(),
        )
        path = cache.folder("coreai", key) / f"{name}.aimodel"
        with cache.locked(path.parent):
            if not (path.is_dir() and path.with_name(_FINDINGS).is_file()):  # the second is written last
                availability.require(convert=True)
                self._progress(f"converting {self.name} to Core AI (kept for later runs)")
                self._convert(inputs, skipped, path)
        _refuse_wrong(self.name, path)
        return path

    def _convert(self, inputs: dict[str, np.ndarray], skipped: int, path: Path) -> None:
        import torch

        from parity.coreai import converter, networks

        module = pytorch.module_of(self._original, self.name)
        layer: dict[str, Any] = {"xl": self._original.xl, "skipped": skipped}
        try:
            dtype = getattr(torch, self._precision)
            network = networks.network(self.name, module, inputs, dtype=dtype, **layer)
            staged = dtype == torch.float32  # in float16 the interpreter takes these means in float32 by itself
            made = converter.convert(network.module, network.inputs, path, outputs=network.outputs, staged=staged)
        finally:
            self._original.release()
        with replacing(path.with_name(_FINDINGS)) as scratch:
            scratch.write_text(json.dumps([str(finding) for finding in made.wrong]), encoding="utf-8")


def _refuse_wrong(name: str, path: Path) -> None:
    findings = json.loads(path.with_name(_FINDINGS).read_text(encoding="utf-8"))
    if findings:
        raise UnsupportedError(f"{name}: coreai-torch would compute something else: {'; '.join(findings)}")


def _torch_version() -> dict[str, str]:
    from importlib import metadata

    return {"torch": metadata.version("torch"), "diffusers": metadata.version("diffusers")}
