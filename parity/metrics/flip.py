"""What would an eye notice that flips between two pictures? FLIP by NVIDIA, from the library ``flip-evaluator``.

Andersson et al. 2020, "FLIP: A Difference Evaluator for Alternating Images". LDR-FLIP for sRGB at 67.02 pixels per
degree (a 0.7 m wide screen of 3840 pixels seen from 0.7 m), the library's own default.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from parity.errors import MissingError
from parity.metrics.metric import Metric, Takes
from parity.metrics.pictures import pairs


def flip_mean(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Return the mean of FLIP's error map, 0 to 1; of several pictures the worst."""
    return max(_evaluate(a, b)[1] for a, b in pairs(reference, candidate))


def flip_max(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Return the largest value of FLIP's error map, 0 to 1: the most visible difference anywhere."""
    return max(float(_evaluate(a, b)[0].max()) for a, b in pairs(reference, candidate))


def error_map(reference: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """Return FLIP's error map of one pair of pictures.

    Parameters
    ----------
    reference, candidate : ndarray
        (height, width, 3), 8-bit values of any dtype.

    Returns
    -------
    ndarray
        float64 (height, width), 0 to 1.

    Raises
    ------
    MissingError
        The library is not installed.
    """
    return np.asarray(_evaluate(reference, candidate)[0], np.float64).reshape(reference.shape[:2])


def library() -> Any:
    """Return the module.

    Raises
    ------
    MissingError
        It is not installed; there is no wheel for Linux on ARM.
    """
    try:
        import flip_evaluator
    except ImportError as error:
        raise MissingError(
            f"flip_mean and flip_max need the library flip-evaluator ({error}): pip install flip-evaluator; "
            "where there is no wheel (Linux on ARM) this needs a C++ compiler"
        ) from None
    return flip_evaluator


def _evaluate(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, float]:
    left, right = (np.ascontiguousarray(x / 255.0, dtype=np.float32) for x in (a, b))
    errors, mean, _ = library().evaluate(left, right, "LDR", applyMagma=False)
    return errors, float(mean)


def _declare(name: str, convention: str, function: Any, equal: str) -> Metric:
    return Metric(
        name=name,
        higher_is_better=False,
        symmetric=True,
        takes=Takes.PICTURE,
        least=0.0,
        most=1.0,
        equal=equal,
        worst="1: green against blue; black against white is 0.967",
        convention=f"{convention} of LDR-FLIP's error map, 67.02 pixels per degree; of several pictures the worst",
        function=function,
        prepare=library,
    )


METRICS = (
    _declare("flip_mean", "mean", flip_mean, "0"),
    _declare("flip_max", "largest value", flip_max, "0"),
)
