"""What does a run meet on a Mac? The platform's name, and a framework that computes on four units.

The project's stand-in takes the framework's place behind coremltools, as the native runtime of macOS would, and gives
each compute unit numerics of its own: the declared ones plus noise of a fixed size and seed. It proves the path from
the options to the verdicts, and nothing about Apple hardware.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np

from parity import quiet
from parity.coreml import proxies, shim
from parity.coreml.model_proxy import ModelProxy

NOISE = {"CPU_ONLY": 0.0, "CPU_AND_GPU": 0.0005, "CPU_AND_NE": 0.002, "ALL": 0.001}
"""Standard deviation of what each unit adds to an output, as a share of its largest value."""

_BROKEN = 0.3  # 10 dB: below every bound


@contextmanager
def pretended(*, defect: tuple[str, str] | None = None) -> Iterator[None]:
    """Take this process for one on macOS; ``defect`` is a unit, and a part of the name of a model that fails there."""

    class Proxy(ModelProxy):
        """The stand-in's model with the numerics of a unit."""

        def __init__(self, path: str, compute_units: str = "ALL", *others: Any) -> None:
            super().__init__(path, compute_units, *others)
            broken = defect is not None and defect[0] == compute_units and defect[1] in str(path)
            self._share = _BROKEN if broken else NOISE[compute_units]
            self._seed = zlib.crc32(compute_units.encode())

        def predict(self, data: Mapping[str, Any], state: Any = None) -> dict[str, Any]:
            return {name: self._changed(value) for name, value in super().predict(data, state).items()}

        def _changed(self, value: np.ndarray) -> np.ndarray:
            noise = np.random.default_rng(self._seed).standard_normal(value.shape)
            return (value + self._share * np.abs(value).max() * noise).astype(value.dtype)

    import diffusers  # noqa: F401 - what is imported now does not ask for the platform later
    import transformers  # noqa: F401

    quiet.coremltools()
    before = shim.installed()
    shim.uninstall()
    with mock.patch.object(sys, "platform", "darwin"):
        with mock.patch.dict(proxies.NATIVE_NAMES, {"_MLModelProxy": Proxy}):
            shim.install(force=True)
        try:
            yield
        finally:
            shim.uninstall()
    if before:
        shim.install()
