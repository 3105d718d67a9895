"""How much do a model's own figures spread, and which bounds follow from that?

Cells are asked again with other seeds, as often as the user says, and each check's figure is kept: one sample a cell,
point and metric (of many calls the worst, as a run judges it). A bound is the limit that the next figure passes with a
stated rate of false alarms, if figures are spread normally (decibels are; a largest error is in its logarithm):
mean - t * deviation * sqrt(1 + 1/n), with Student's t for n - 1 degrees of freedom. Beside it stands what leaving out
each seed in turn found: how many of its figures fail a bound made from the others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from parity.metrics import registry
from parity.suite import plan
from parity.suite.comparison import Check
from parity.suite.evaluate import Evaluator
from parity.suite.options import Options
from parity.suite.plan import Cell
from parity.suite.tolerance import Tolerance

LEAST = 4
"""Samples from which a bound can be made."""
_WRITTEN = 1e-5  # relative: a table has six figures of a bound, and what does not spread must pass its own


@dataclass(frozen=True)
class Sample:
    """One figure.

    Attributes
    ----------
    point, metric, numerics : str
        What was measured, as tables name it.
    seed : int
        Of the case.
    kernels : str
        torch's kernels, e.g. ``AVX2``.
    case, scheduler : str
        The case.
    value : float
        In the metric's unit.
    half, rms, largest, overlap : float
        Score against half precision; NaN where there is none.
    """

    point: str
    metric: str
    numerics: str
    seed: int
    kernels: str
    case: str
    scheduler: str
    value: float
    half: float = math.nan
    rms: float = math.nan
    largest: float = math.nan
    overlap: float = math.nan


@dataclass(frozen=True)
class Spread:
    """What was found for one point, metric and numerics.

    Attributes
    ----------
    point, metric, numerics : str
        As tables name them.
    count : int
        Number of samples.
    best, worst : float
        Ends of what was seen.
    bound : float
        See the module.
    left_out : int
        How many samples fail the bound that samples of other seeds give.
    rms : float
        Largest ratio to half precision's error; NaN where there is none.
    """

    point: str
    metric: str
    numerics: str
    count: int
    best: float
    worst: float
    bound: float
    left_out: int
    rms: float


def samples(
    options: Options,
    seeds: Sequence[int],
    progress: Callable[[str], None] = lambda text: None,
    *,
    absolute: bool = False,
) -> Iterator[Sample]:
    """Ask the candidate cells of a run with several seeds; give a sample for each figure.

    Parameters
    ----------
    options : Options
        The run.
    seeds : sequence of int
        Each case is asked with each of them.
    progress : callable
        Told what is going on.
    absolute : bool
        Give as value the worst of each point as a row of a table judges it; each cell is asked once more for that.

    Raises
    ------
    ParityError
        A cell cannot be asked: a bound that leaves it out would be a guess.
    """
    evaluator = Evaluator(options, progress)
    bounds = evaluator.tolerances
    for seed in seeds:
        for cell in plan.cells(replace(options, seed=seed, compatibility="none")):
            if cell.kind == "candidate" and not cell.unavailable and cell.backend != "coreai":
                checks = [check for check in evaluator.evaluate(cell).checks if _measured(check)]
                found = [_sample(cell, check) for check in checks]
                if absolute:  # as a user's rows will be: half precision names another call as the worst
                    rows = [Tolerance(c.point, c.metric, c.bound, measured="", own=True) for c in checks]
                    evaluator.tolerances = [*rows, *bounds]
                    worst = {(check.point, check.metric): check.value for check in evaluator.evaluate(cell).checks}
                    evaluator.tolerances = bounds
                    found = [replace(each, value=worst[each.point, each.metric]) for each in found]
                yield from found


def _measured(check: Check) -> bool:
    return bool(check.metric) and check.point != "latents/initial"


def _sample(cell: Cell, check: Check) -> Sample:
    import torch

    score = {} if check.score is None else asdict(check.score)
    return Sample(
        point=check.point,
        metric=check.metric,
        numerics=cell.numerics,
        seed=cell.case.seed,
        kernels=torch.backends.cpu.get_cpu_capability(),
        case=cell.case.name,
        scheduler=cell.case.request.scheduler,
        value=check.value,
        **score,
    )


def spreads(found: Iterable[Sample], rate: float) -> list[Spread]:
    """Return a bound for each point, metric and numerics.

    Parameters
    ----------
    found : iterable of Sample
        From :func:`samples`.
    rate : float
        Rate of false alarms for one check, e.g. 0.01.

    Raises
    ------
    ValueError
        A rate that is not between 0 and 1/2.
    """
    if not 0 < rate < 0.5:
        raise ValueError(f"a rate of false alarms lies between 0 and 0.5, not at {rate:g}")
    groups: dict[tuple[str, str, str], list[Sample]] = {}
    for sample in found:
        groups.setdefault((sample.point, sample.metric, sample.numerics), []).append(sample)
    return [_spread(key, group, rate) for key, group in groups.items()]


def _spread(key: tuple[str, str, str], group: Sequence[Sample], rate: float) -> Spread:
    metric = registry.get(key[1])
    values = np.array([sample.value for sample in group])
    seeds = np.array([sample.seed for sample in group])
    left_out = 0
    for seed in set(seeds):
        others = values[seeds != seed]
        if others.size >= LEAST:
            bound = _limit(key[1], others, rate)
            left_out += sum(not metric.passes(float(value), bound) for value in values[seeds == seed])
    up = metric.higher_is_better
    ratios = [sample.rms for sample in group if not math.isnan(sample.rms)]
    return Spread(
        *key,
        count=len(group),
        best=float(values.max() if up else values.min()),
        worst=float(values.min() if up else values.max()),
        bound=_limit(key[1], values, rate) if values.size >= LEAST else math.nan,
        left_out=left_out,
        rms=max(ratios, default=math.nan),
    )


def _limit(name: str, values: np.ndarray, rate: float) -> float:
    """Return the bound that the next value passes with the rate of false alarms; NaN if a value is not finite."""
    metric = registry.get(name)
    logarithm = metric.unit != "dB" and metric.least >= 0
    known = values[~(np.isinf(values) & (values > 0))] if metric.higher_is_better else values  # equal arrays
    if not np.isfinite(known).all():
        return math.nan
    if known.size < 2:
        return math.nan
    if logarithm:
        known = np.log(np.maximum(known, np.finfo(np.float32).tiny))
    reach = _quantile(1 - rate, known.size - 1) * float(known.std(ddof=1)) * math.sqrt(1 + 1 / known.size)
    edge = float(known.mean()) + (-reach if metric.higher_is_better else reach)
    limit = math.exp(edge) if logarithm else edge
    limit += (-1 if metric.higher_is_better else 1) * abs(limit) * _WRITTEN
    return min(max(limit, metric.least), metric.most)


@lru_cache(maxsize=1024)
def _quantile(probability: float, degrees: int) -> float:
    """Return the quantile of Student's distribution; one figure takes as long as all arithmetic around it."""
    from scipy.stats import t

    return float(t.ppf(probability, degrees))


def read(path: Path) -> list[Sample]:
    """Read samples from lines that :func:`line` made."""
    return [Sample(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def line(sample: Sample) -> str:
    """Return a sample as a line of JSON."""
    entries: dict[str, Any] = asdict(sample)
    return json.dumps(entries)
