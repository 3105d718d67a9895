"""Metrics with declared conventions: what is compared, in which range, in which unit, which direction is better.

A threshold of "35 dB" does not travel between tools: peaks are taken from the reference, the candidate or a constant,
and means over all elements or over the first axis. Here each metric states its convention and its range, shapes and
dtypes are checked first, and everything is computed in float64 unless the metric says otherwise.

>>> import numpy as np
>>> black, grey = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 16, np.uint8)
>>> round(measure("image_psnr", black, grey), 2)  # 20 log10(255 / 16)
24.05
"""

from __future__ import annotations

from parity.metrics.metric import Metric, Takes
from parity.metrics.registry import METRICS, measure

__all__ = ["METRICS", "Metric", "Takes", "measure"]
