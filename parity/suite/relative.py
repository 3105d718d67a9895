"""Is a float16 candidate as good as half precision by itself, on these very inputs?

Each call has a bound of its own: what half precision reaches there, less the factors of the table. So a check's value,
bound and margin are in the metric's unit as everywhere, and its score says the same as ratios. Tensors are judged by
rms (``tensor_psnr``) and by their largest error (``max_abs``), pictures by rms (``image_psnr``) and by their worst
window (``image_window_rms``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from parity.metrics import registry
from parity.suite import comparison
from parity.suite.comparison import Check
from parity.suite.factors import Factors
from parity.suite.score import Score, own_rounding, score
from parity.suite.tolerance import Tolerance
from parity.suite.verdict import Verdict

Triples = Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
"""Where (e.g. ``unet/step07/noise_pred``) to reference, half precision and candidate."""


def judge(point: str, triples: Triples, factors: Factors, *, names: tuple[str, str]) -> tuple[Check, ...]:
    """Compare a candidate's outputs with the reference's, as multiples of half precision's own error.

    Parameters
    ----------
    point : str
        What is compared, as tables name it.
    triples : mapping
        See :data:`Triples`; half precision's values are finite.
    factors : Factors
        What is allowed.
    names : (str, str)
        What reference and candidate are called in messages.

    Returns
    -------
    tuple of Check
        One for rms, one for the largest error: of each the call that is closest to failing.
    """
    if not triples:
        return (comparison.unknown(point, "nothing was recorded at this point"),)
    found = [_checks(point, where, *arrays, factors=factors, names=names) for where, arrays in triples.items()]
    return tuple(comparison.closest(checks) for checks in zip(*found, strict=True))


def scored(reference: np.ndarray, half: np.ndarray, candidate: np.ndarray, *, floor: float) -> Score | None:
    """Return the score, or None where one of the arrays does not allow it: another shape, empty, not finite."""
    alike = reference.shape == half.shape == candidate.shape and reference.size > 0
    if not alike or not all(np.isfinite(np.float64(value)).all() for value in (reference, half, candidate)):
        return None
    return score(reference, half, candidate, floor=floor)


def _checks(
    point: str,
    where: str,
    reference: np.ndarray,
    half: np.ndarray,
    candidate: np.ndarray,
    *,
    factors: Factors,
    names: tuple[str, str],
) -> tuple[Check, ...]:
    result = scored(reference, half, candidate, floor=factors.floor)
    checks = []
    comparable = reference.size > 0 and bool(np.isfinite(np.float64(reference)).all())
    for tolerance in bounds(point, reference, half, factors) if comparable else _no_bounds(point, reference):
        check = comparison.one((point, where), reference, candidate, tolerance, names=names)
        text = f"{check.message}\n  {result.sentence}" if result and check.verdict is Verdict.FAIL else check.message
        checks.append(replace(check, score=result, message=text))
    return tuple(checks)


def _no_bounds(point: str, reference: np.ndarray) -> tuple[Tolerance, Tolerance]:
    """Return what stands for bounds where the reference holds nothing to compare with; no value passes."""
    first, second = (Tolerance(point, each, math.nan, measured="no finite reference") for each in _metrics(reference))
    return first, second


def _metrics(reference: np.ndarray) -> tuple[str, str]:
    """Return by what rms and the largest error are judged, of a picture or of a tensor."""
    return ("image_psnr", "image_window_rms") if reference.dtype == np.uint8 else ("tensor_psnr", "max_abs")


def bounds(point: str, reference: np.ndarray, half: np.ndarray, factors: Factors) -> tuple[Tolerance, Tolerance]:
    """Return the bounds that half precision and the factors give: of rms, and of the largest error.

    Parameters
    ----------
    point : str
        As tables name it.
    reference, half : numpy.ndarray
        Equal shapes, finite.
    factors : Factors
        What is allowed.
    """
    by_rms, by_largest = _metrics(reference)
    own = score(reference, half, half, floor=factors.floor)
    least = max(own_rounding(reference).largest, factors.floor)
    largest = max(registry.measure(by_largest, reference, half), least)
    reached = (
        f"half precision by itself reaches {registry.get(by_rms).format(own.half)} here; "
        f"{factors.rms:g} times its error is allowed ({factors.measured})"
    )
    worst = (
        f"half precision by itself errs by {registry.get(by_largest).format(largest)} here; "
        f"{factors.largest:g} times that is allowed ({factors.measured})"
    )
    return (
        Tolerance(point, by_rms, own.half - 20 * math.log10(factors.rms), measured=reached),
        Tolerance(point, by_largest, largest * factors.largest, measured=worst),
    )
