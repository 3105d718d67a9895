"""Element-wise differences: the largest, quantiles of them, and how many there are."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from parity.metrics.metric import Metric, Takes


def max_abs(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Return the largest absolute difference of any element."""
    return float(np.max(np.abs(reference - candidate)))


def quantile_abs(reference: np.ndarray, candidate: np.ndarray, *, q: float) -> float:
    """Return the least absolute difference that a share ``q`` of the elements does not exceed.

    It is the difference of one of the elements, never a value between two of them (NumPy's ``inverted_cdf``).
    """
    return float(np.quantile(np.abs(reference - candidate), q, method="inverted_cdf"))


def unequal_share(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Return the share of elements that differ, 0 to 1."""
    return float(np.mean(reference != candidate))


def _quantile(name: str, q: float) -> Metric:
    return Metric(
        name=name,
        higher_is_better=False,
        symmetric=True,
        takes=Takes.REAL,
        least=0.0,
        most=math.inf,
        equal="0; so has a difference in fewer elements than the share left out",
        worst="without end",
        convention=f"least absolute difference that {q:.1%} of the elements do not exceed",
        function=partial(quantile_abs, q=q),
    )


METRICS = (
    Metric(
        name="max_abs",
        higher_is_better=False,
        symmetric=True,
        takes=Takes.REAL,
        least=0.0,
        most=math.inf,
        equal="0",
        worst="without end",
        convention="largest absolute difference of any element",
        function=max_abs,
    ),
    _quantile("abs_p50", 0.5),
    _quantile("abs_p99", 0.99),
    _quantile("abs_p999", 0.999),
    Metric(
        name="unequal_share",
        higher_is_better=False,
        symmetric=True,
        takes=Takes.REAL,
        least=0.0,
        most=1.0,
        equal="0",
        worst="1: every element differs",
        convention="share of elements that are not equal; -0 equals 0",
        function=unequal_share,
    ),
)
