"""On which machine, under which system and versions does a run take place?

Nothing is imported to find out, and no host name is kept: reports are public.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Final

from parity.runs.schema import Provenance

PACKAGES: Final = ("torch", "diffusers", "transformers", "coremltools", "numpy", "coreai-core")
VARIABLES: Final = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "ATEN_CPU_CAPABILITY",
    "DNNL_MAX_CPU_ISA",
    "PYTORCH_ENABLE_MPS_FALLBACK",
    "PYTORCH_MPS_FAST_MATH",
)
"""Variables of the environment that change numbers or times of the libraries used."""

_PATIENCE: Final = 10  # seconds for a system's own tools


def provenance() -> Provenance:
    """Return what is known about this machine now."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    mac = sys.platform == "darwin"
    return Provenance(
        chip=_chip(),
        system=f"macOS {platform.mac_ver()[0]}" if mac else " ".join((platform.system(), *platform.libc_ver())),
        build=_said("sw_vers", "-buildVersion") if mac else platform.release(),
        architecture=platform.machine(),
        python=platform.python_version(),
        packages=versions,
        variables={name: os.environ[name] for name in VARIABLES if name in os.environ},
        commit=_commit(),
    )


def _chip() -> str:
    """Return the processor's name, e.g. ``Apple M2``; the architecture where no name is to be had."""
    if sys.platform == "darwin":
        return _said("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE):
            return " ".join(found[1].split())
    return platform.machine() or "unknown"


def _commit() -> str:
    """Return the commit of the checkout that this is run in, ``+`` behind it where files differ; empty outside one."""
    commit = _said("git", "rev-parse", "HEAD")
    return f"{commit}+" if commit and _said("git", "status", "--porcelain", "--untracked-files=no") else commit


def _said(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
