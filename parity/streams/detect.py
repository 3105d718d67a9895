"""Which of torch's kernels and rules does this machine's torch follow?

A known stream is drawn from the installed torch and compared with each candidate's. Needs torch; nothing else here
does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from parity.errors import MissingError
from parity.streams.torch_cpu import TorchCPU
from parity.streams.torch_half import release
from parity.streams.torch_platforms import KERNELS

_SEED, _COUNT = 93, 4096


@dataclass(frozen=True)
class TorchOnThisMachine:
    """What the installed torch does.

    Attributes
    ----------
    version : str
        ``torch.__version__``.
    kernel : str or None
        Name of the kernel whose float32 values are equal; None if none is.
    half_rule : str or None
        Newest release whose float16 and bfloat16 values are equal, such as ``"2.13"``; None if none is.
    """

    version: str
    kernel: str | None
    half_rule: str | None

    def options(self) -> dict[str, str]:
        """Options for ``streams.open("torch-cpu", …)`` that give this machine's stream, as far as they are known."""
        options = {"torch_version": self.half_rule or ".".join(map(str, release(self.version)))}
        return options | ({"kernel": self.kernel} if self.kernel else {})


def torch_cpu() -> TorchOnThisMachine:
    """Look at the installed torch.

    Raises
    ------
    MissingError
        torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingError("torch is not installed, so there is nothing to detect") from error

    def drawn(dtype: str) -> np.ndarray:
        generator = torch.Generator().manual_seed(_SEED)
        return torch.randn(_COUNT, generator=generator, dtype=getattr(torch, dtype)).float().numpy()

    def same(dtype: str, kernel: str, version: str) -> bool:
        stream = TorchCPU(_SEED, kernel=kernel, torch_version=version)
        return np.array_equal(stream.normal(_COUNT, dtype=dtype).astype(np.float32), drawn(dtype))

    version = ".".join(map(str, release(torch.__version__)))
    kernel = next((name for name in KERNELS if same("float32", name, version)), None)
    rules = (rule for rule in ("2.13", "2.12", "2.11", "2.0"))
    half_rule = next((r for r in rules if all(same(d, kernel or "libm", r) for d in ("float16", "bfloat16"))), None)
    return TorchOnThisMachine(torch.__version__, kernel, half_rule)
