"""What does half precision by itself cost this network on these inputs: the yardstick of a float16 candidate.

The yardstick is the original's own networks in float16, each operation rounded once
(:mod:`parity.backends.rounded`), on the inputs that the reference recorded. A candidate that errs about as much is
right, whatever the decibels; one that errs several times as much has a defect that no precision excuses
(:mod:`parity.suite.score`). Outputs are kept in the cache by digest of weights and inputs, so they are paid once.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from parity import cache
from parity.files import replacing
from parity.models.content import folder_hash
from parity.networks.signature import kind
from parity.pipelines.trace import Trace
from parity.suite.factors import Factors

if TYPE_CHECKING:
    from parity.backends.pytorch import TorchBackend

_VERSION = 1  # of what is computed; a change of it asks everything anew
Arrays = Mapping[str, np.ndarray]
Weights = Mapping[str, Mapping[str, np.ndarray]]
"""Network to parameters by name: those that compression changed."""


@dataclass(frozen=True)
class Half:
    """What half precision makes of one call.

    Attributes
    ----------
    outputs : mapping
        By the signature's names, float32 that hold float16 values.
    overflow : str
        Where it leaves float16's range; empty if it does not.
    """

    outputs: Arrays
    overflow: str = ""

    @property
    def finite(self) -> bool:
        """Whether all outputs are finite, so that half precision can be a yardstick."""
        return all(bool(np.isfinite(value).all()) for value in self.outputs.values())


@dataclass(frozen=True)
class Standard:
    """What a float16 candidate is judged by.

    Attributes
    ----------
    yardstick : Yardstick
        For networks.
    factors : sequence of Factors
        See :func:`parity.suite.factors.load`.
    drawn : callable
        Gives half precision's own run of the case, or the reason why there is none; called when it is needed.
    """

    yardstick: Yardstick
    factors: Sequence[Factors]
    drawn: Callable[[], Trace | str] = field(default=lambda: "no run of half precision was asked for")


class Yardstick:
    """Half precision's outputs of an original's networks, kept in memory and in the cache.

    Parameters
    ----------
    original : TorchBackend
        The float32 reference.
    weights : mapping of str to mapping of str to array
        Parameters that compression changed, by network.
    alone : callable, optional
        Where memory is short: makes all other backends forget their networks. Those of the yardstick are then
        forgotten after each call.
    """

    def __init__(
        self,
        original: TorchBackend,
        weights: Weights | None = None,
        *,
        alone: Callable[[TorchBackend], None] | None = None,
    ) -> None:
        self._original = original
        self._alone = alone
        self.weights = dict(weights or {})
        self._known: dict[str, Half] = {}
        self._backend: Any = None
        self._float32: Any = None

    def call(self, name: str, inputs: Arrays) -> Half:
        """Return what half precision makes of one call of a network.

        Parameters
        ----------
        name : str
            Network, see :mod:`parity.networks.signature`.
        inputs : mapping of str to array
            As the reference was given them.
        """
        part = self._part(name)
        key = cache.key(kind="call", network=kind(name), weights=part, inputs=digest(inputs), **_versions())
        if key not in self._known:
            kept = cache.folder("yardsticks", key) if part else None
            self._known[key] = _read(kept) or self._compute(name, inputs, kept)
        return self._known[key]

    def exact(self, name: str, inputs: Arrays) -> Arrays:
        """Return what float32 makes of one call of a network whose weights compression changed.

        What is lost by compression is no error of the program: it computes with the weights that it has.

        Parameters
        ----------
        name, inputs
            As :meth:`call`; the network is one of :attr:`weights`.
        """
        if self._float32 is None:
            from parity.backends.rounded import ReplacedBackend

            self._float32 = ReplacedBackend(self._original, weights=self.weights)
        return self._outputs(self._float32, name, inputs)

    def _outputs(self, backend: TorchBackend, name: str, inputs: Arrays) -> Arrays:
        if self._alone is None:
            return backend.component(name)(inputs)
        self._alone(backend)
        try:
            return backend.component(name)(inputs)
        finally:
            backend.release()

    def _compute(self, name: str, inputs: Arrays, kept: Path | None) -> Half:
        if self._backend is None:
            from parity.backends.rounded import RoundedBackend

            self._backend = RoundedBackend(self._original, weights=self.weights)
        self._backend.overflows.pop(name, None)
        outputs = self._outputs(self._backend, name, inputs)
        found = self._backend.overflows.get(name)
        half = Half(outputs, found.sentence if found else "")
        _write(kept, half)
        return half

    def run(self, settings: Mapping[str, Any], draw: Callable[[TorchBackend], Trace]) -> Trace | str:
        """Return the start and the picture of half precision's own run of a case, or why there is none.

        Parameters
        ----------
        settings : mapping
            All that decides the run beside the weights.
        draw : callable
            Runs the case on a backend.
        """
        location = Path(self._original.location)
        parts = sorted({path.parent for path in location.glob("*/config.json")}) if location.is_dir() else []
        hashes = [f"{part.name}:{folder_hash(part)}" for part in parts]
        replaced = {name: digest(values) for name, values in self.weights.items()}
        key = cache.key(kind="run", settings=settings, weights=hashes, replaced=replaced, **_versions())
        kept = cache.folder("yardsticks", key) if hashes else None
        known = _read(kept) or self._draw(draw, kept)
        return known.overflow or Trace(known.outputs)

    def _draw(self, draw: Callable[[TorchBackend], Trace], kept: Path | None) -> Half:
        from parity.backends.rounded import RoundedBackend

        # kernels decide the last digits of a run in any case: each step starts from the last one's
        backend = RoundedBackend(self._original, wide="float32", weights=self.weights)
        trace = draw(backend)
        overflow = "; ".join(f"{name}: {found.sentence}" for name, found in backend.overflows.items())
        half = Half({point: trace[point] for point in ("latents/initial", "image")}, overflow)
        _write(kept, half)
        return half

    def _part(self, name: str) -> str:
        """Digest a network's weights; empty where they are not in a folder, and then nothing is kept."""
        from parity.backends.pytorch import folder_of

        folder = folder_of(self._original, name)
        if folder is None:
            return ""
        replaced = digest(self.weights[name]) if name in self.weights else ""
        return f"{folder_hash(folder)}{replaced}"


def digest(arrays: Arrays) -> str:
    """Return the SHA-256 of arrays by name, dtype, shape and values."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        total.update(f"{name}:{value.dtype}:{value.shape}\n".encode() + value.tobytes())
    return total.hexdigest()


def _versions() -> dict[str, str]:
    found = {name: metadata.version(name) for name in ("torch", "diffusers", "transformers")}
    return {"version": str(_VERSION), **found}


def _read(path: Path | None) -> Half | None:
    if path is None or not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None  # damaged: it is computed again, and written anew
    overflow = str(arrays.pop("overflow"))
    return Half({name: v if v.dtype == np.uint8 else np.float32(v) for name, v in arrays.items()}, overflow)


def _write(path: Path | None, half: Half) -> None:
    if path is None:
        return
    with replacing(path) as scratch, scratch.open("wb") as file:
        np.savez(file, overflow=np.array(half.overflow), **half.outputs)  # type: ignore[arg-type]
