"""How many threads does a GPU run at once? On that number the CUDA stream depends beyond one grid.

Multiprocessors and most resident threads of one, as ``torch.cuda.get_device_properties`` reports them
(``multi_processor_count``, ``max_threads_per_multi_processor``). Launch grids or values that others published agree for
A10G, A100, H20, H100, H100-PCIe, L4, L40, L40S, RTX 3060, RTX 4090 D, RTX A4000 and T4; the others follow NVIDIA's
specifications and were not compared with a launch.
"""

from __future__ import annotations

import re
from difflib import get_close_matches

from parity.errors import UsageError

_TURING, _AMPERE, _FULL = 1024, 1536, 2048

DEVICES: dict[str, tuple[int, int]] = {
    "A2": (10, _AMPERE),
    "A10": (72, _AMPERE),
    "A10G": (80, _AMPERE),
    "A30": (56, _FULL),
    "A40": (84, _AMPERE),
    "A100": (108, _FULL),
    "B200": (148, _FULL),
    "GH200": (132, _FULL),
    "GTX-1080": (20, _FULL),
    "GTX-1080-Ti": (28, _FULL),
    "H20": (78, _FULL),
    "H100": (132, _FULL),
    "H100-PCIe": (114, _FULL),
    "H200": (132, _FULL),
    "H800": (132, _FULL),
    "L4": (58, _AMPERE),
    "L40": (142, _AMPERE),
    "L40S": (142, _AMPERE),
    "P40": (30, _FULL),
    "P100": (56, _FULL),
    "RTX-2060": (30, _TURING),
    "RTX-2070": (36, _TURING),
    "RTX-2070-Super": (40, _TURING),
    "RTX-2080": (46, _TURING),
    "RTX-2080-Super": (48, _TURING),
    "RTX-2080-Ti": (68, _TURING),
    "RTX-3060": (28, _AMPERE),
    "RTX-3060-Ti": (38, _AMPERE),
    "RTX-3070": (46, _AMPERE),
    "RTX-3070-Ti": (48, _AMPERE),
    "RTX-3080": (68, _AMPERE),
    "RTX-3080-Ti": (80, _AMPERE),
    "RTX-3090": (82, _AMPERE),
    "RTX-3090-Ti": (84, _AMPERE),
    "RTX-4060": (24, _AMPERE),
    "RTX-4060-Ti": (34, _AMPERE),
    "RTX-4070": (46, _AMPERE),
    "RTX-4070-Super": (56, _AMPERE),
    "RTX-4070-Ti": (60, _AMPERE),
    "RTX-4070-Ti-Super": (66, _AMPERE),
    "RTX-4080": (76, _AMPERE),
    "RTX-4080-Super": (80, _AMPERE),
    "RTX-4090": (128, _AMPERE),
    "RTX-4090-D": (114, _AMPERE),
    "RTX-5060-Ti": (36, _AMPERE),
    "RTX-5070": (48, _AMPERE),
    "RTX-5070-Ti": (70, _AMPERE),
    "RTX-5080": (84, _AMPERE),
    "RTX-5090": (170, _AMPERE),
    "RTX-6000-Ada": (142, _AMPERE),
    "RTX-A4000": (48, _AMPERE),
    "RTX-A5000": (64, _AMPERE),
    "RTX-A6000": (84, _AMPERE),
    "T4": (40, _TURING),
    "TITAN-RTX": (72, _TURING),
    "V100": (80, _FULL),
}
"""Multiprocessors and most resident threads of each, by model."""

_VENDOR = re.compile(r"\b(nvidia|geforce|tesla|quadro)\b|[\s_-]")
_BY_KEY = {_VENDOR.sub("", name.lower()): name for name in DEVICES}


def geometry(model: str) -> tuple[int, int]:
    """Return multiprocessors and most resident threads of a model.

    Parameters
    ----------
    model : str
        A name of :data:`DEVICES`, or such a name as ``torch.cuda.get_device_name`` writes it:
        ``NVIDIA GeForce RTX 4090``.

    Raises
    ------
    UsageError
        The model is not listed.
    """
    name = _BY_KEY.get(_VENDOR.sub("", model.lower()))
    if name is None:
        near = get_close_matches(_VENDOR.sub("", model.lower()), _BY_KEY, n=3, cutoff=0.5)
        listed = [_BY_KEY[key] for key in near] or list(DEVICES)
        raise UsageError(
            f"device {model!r} is not listed; {'nearest' if near else 'known'} are {', '.join(listed)}. Or give "
            "multiprocessors and threads: multi_processor_count and max_threads_per_multi_processor of "
            "torch.cuda.get_device_properties"
        )
    return DEVICES[name]
