"""Which metrics exist, and may this one compare these arrays?

Each metric's file holds its formula and declares its convention; this module lists them by name and checks the
arguments once for all of them. Other packages add metrics by entry point, see :mod:`parity.metrics.plugins`.
"""

from __future__ import annotations

import numpy as np

from parity.errors import UsageError
from parity.metrics import (
    coremltools_psnr,
    cosine,
    difference,
    flip,
    fuzzy,
    ml_stable_diffusion,
    plugins,
    psnr,
    snr,
    ssim,
    ssimulacra2,
    ulp,
    window,
)
from parity.metrics.metric import Metric, Takes
from parity.tables import nearest

_FILES = (
    psnr,
    window,
    flip,
    ssimulacra2,
    ssim,
    fuzzy,
    snr,
    difference,
    ulp,
    cosine,
    ml_stable_diffusion,
    coremltools_psnr,
)

METRICS: dict[str, Metric] = {metric.name: metric for file in _FILES for metric in file.METRICS}
"""The metrics of this package; see :func:`get` for those of others too."""


def names() -> list[str]:
    """Return the names of all metrics, those of other packages last; none of these is imported."""
    return [*METRICS, *sorted(set(plugins.offered()) - set(METRICS))]


def get(name: str) -> Metric:
    """Return a metric by name; a name of this package is never taken over by another one.

    Raises
    ------
    UsageError
        Unknown name; the message suggests the nearest and lists the known ones.
    MissingError
        A metric of another package that cannot be imported.
    """
    if name in METRICS:
        return METRICS[name]
    if name in plugins.offered():
        return plugins.load(name)
    raise UsageError(f"no metric named {name!r}{nearest(name, names())}; there are {', '.join(names())}")


def measure(name: str, reference: np.ndarray, candidate: np.ndarray) -> float:
    """Measure how far ``candidate`` is from ``reference``.

    Parameters
    ----------
    name : str
        See :func:`names`.
    reference, candidate : numpy.ndarray
        Equal shapes, never broadcast; not empty. Which dtypes a metric takes is stated by ``Metric.takes``.

    Returns
    -------
    float
        The value in the metric's unit; NaN if either side holds NaN or infinity (so that no bound is satisfied).

    Raises
    ------
    UsageError
        Unknown metric, shapes differ, empty arrays, dtypes that the metric does not take, a picture that is too small.
    MissingError
        The metric needs a library or weights that are not here.
    """
    metric = get(name)
    reference, candidate = np.asarray(reference), np.asarray(candidate)
    _check(metric, reference, candidate)
    if not (np.isfinite(reference).all() and np.isfinite(candidate).all()):
        return float("nan")
    if metric.takes is not Takes.FLOATS:
        reference, candidate = reference.astype(np.float64), candidate.astype(np.float64)
    with np.errstate(over="ignore"):  # a difference of two huge numbers is infinite, which each metric deals with
        return float(metric.function(reference, candidate))


def _check(metric: Metric, reference: np.ndarray, candidate: np.ndarray) -> None:
    name = metric.name
    if reference.shape != candidate.shape:
        raise UsageError(f"{name}: shapes differ: reference {reference.shape}, candidate {candidate.shape}")
    if reference.size == 0:
        raise UsageError(f"{name}: nothing to compare, both arrays are empty with shape {reference.shape}")
    for role, array in (("reference", reference), ("candidate", candidate)):
        if array.dtype.kind not in "biuf":
            raise UsageError(f"{name}: {role} has dtype {array.dtype}; real numbers are needed")
        if metric.images and (array.dtype != np.uint8 or array.ndim < 3 or array.shape[-1] != 3):
            raise UsageError(
                f"{name}: {role} is {array.dtype} {array.shape}; needed is an 8-bit picture (…, height, width, 3)"
            )
    if metric.images and min(reference.shape[-3:-1]) < metric.smallest:
        height, width = reference.shape[-3:-1]
        raise UsageError(f"{name}: a picture of {width}x{height}; at least {metric.smallest} pixels a side are needed")
    alike = reference.dtype == candidate.dtype and reference.dtype in (np.float16, np.float32, np.float64)
    if metric.takes is Takes.FLOATS and not alike:
        raise UsageError(f"{name}: dtypes {reference.dtype} and {candidate.dtype}; needed are {metric.takes}")
