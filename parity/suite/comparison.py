"""Is this tensor the other one, within the tolerance, and if not: where, by how much, and what would have passed?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from parity import quiet
from parity.errors import ParityError
from parity.metrics import Metric, registry
from parity.suite.score import Score
from parity.suite.tolerance import Tolerance
from parity.suite.verdict import Verdict


@dataclass(frozen=True)
class Check:
    """The comparison of one point.

    Attributes
    ----------
    point : str
        What was compared, as tolerances name it.
    where : str
        The exact call, e.g. ``unet/step07/noise_pred``: the worst of those compared.
    metric : str
        Name of the metric, empty if nothing was compared.
    value, bound : float
        Measured value and its bound; NaN where unknown.
    verdict : Verdict
        Outcome.
    message : str
        For *fail* and *unknown*: all that a reader needs. Empty for *pass*, unless a known failure was seen.
    bad_input : bool
        Not compared because a file is damaged or belongs to another model: no run passes with it.
    score : Score, optional
        The error as a multiple of half precision's own, where that was measured.
    """

    point: str
    where: str
    metric: str
    value: float
    bound: float
    verdict: Verdict
    message: str
    bad_input: bool = False
    score: Score | None = None

    @property
    def margin(self) -> float:
        """Distance to the bound in the metric's unit, positive inside; NaN where unknown."""
        if not self.metric:
            return math.nan
        sign = 1.0 if registry.get(self.metric).higher_is_better else -1.0
        return sign * (self.value - self.bound) if self.value != self.bound else 0.0


def unknown(point: str, reason: str, *, bad_input: bool = False) -> Check:
    """Return a check that was not made, with its reason."""
    text = f"{point}: not compared: {reason}"
    return Check(point, point, "", math.nan, math.nan, Verdict.UNKNOWN, text, bad_input)


def judge(
    point: str,
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]],
    tolerances: Sequence[Tolerance],
    *,
    names: tuple[str, str],
) -> tuple[Check, ...]:
    """Compare several tensors at one point by every metric that a table asks for: one check a metric, all must pass.

    Parameters as :func:`worst`; ``tolerances`` as :func:`parity.suite.tolerance.find_all` gives them, none means
    *unknown*.
    """
    return tuple(worst(point, pairs, tolerance, names=names) for tolerance in tolerances or (None,))


def worst(
    point: str,
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]],
    tolerance: Tolerance | None,
    *,
    names: tuple[str, str],
) -> Check:
    """Compare several tensors at one point and report the worst of them.

    Parameters
    ----------
    point : str
        What is compared, as tolerances name it.
    pairs : mapping
        Where (e.g. ``unet/step07/noise_pred``) to reference and candidate; empty means *unknown*.
    tolerance : Tolerance or None
        The bound; None means *unknown*.
    names : (str, str)
        What reference and candidate are called in messages.
    """
    if not pairs:
        return unknown(point, "nothing was recorded at this point")
    if tolerance is None:
        return unknown(point, f"no tolerance in the table for {names[1]}; add one with --tolerances")
    return closest([one((point, where), *pair, tolerance, names=names) for where, pair in pairs.items()])


def closest(checks: Sequence[Check]) -> Check:
    """Return the check with the smallest margin; one without a margin is the worst."""
    return min(checks, key=lambda check: check.margin if not math.isnan(check.margin) else -math.inf)


def one(
    place: tuple[str, str],
    reference: np.ndarray,
    candidate: np.ndarray,
    tolerance: Tolerance,
    *,
    names: tuple[str, str],
) -> Check:
    """Compare two tensors by one bound.

    Parameters
    ----------
    place : (str, str)
        The point, as tolerances name it, and the exact call.
    reference, candidate : numpy.ndarray
        What is compared.
    tolerance : Tolerance
        The bound.
    names : (str, str)
        What the two are called in messages.
    """
    point, where = place
    metric = registry.get(tolerance.metric)
    if reference.shape != candidate.shape:
        text = f"{where}: shapes differ: {names[0]} {reference.shape}, {names[1]} {candidate.shape}"
        return Check(point, where, metric.name, math.nan, tolerance.bound, Verdict.FAIL, text)
    if bad := _not_finite(reference):
        text = (
            f"{where}: {names[0]} holds {bad} of {reference.size} values that are NaN or infinite by itself: nothing "
            "can be compared with it"
        )
        return Check(point, where, metric.name, math.nan, tolerance.bound, Verdict.FAIL, text)
    try:
        value = registry.measure(metric.name, reference, candidate)
    except ParityError as error:  # empty, another dtype, or a metric that broke: it costs no other metric, and fails
        text = f"{where}: cannot be measured: {error}"
        return Check(point, where, metric.name, math.nan, tolerance.bound, Verdict.FAIL, text)
    if metric.passes(value, tolerance.bound):
        return Check(point, where, metric.name, value, tolerance.bound, Verdict.PASS, "")
    text = _explain(where, reference, candidate, value, tolerance, names)
    return Check(point, where, metric.name, value, tolerance.bound, Verdict.FAIL, text)


def _not_finite(array: np.ndarray) -> int:
    return int(array.size - np.isfinite(array).sum()) if array.dtype.kind == "f" else 0


def _explain(
    where: str,
    reference: np.ndarray,
    candidate: np.ndarray,
    value: float,
    tolerance: Tolerance,
    names: tuple[str, str],
) -> str:
    metric = registry.get(tolerance.metric)
    relation = "below" if metric.higher_is_better else "above"
    headline = f"{where}: {metric.name} {metric.format(value)} is {relation} the bound {metric.format(tolerance.bound)}"
    lines = [headline, f"  bound from: {tolerance.measured}"]
    if bad := _not_finite(candidate):  # a reference that is not finite was refused before
        lines.append(f"  {names[1]} holds {bad} of {candidate.size} values that are NaN or infinite")
    difference = np.abs(quiet.float64(reference) - quiet.float64(candidate))
    index = np.unravel_index(int(difference.argmax()), reference.shape)  # NaN is the largest, and differs
    unequal = int(np.count_nonzero(difference))
    lines.append(
        f"  {unequal} of {reference.size} elements differ ({unequal / reference.size:.1%}), shape {reference.shape}"
    )
    lines.append(
        f"  worst at {tuple(int(i) for i in index)}: {names[0]} {_number(reference[index])}, "
        f"{names[1]} {_number(candidate[index])}"
    )
    lines.append(f"  would pass with bound {_loosened(value, metric)}")
    return "\n".join(lines)


def _loosened(value: float, metric: Metric) -> str:
    if math.isnan(value):
        return "none: values must be finite"
    if math.isinf(value):
        return metric.format(value)
    scale = 100 if metric.unit == "dB" else 10.0 ** (3 - math.ceil(math.log10(abs(value)))) if value else 1
    rounded = math.floor(value * scale) / scale if metric.higher_is_better else math.ceil(value * scale) / scale
    return metric.format(rounded)


def _number(value: np.generic) -> str:
    return f"{float(value):.9g}" if value.dtype.kind == "f" else str(value)


def messages(checks: Sequence[Check]) -> str:
    """Return the messages of everything that did not pass, failures first."""
    order = sorted(checks, key=lambda check: check.verdict is not Verdict.FAIL)
    return "\n".join(check.message for check in order if check.verdict is not Verdict.PASS)
