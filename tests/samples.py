"""Where are files that this project did not write?

Real models are not shipped. Tests that want them take the folder that the environment variable ``PARITY_SAMPLES`` names
and are skipped, with that reason, where it names none.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "PARITY_SAMPLES"


def sample(name: str) -> Path:
    """Return a file or folder of the samples; skips the test when it is not at hand."""
    folder = os.environ.get(VARIABLE, "")
    if not folder:
        pytest.skip(f"{VARIABLE} names no folder of real models, which are not shipped")
    path = Path(folder, name)
    if not path.exists():
        pytest.skip(f"{VARIABLE}={folder} has no {name}")
    return path
