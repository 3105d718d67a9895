"""Which of torch's kernels and rules does this machine's torch follow?

A known stream is drawn from the installed torch and compared with each candidate's. Needs torch; nothing else here
does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.errors import MissingError
from parity.streams.torch_cpu import TorchCPU
from parity.streams.torch_half import RULES, half_rule, release
from parity.streams.torch_platforms import KERNELS, SCALAR

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
        Release that stands for the rule whose float16 and bfloat16 values are equal, such as ``"2.13"``; None if none.
    fused : bool or None
        Whether std and mean are applied by one fused multiply-add, where that is not the kernel's default, as in wheels
        for arm64; None otherwise.
    """

    version: str
    kernel: str | None
    half_rule: str | None
    fused: bool | None = None

    def options(self) -> dict[str, Any]:
        """Options for ``streams.open("torch-cpu", …)`` that give this machine's stream, as far as they are known.

        The release is the installed one, whose other rules hold too, unless its half types follow another's.
        """
        version = ".".join(map(str, release(self.version)))
        options: dict[str, Any] = {"torch_version": version}
        if self.half_rule not in (None, half_rule(version)):
            options["torch_version"] = self.half_rule
        if self.kernel:
            options["kernel"] = self.kernel
        if self.fused is not None:
            options["fused"] = self.fused
        return options


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

    def same(dtype: str, kernel: str, version: str) -> bool:
        drawn = torch.randn(_COUNT, generator=torch.Generator().manual_seed(_SEED), dtype=getattr(torch, dtype))
        values = TorchCPU(_SEED, kernel=kernel, torch_version=version).normal(_COUNT, dtype=dtype)
        return np.array_equal(values.astype(np.float32), drawn.float().numpy())

    def same_scaled(**options: Any) -> bool:
        """In bulk and one by one, in float32 and float64."""
        stream, generator = TorchCPU(_SEED, **options), torch.Generator().manual_seed(_SEED)
        return all(
            np.array_equal(
                stream.normal(count, dtype=dtype, mean=0.3, std=2.7),
                torch.empty(count, dtype=getattr(torch, dtype)).normal_(0.3, 2.7, generator=generator).numpy(),
            )
            for dtype in ("float32", "float64")
            for count in (_COUNT, 8)
        )

    version = ".".join(map(str, release(torch.__version__)))
    kernel = next((name for name in KERNELS if same("float32", name, version)), None)
    rule = next((r for r in RULES if all(same(d, kernel or "libm", r) for d in ("float16", "bfloat16"))), None)
    fused = None
    if kernel in SCALAR and not same_scaled(kernel=kernel, torch_version=version):
        fused = next((f for f in (True, False) if same_scaled(kernel=kernel, torch_version=version, fused=f)), None)
    return TorchOnThisMachine(torch.__version__, kernel, rule, fused)
