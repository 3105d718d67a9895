"""What is known to go wrong where PyTorch computes, and how does an error there read in plain words?

Two tables of what others reported: wrong results that come without an error, by release of torch and system, and the
texts of errors with their causes. Silent ones stand as remarks in every cell that the device computes; none of them
was reproduced here, since no Apple GPU was at hand.
"""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from typing import Final

from packaging.version import Version


@dataclass(frozen=True)
class Silent:
    """Wrong results without an error.

    Attributes
    ----------
    says : str
        What happens.
    source : str
        Who reported it.
    remedy : str
        What helps.
    first, fixed : str
        Releases of torch: from the first on, up to below the one that is fixed; empty where there is no such bound.
    systems : (str, str)
        Releases of macOS: from the first on, up to below the second; empty texts where there is no such bound.
    precisions : tuple of str
        Precisions that it concerns.
    """

    says: str
    source: str
    remedy: str
    first: str = ""
    fixed: str = ""
    systems: tuple[str, str] = ("", "")
    precisions: tuple[str, ...] = ("float32", "float16", "bfloat16")

    def concerns(self, torch: str, system: str, precision: str) -> bool:
        """Tell whether it concerns a release of torch, of macOS (empty where unknown) and a precision."""
        return (
            precision in self.precisions
            and _within(torch, self.first, self.fixed)
            and (not any(self.systems) or (bool(system) and _within(system, *self.systems)))
        )


_HALVES: Final = ("float16", "bfloat16")

SILENT: Final[tuple[Silent, ...]] = (
    Silent(
        "pictures of SDXL are corrupted on macOS 27",
        "pytorch#187280",
        "torch 2.13 or later",
        fixed="2.13",
        systems=("27", ""),
        precisions=("float16",),
    ),
    Silent(
        "attention ignores the strides of short queries (8 or fewer tokens; heads of 64, 96 or 128)",
        "pytorch#163597",
        "another torch than 2.8.0",
        first="2.8",
        fixed="2.8.1",
    ),
    Silent(
        "attention over 1,024 and more keys reads beyond its memory: NaN, or another result each time",
        "pytorch#174861",
        "torch 2.11 or later",
        fixed="2.11",
    ),
    Silent(
        "softmax over more than 3,068 keys (pictures of 512x512: 4,096) is 0.4 to 2.4 % off in half precision",
        "pytorch, pull request 190791",
        "float32",
        precisions=_HALVES,
    ),
    Silent(
        "attention in float32 gives NaN on macOS 15",
        "pytorch, pull requests 132220 and 132190",
        "torch 2.5 or later",
        fixed="2.5",
        systems=("15", ""),
        precisions=("float32",),
    ),
    Silent(
        "random numbers written into arrays that are not contiguous are lost before macOS 15",
        "pytorch#165257",
        "torch 2.10 or later; the streams here are drawn elsewhere and are not concerned",
        fixed="2.10",
        systems=("", "15"),
    ),
)
"""Of torch on Apple GPUs, for the releases of torch that this project takes."""

ERRORS: Final[tuple[tuple[str, str], ...]] = (
    (
        r"(?i)mps.*float64|float64.*mps",
        (
            "Apple GPUs have no float64; everything that parity hands over is float32 or narrower, so a network's own "
            "constants or buffers are float64: convert the model to float32"
        ),
    ),
    (
        r"(?i)convert (mps|cuda)(:\d+)? device type tensor to numpy",
        (
            "NumPy reads the memory of the CPU only: the code that is named above needs .cpu() before .numpy(); "
            "diffusers of 2023 and 2024 had such places in its schedulers, a later release has not"
        ),
    ),
    (
        r"(?i)mps backend out of memory",
        (
            "the GPU shares the system's memory, of which torch takes a part: close what else needs it, or use "
            "float16. PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0 lifts the limit and lets the system swap"
        ),
    ),
    (r"(?i)cuda.*out of memory", "the GPU's memory is full: use float16, a smaller picture or fewer images"),
    (r"(?i)no kernel image is available", "this build of torch has no code for this GPU: install the one of its CUDA"),
    (
        r"(?i)not implemented for '(Half|BFloat16)'",
        "this release of torch has no such operation in half precision on this device: use float32, or a later torch",
    ),
    (r"(?i)not currently implemented for the mps device", "use a later torch, or the CPU (--device cpu)"),
)
"""Texts of errors, as regular expressions, and what they mean here."""


def remarks(device: str, precision: str, torch: str, system: str | None = None) -> tuple[str, ...]:
    """Return what is known to go wrong silently on a device, a sentence each.

    Parameters
    ----------
    device : str
        ``cpu``, ``mps`` or ``cuda``.
    precision : str
        ``float32``, ``float16`` or ``bfloat16``.
    torch : str
        Release of torch, e.g. ``2.8.0``.
    system : str, optional
        Release of macOS; this machine's by default.
    """
    if device != "mps":
        return ()
    where = platform.mac_ver()[0] if system is None else system
    known = [entry for entry in SILENT if entry.concerns(torch, where, precision)]
    return tuple(f"torch {torch} on mps: {each.says} ({each.source}); remedy: {each.remedy}" for each in known)


def explain(text: str) -> str:
    """Return what an error's text means, or nothing where it is not known.

    >>> explain("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")[:30]
    'Apple GPUs have no float64; ev'
    """
    return next((meaning for pattern, meaning in ERRORS if re.search(pattern, text)), "")


def _within(version: str, first: str, end: str) -> bool:
    release = Version(version)
    return (not first or release >= Version(first)) and (not end or release < Version(end))
