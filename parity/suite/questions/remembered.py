"""Was a network asked this before? Then its answer is looked up.

Releases of one era ask the same networks the same: of the predictions that the compatibility matrix takes, more than
half were made for another release already. A program and a PyTorch module give the same outputs for the same inputs on
the reference runtime and on a CPU, so nothing changes but the time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from parity import coreml, mil
from parity.backends.coreml import CoreMLBackend
from parity.backends.pytorch import TorchBackend
from parity.networks.signature import Component

Tensors = Mapping[str, np.ndarray]
_LARGEST = 4 * 2**20
"""Bytes of an answer that is worth keeping: of SD 1.5 a ControlNet's residuals are 54 MB a call, a picture is 3."""


class RememberingModels(CoreMLBackend):
    """Converted models on the reference runtime that answer a second time from memory.

    Parameters
    ----------
    packages : mapping
        As for :class:`parity.backends.coreml.CoreMLBackend`.
    kept : dict
        Keeps loaded models and their answers, for other backends over the same programs.
    """

    def __init__(self, packages: Mapping[str, tuple[Path, ...]], kept: dict[Any, Any]) -> None:
        super().__init__(packages, runtime="reference", loaded=kept)
        self._kept = kept

    def _read(self, path: Path) -> coreml.Model:
        model = super()._read(path)
        return _Model(model, self._kept.setdefault(("answers", mil.load(path).program_digest()), {}))


class RememberingTorch(TorchBackend):
    """PyTorch's networks on the CPU that answer a second time from memory."""

    def _load(self, name: str) -> Component:
        return _Network(super()._load(name))


class _Network:
    """A component with a memory."""

    def __init__(self, component: Component) -> None:
        self.name = component.name
        self._component = component
        self._answers: dict[bytes, dict[str, np.ndarray]] = {}

    def __call__(self, inputs: Tensors) -> dict[str, np.ndarray]:
        return _looked_up(self._answers, inputs, self._component)


class _Model(coreml.Model):
    """A loaded model with a memory."""

    def __init__(self, model: coreml.Model, answers: dict[bytes, dict[str, np.ndarray]]) -> None:
        vars(self).update(vars(model))
        self._answers = answers

    def predict(self, inputs: Mapping[str, Any], *, state: Any = None) -> dict[str, Any]:
        assert state is None, "networks of diffusion models keep no state"
        return _looked_up(self._answers, inputs, super().predict)


def _looked_up(
    answers: dict[bytes, dict[str, np.ndarray]], inputs: Tensors, ask: Callable[[Tensors], Mapping[str, Any]]
) -> dict[str, np.ndarray]:
    """Return the outputs for these inputs: copies, so that nobody changes what is remembered."""
    key = digest(inputs)
    if key in answers:
        return {name: value.copy() for name, value in answers[key].items()}
    found = {name: np.array(value) for name, value in ask(inputs).items()}
    if sum(value.nbytes for value in found.values()) <= _LARGEST:
        answers[key] = {name: value.copy() for name, value in found.items()}
    return found


def digest(inputs: Tensors) -> bytes:
    """Return a digest of arrays: names, shapes, dtypes, layouts in memory and bytes.

    The layout belongs to it: torch's group norm rounds another way where channels lie last.

    >>> one = np.zeros(2, np.float32)
    >>> digest({"x": one}) == digest({"x": one.copy()}), digest({"x": one}) == digest({"y": one})
    (True, False)
    """
    found = blake2b(digest_size=16)
    for name in sorted(inputs):
        array = np.asarray(inputs[name])
        found.update(repr((name, array.shape, array.strides, array.dtype.str)).encode())
        found.update(np.ascontiguousarray(array).data)
    return found.digest()
