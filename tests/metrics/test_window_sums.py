"""The worst window, by its table of sums, is the worst of all windows taken one by one."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from parity.metrics import measure


@pytest.mark.parametrize("shape", [(40, 50), (16, 16), (17, 16), (16, 33), (9, 40), (40, 9), (5, 3)])
def test_the_worst_window_is_the_worst_of_all(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(sum(shape))
    a, b = (rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for _ in range(2))
    squares = np.square(a.astype(float) - b).sum(axis=-1)
    windows = sliding_window_view(squares, (min(16, shape[0]), min(16, shape[1])))
    worst = np.sqrt(windows.mean(axis=(-2, -1)).max() / 3)
    assert measure("image_window_rms", a, b) == pytest.approx(worst, rel=1e-12)


def test_a_fault_behind_other_differences_is_no_smaller_for_them() -> None:
    a = np.zeros((64, 64, 3), np.uint8)
    b = a.copy()
    b[:20, :20] = 30
    b[40:56, 40:56] = 50
    assert measure("image_window_rms", a, b) == 50
