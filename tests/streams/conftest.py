"""What the installed torch is, looked at once."""

from __future__ import annotations

from typing import Any

import pytest

from parity.streams.detect import torch_cpu


@pytest.fixture(scope="session")
def torch_options() -> dict[str, Any]:
    """Options of ``torch-cpu`` for this machine; bit-exactness can only be asked for where they are known."""
    found = torch_cpu()
    if found.kernel is None or found.half_rule is None:
        pytest.skip(f"torch {found.version} on this machine follows no kernel that is re-created bit for bit")
    return dict(found.options())
