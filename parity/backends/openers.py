"""How are PyTorch and Core ML named as backends?

``torch[:DEVICE][:PRECISION]``, and ``coreml``, ``coreml:UNIT`` or ``coreml:reference[:PROFILE]``.
"""

from __future__ import annotations

from parity import coreml
from parity.backends.registry import Subject
from parity.errors import UsageError
from parity.networks.backend import Backend

_DEVICES, _PRECISIONS = ("cpu", "mps", "cuda"), ("float32", "float16", "bfloat16")


class Torch:
    """PyTorch on a device in a precision."""

    def resolve(self, words: tuple[str, ...]) -> str:
        """Return the numerics; the device must be here."""
        device, precision = self._read(words)
        from parity.backends.pytorch import TorchBackend

        return TorchBackend("", device=device, precision=precision).numerics

    def open(self, words: tuple[str, ...], subject: Subject) -> Backend:
        """Return the backend."""
        from parity.backends.pytorch import TorchBackend

        device, precision = self._read(words)
        return TorchBackend(
            subject.location,
            device=device,
            precision=precision,
            controlnets=subject.controlnets,
            refiner=subject.refiner,
        )

    def _read(self, words: tuple[str, ...]) -> tuple[str, str]:
        left = list(words)
        device = left.pop(0) if left and left[0] in _DEVICES else "cpu"
        precision = left.pop(0) if left and left[0] in _PRECISIONS else "float32"
        if left:
            raise UsageError(
                f"--backend torch:{':'.join(words)}: {left[0]!r} is not known; torch[:{'|'.join(_DEVICES)}]"
                f"[:{'|'.join(_PRECISIONS)}] is expected"
            )
        return device, precision


class CoreML:
    """Core ML on a compute unit, or the reference runtime with a numerics profile."""

    def resolve(self, words: tuple[str, ...]) -> str:
        """Return the numerics; compute units need macOS."""
        unit, runtime, profile = self._read(words)
        return coreml.resolve(runtime, unit, profile=profile)

    def open(self, words: tuple[str, ...], subject: Subject) -> Backend:
        """Return the backend over the user's packages, or packages converted now."""
        from parity.backends.coreml import CoreMLBackend

        unit, runtime, profile = self._read(words)
        return CoreMLBackend(subject.packages(), compute_unit=unit, runtime=runtime, profile=profile)

    def _read(self, words: tuple[str, ...]) -> tuple[str, str, str]:
        if not words:
            return "CPU_ONLY", "auto", "declared"
        if words[0] == "reference" and len(words) <= 2:
            return "CPU_ONLY", "reference", words[1] if len(words) == 2 else "declared"
        if words[0] in coreml.COMPUTE_UNITS and len(words) == 1:
            return words[0], "native", "declared"
        raise UsageError(
            f"--backend coreml:{':'.join(words)}: not known; coreml, coreml:{'|'.join(coreml.COMPUTE_UNITS)} or "
            "coreml:reference[:PROFILE] is expected"
        )
