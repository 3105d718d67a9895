"""Every network is right and the picture is wrong: is it the schedule, or the guidance?

A step combines what a run holds already: the latents before, the noise that the network predicts without and with the
text, and the same of the step before. Most schedulers do so linearly, so a reference's rule can be read off its trace
by least squares and applied to what the candidate's trace holds. Where the candidate's latents lie elsewhere, its step
is another one; the shares of the two predictions tell whether that is the guidance. A step that clips, or draws noise,
has no such rule; if only one side's has one, the two are other schedules. Errors that networks make do not matter
here: both sides of the rule are the candidate's own.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from parity.metrics import measure
from parity.pipelines.trace import Trace

_EXACT: Final = 60.0  # dB; a rule that explains its own trace: without fresh noise, thresholds or rescaled guidance
_SAME: Final = 40.0  # dB; float32 rounding of the same rule stays above 80
_CUT: Final = 1e-4  # share of the largest singular value below which directions are rounding errors
_ALIKE: Final = 0.01  # of a guidance: by how much two may differ that are one

Rule = np.ndarray
"""Weights of latents before, predictions, and the same of the step before; of the latter none in the first step."""


def parted(reference: Trace, candidate: Trace) -> str:
    """Say at which step, and by what, the candidate goes on otherwise; empty where that cannot be told.

    Parameters
    ----------
    reference, candidate : Trace
        Whole runs with the same number of steps, whose networks agree.

    Returns
    -------
    str
        Such as ``in the schedule: …`` or ``in the guidance: …``.
    """
    for index in range(_steps(reference)):
        if not (_known(reference, index) and _known(candidate, index)):
            return ""
        if found := _parted(reference, candidate, index):
            return found
    return ""


def _parted(reference: Trace, candidate: Trace, index: int) -> str:
    label = f"step{index:02d}"
    (rule, fits), (other, other_fits) = _fit(reference, index), _fit(candidate, index)
    if min(fits, other_fits) < _SAME and max(fits, other_fits) >= _EXACT:
        who = ("reference", "candidate") if fits > other_fits else ("candidate", "reference")
        return (
            f"in the schedule: timesteps are equal, but the {who[0]}'s {label} is a sum of what it held, and the "
            f"{who[1]}'s is not: it clips, rescales or draws noise"
        )
    own = candidate[f"latents/{label}"]
    away = measure("tensor_psnr", own, (_held(candidate, index) @ rule).reshape(own.shape))
    if fits < _EXACT or away >= _SAME:
        return ""
    weights = _guidance(rule, index), _guidance(other, index)
    if abs(weights[0] - weights[1]) > _ALIKE * abs(weights[0]):
        return f"in the guidance: {weights[0]:.3g} and {weights[1]:.3g} in {label}"
    return (
        f"in the schedule: timesteps are equal, but from what the candidate itself held the reference's {label} "
        f"would have made other latents ({away:.1f} dB)"
    )


def _steps(trace: Trace) -> int:
    return sum(point.startswith("latents/step") and "-" not in point for point in trace)


def _before(index: int) -> str:
    return f"latents/step{index - 1:02d}" if index else "latents/initial"


def _known(trace: Trace, index: int) -> bool:
    """Whether the trace has one step's latents, before and after, and predictions of their shape, all finite."""
    names = (_before(index), f"latents/step{index:02d}", f"unet/step{index:02d}/noise_pred")
    if any(name not in trace or not np.isfinite(trace[name]).all() for name in names):
        return False
    before, after, predicted = (trace[name].shape for name in names)
    return before == after and predicted[1:] == before[1:] and predicted[0] in (before[0], 2 * before[0])


def _held(trace: Trace, index: int) -> np.ndarray:
    """Return what a step combines, as columns: float64 (elements, 2 or 3, twice as many after the first step)."""
    columns = []
    for each in (index, index - 1) if index else (index,):
        before = np.float64(trace[_before(each)])
        predicted = np.float64(trace[f"unet/step{each:02d}/noise_pred"])
        columns += [before.ravel(), *predicted.reshape(-1, before.size)]
    return np.stack(columns, axis=1)


def _fit(trace: Trace, index: int) -> tuple[Rule, float]:
    """Return the rule of one step, and how well it explains the latents after it, in dB."""
    after = np.float64(trace[f"latents/step{index:02d}"])
    held = _held(trace, index)
    scale = np.maximum(np.abs(held).max(axis=0), np.finfo(np.float64).tiny)
    rule = np.linalg.lstsq(held / scale, after.ravel(), rcond=_CUT)[0] / scale
    return rule, measure("tensor_psnr", after, (held @ rule).reshape(after.shape))


def _guidance(rule: Rule, index: int) -> float:
    """Return the weight of the prediction with text over both; 1 without guidance."""
    held = len(rule) // 2 if index else len(rule)
    if held == 2:
        return 1.0
    without, along = rule[1], rule[2]
    return float(along / (without + along)) if without + along else 0.0
