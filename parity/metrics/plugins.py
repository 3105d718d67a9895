"""Which metrics do other packages bring, and are they fit for use?

A package offers a metric under the entry point group ``parity.metrics``: the name is the metric's, the object a
:class:`parity.metrics.Metric`. Nothing is imported before a table or a caller names the metric, so one that is broken
costs no other; whoever names it gets an error with its name, the package and the cause.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

import numpy as np

from parity.errors import MissingError, ParityError, UsageError
from parity.metrics.metric import Function, Metric

GROUP = "parity.metrics"


@lru_cache(maxsize=1)
def offered() -> dict[str, tuple[EntryPoint, ...]]:
    """Return the entry points by name, without importing anything; two packages may offer the same name."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for point in entry_points(group=GROUP):
        found[point.name] = (*found.get(point.name, ()), point)
    return found


@lru_cache(maxsize=64)
def load(name: str) -> Metric:
    """Import an offered metric.

    Raises
    ------
    MissingError
        Its package cannot be imported, or says itself that something is missing.
    UsageError
        Two packages offer the name; the object is no metric, or one of another name.
    """
    points = offered()[name]
    sources = " and ".join(_source(point) for point in points)
    if len(points) > 1:
        raise UsageError(f"metric {name!r} is offered by {sources}; uninstall one of them")
    try:
        metric = points[0].load()
    except Exception as error:  # whatever a stranger's module raises while it is imported
        raise _broken(name, sources, "cannot be imported", error) from error
    if not isinstance(metric, Metric) or metric.name != name:
        raise UsageError(
            f"metric {name!r} ({sources}): the entry point must name a parity.metrics.Metric of that name, "
            f"not {metric!r:.80}"
        )
    return replace(metric, function=_guarded(metric, sources), prepare=lambda: _prepare(metric, sources))


def _prepare(metric: Metric, sources: str) -> None:
    try:
        metric.prepare()
    except Exception as error:
        raise _broken(metric.name, sources, "is not ready", error) from error


def _guarded(metric: Metric, sources: str) -> Function:
    def function(reference: np.ndarray, candidate: np.ndarray) -> float:
        try:
            value = float(metric.function(reference, candidate))
        except Exception as error:
            raise _broken(metric.name, sources, "failed", error) from error
        if not (math.isnan(value) or metric.least <= value <= metric.most):
            raise UsageError(f"metric {metric.name!r} ({sources}) gave {value:g}, outside its range {metric.range}")
        return value

    return function


def _source(point: EntryPoint) -> str:
    package = f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
    return f"{package}, {point.value}"


def _broken(name: str, sources: str, what: str, error: Exception) -> ParityError:
    cause = str(error) if isinstance(error, ParityError) else f"{type(error).__name__}: {error}"
    return MissingError(f"metric {name!r} ({sources}) {what}: {cause}; no other metric is affected")
