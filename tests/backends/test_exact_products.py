"""On CUDA a component computes float32 without TF32, and leaves the caller's settings as they were."""

from __future__ import annotations

import pytest

from parity.backends.pytorch import _exact_products


def _settings() -> tuple[bool, bool]:
    import torch

    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


def test_tf32_is_off_during_a_call_only() -> None:
    before = _settings()
    assert True in before, "torch's default has changed; the context is no longer needed"
    with _exact_products("cuda"):
        assert _settings() == (False, False)
    assert _settings() == before
    with pytest.raises(ValueError, match="stop"), _exact_products("cuda"):
        raise ValueError("stop")
    assert _settings() == before


def test_other_devices_are_left_alone() -> None:
    before = _settings()
    with _exact_products("cpu"):
        assert _settings() == before
