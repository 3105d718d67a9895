"""What the installed torch is, looked at once; other producers, where this machine has them."""

from __future__ import annotations

import importlib
import importlib.metadata
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


def _producer(module: str, distribution: str, oldest: tuple[int, int]) -> Any:
    """Import a producer, or skip with the reason why it cannot be compared with."""
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        pytest.skip(f"{distribution} has no wheel for this machine, or is not installed ({error})")
    version = importlib.metadata.version(distribution)
    if tuple(int(part) for part in version.split(".")[:2]) < oldest:
        pytest.skip(f"{distribution} {version}: compared with {'.'.join(map(str, oldest))} and later")
    return found


@pytest.fixture(scope="session")
def mx() -> Any:
    """``mlx.core``."""
    return _producer("mlx.core", "mlx", (0, 29))


@pytest.fixture(scope="session")
def jax() -> Any:
    """``jax``, on the CPU."""
    jax = _producer("jax", "jax", (0, 4))
    jax.config.update("jax_platforms", "cpu")
    return jax


@pytest.fixture(scope="session")
def torchsde() -> Any:
    """``torchsde``."""
    return _producer("torchsde", "torchsde", (0, 2))


@pytest.fixture(scope="session")
def numba() -> Any:
    """``numba``."""
    return _producer("numba", "numba", (0, 60))
