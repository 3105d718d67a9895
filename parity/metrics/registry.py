"""Which metrics exist, and what exactly does each of them mean?

One file per metric holds its formula; this module checks the arguments once for all of them and lists them by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from parity.errors import UsageError
from parity.metrics.cosine import cosine_distance
from parity.metrics.difference import max_abs, unequal_share
from parity.metrics.psnr import image_psnr, tensor_psnr
from parity.metrics.ssim import image_ssim


@dataclass(frozen=True)
class Metric:
    """A way to reduce two arrays of equal shape to one number.

    Attributes
    ----------
    name : str
        Name in tolerance tables and reports.
    unit : str
        Unit of the value, empty for pure numbers.
    higher_is_better : bool
        Direction; a bound is a minimum if true, else a maximum.
    symmetric : bool
        Whether swapping reference and candidate gives the same value.
    images : bool
        Whether arguments must be uint8 pictures.
    convention : str
        One sentence that another implementation needs to get the same number.
    function : callable
        ``function(reference, candidate)`` on float64 arrays of equal shape.
    """

    name: str
    unit: str
    higher_is_better: bool
    symmetric: bool
    images: bool
    convention: str
    function: Callable[[np.ndarray, np.ndarray], float]

    def passes(self, value: float, bound: float) -> bool:
        """Return whether a value satisfies a bound; NaN never does."""
        return bool(value >= bound if self.higher_is_better else value <= bound)

    def format(self, value: float) -> str:
        """Return the value with its unit, short enough for a table."""
        digits = f"{value:.2f}" if self.unit == "dB" else f"{value:.3g}"
        return f"{digits} {self.unit}".rstrip()


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "image_psnr",
            "dB",
            higher_is_better=True,
            symmetric=True,
            images=True,
            convention="20 log10(255 / rms) over all pixels and channels of 8-bit RGB; equal pictures give infinity",
            function=image_psnr,
        ),
        Metric(
            "image_ssim",
            "",
            higher_is_better=True,
            symmetric=True,
            images=True,
            convention="scikit-image structural_similarity, 8-bit RGB, data range 255, Gaussian weights sigma 1.5",
            function=image_ssim,
        ),
        Metric(
            "tensor_psnr",
            "dB",
            higher_is_better=True,
            symmetric=False,
            images=False,
            convention="20 log10(max |reference| / rms(reference - candidate)) over all elements",
            function=tensor_psnr,
        ),
        Metric(
            "cosine_distance",
            "",
            higher_is_better=False,
            symmetric=True,
            images=False,
            convention="1 - cosine of the angle between the flattened tensors",
            function=cosine_distance,
        ),
        Metric(
            "max_abs",
            "",
            higher_is_better=False,
            symmetric=True,
            images=False,
            convention="largest absolute difference of any element",
            function=max_abs,
        ),
        Metric(
            "unequal_share",
            "",
            higher_is_better=False,
            symmetric=True,
            images=False,
            convention="share of elements that are not equal; NaN differs from everything",
            function=unequal_share,
        ),
    )
}


def get(name: str) -> Metric:
    """Return a metric by name.

    Raises
    ------
    UsageError
        Unknown name; the message lists the known ones.
    """
    if name not in METRICS:
        raise UsageError(f"no metric named {name!r}; there are {', '.join(METRICS)}")
    return METRICS[name]


def measure(name: str, reference: np.ndarray, candidate: np.ndarray) -> float:
    """Measure how far ``candidate`` is from ``reference``.

    Parameters
    ----------
    name : str
        A key of :data:`METRICS`.
    reference, candidate : numpy.ndarray
        Equal shapes, never broadcast; not empty. Image metrics take uint8 ``(…, height, width, 3)`` only.

    Returns
    -------
    float
        The value in the metric's unit; NaN if either side holds NaN or infinity (so that no bound is satisfied).

    Raises
    ------
    UsageError
        Unknown metric, shapes differ, empty arrays, a dtype that is not real, or not a picture where one is needed.
    """
    metric = get(name)
    reference, candidate = np.asarray(reference), np.asarray(candidate)
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
    left, right = reference.astype(np.float64), candidate.astype(np.float64)
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        return float("nan")
    return float(metric.function(left, right))
