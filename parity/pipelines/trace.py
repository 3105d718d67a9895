"""The one thing that every run produces and every comparison reads: named tensors at named points.

Points are named by who made the value: ``text_encoder/prompt/hidden``, ``unet/step07/noise_pred``, ``latents/step07``,
``vae_decoder/final/image``, ``image``. A component's inputs are recorded beside its output, so a trace also says what
each network was asked: feeding those inputs to another backend's component is teacher forcing.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from parity.errors import FormatError, MissingError
from parity.files import refuse_pointer, replacing
from parity.networks.signature import SIGNATURES, kind

# of files that are no archive, cut, changed, compressed in other ways, encrypted, or that claim more than fits
_DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    AttributeError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)


class Trace(Mapping[str, np.ndarray]):
    """Named tensors in the order in which a run produced them.

    Instances are observers (:data:`parity.networks.signature.Observe`): call them with a point and its value. Values
    are kept, not copied; nobody modifies them.
    """

    def __init__(self, points: Mapping[str, np.ndarray] | None = None) -> None:
        self._points: dict[str, np.ndarray] = dict(points or {})

    def __call__(self, point: str, value: np.ndarray) -> None:
        self._points[point] = value

    def __getitem__(self, point: str) -> np.ndarray:
        return self._points[point]

    def __iter__(self) -> Iterator[str]:
        return iter(self._points)

    def __len__(self) -> int:
        return len(self._points)

    def calls(self, component: str) -> dict[str, dict[str, np.ndarray]]:
        """Return the recorded inputs of each call of a component: label (``step07``) to named tensors.

        Raises
        ------
        FormatError
            A call lacks an input: the trace holds chosen points only, or is another version's.
        """
        signature = SIGNATURES[kind(component)]
        found = self._tensors(component, signature.takes)
        for label in {**found, **self._tensors(component, signature.gives)}:
            for name in signature.inputs:
                if name not in found.get(label, {}):
                    raise FormatError(
                        f"the trace has no {component}/{label}/{name}: without its inputs a network cannot be run again"
                    )
        return found

    def outputs(self, component: str) -> dict[str, dict[str, np.ndarray]]:
        """Return the recorded outputs of each call of a component: label to named tensors."""
        return self._tensors(component, SIGNATURES[kind(component)].gives)

    @property
    def components(self) -> tuple[str, ...]:
        """The components that were called, in the order of their first calls."""
        called = dict.fromkeys(point.split("/")[0] for point in self._points if point.count("/") == 2)
        return tuple(called)

    def _tensors(self, component: str, wanted: Callable[[str], bool]) -> dict[str, dict[str, np.ndarray]]:
        found: dict[str, dict[str, np.ndarray]] = {}
        for point, value in self._points.items():
            owner, _, rest = point.partition("/")
            label, _, tensor = rest.partition("/")
            if owner == component and tensor and wanted(tensor):
                found.setdefault(label, {})[tensor] = value
        return found

    def save(self, path: Path, points: list[str] | None = None) -> None:
        """Write chosen points (all by default) to a compressed ``.npz``."""
        chosen = {point: self._points[point] for point in points or self._points}
        with replacing(path) as scratch, scratch.open("wb") as file:
            np.savez_compressed(file, **chosen)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> Trace:
        """Read a saved trace.

        Raises
        ------
        MissingError, FormatError
            No such file; not a readable archive of arrays (pickled objects are refused).
        """
        refuse_pointer(path)
        try:
            with np.load(path, allow_pickle=False) as archive:
                return cls({name: archive[name] for name in archive.files})
        except FileNotFoundError:
            raise MissingError(f"{path}: no such trace") from None
        except _DAMAGE as error:
            raise FormatError(f"{path}: not a readable trace (.npz of arrays): {error}") from None
