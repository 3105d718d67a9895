"""A step's rule is read off a trace: another schedule, another guidance and errors of networks are told apart."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from parity.pipelines.trace import Trace
from parity.suite.questions import steps

Step = Callable[[int, np.ndarray, list[np.ndarray]], np.ndarray]
SHAPE = (2, 4, 8, 8)


def plain(index: int, latents: np.ndarray, noises: list[np.ndarray]) -> np.ndarray:
    return (0.9 - 0.1 * index) * latents - (0.3 + 0.05 * index) * noises[-1]


def looks_back(index: int, latents: np.ndarray, noises: list[np.ndarray]) -> np.ndarray:
    """As a scheduler of second order: the first step is that of :func:`plain`."""
    return plain(index, latents, noises) + (0.2 * (noises[-2] - noises[-1]) if index else 0)


def other(index: int, latents: np.ndarray, noises: list[np.ndarray]) -> np.ndarray:
    return plain(index, latents, noises) - 0.05 * noises[-1]


def clips(index: int, latents: np.ndarray, noises: list[np.ndarray]) -> np.ndarray:
    return np.clip(plain(index, latents, noises), -1, 1)


def fresh(index: int, latents: np.ndarray, noises: list[np.ndarray]) -> np.ndarray:
    return plain(index, latents, noises) + 0.3 * np.random.default_rng(index).normal(size=SHAPE)


def run(step: Step, *, guidance: float | None = 7.5, error: float = 0.0, count: int = 3) -> Trace:
    """Draw with a network that answers to its latents, with an error of its own; two pictures at once."""
    random = np.random.default_rng(93)
    mistakes = np.random.default_rng(7)
    trace, noises = Trace(), []
    latents = random.normal(size=SHAPE).astype(np.float32)
    trace("latents/initial", latents)
    for index in range(count):
        batch = 1 if guidance is None else 2
        drift = random.normal(size=(batch * SHAPE[0], *SHAPE[1:]))
        predicted = np.tanh(np.tile(latents, (batch, 1, 1, 1)) + 0.3 * drift)
        predicted = np.float32(predicted + error * mistakes.normal(size=predicted.shape))
        trace(f"unet/step{index:02d}/noise_pred", predicted)
        without, along = predicted[: SHAPE[0]], predicted[-SHAPE[0] :]
        noises.append(along if guidance is None else without + guidance * (along - without))
        latents = np.float32(step(index, latents, noises))
        trace(f"latents/step{index:02d}", latents)
    return trace


@pytest.mark.parametrize("step", [plain, looks_back])
@pytest.mark.parametrize("guidance", [None, 1.5, 7.5])
def test_errors_of_networks_are_neither(step: Step, guidance: float | None) -> None:
    for error in (0.0, 1e-4, 1e-2):
        assert steps.parted(run(step, guidance=guidance), run(step, guidance=guidance, error=error)) == ""


@pytest.mark.parametrize("guidance", [None, 7.5])
@pytest.mark.parametrize(
    ("first", "second", "where"),
    [
        (plain, other, "step00"),
        (other, plain, "step00"),
        (plain, looks_back, "step01"),
        (looks_back, plain, "step01"),
    ],
)
def test_another_schedule_is_named_with_the_first_step_that_differs(
    first: Step, second: Step, where: str, guidance: float | None
) -> None:
    found = steps.parted(run(first, guidance=guidance), run(second, guidance=guidance, error=1e-4))
    assert found.startswith("in the schedule: timesteps are equal, but ")
    assert f"the reference's {where} would have made other latents" in found


@pytest.mark.parametrize("step", [plain, looks_back])
def test_another_guidance_is_named_with_both(step: Step) -> None:
    found = steps.parted(run(step), run(step, guidance=5.0, error=1e-5))
    assert found == "in the guidance: 7.5 and 5 in step00"


@pytest.mark.parametrize("guidance", [None, 7.5])
@pytest.mark.parametrize("step", [clips, fresh])
def test_a_step_that_clips_or_draws_noise_is_no_sum_of_what_a_run_held(step: Step, guidance: float | None) -> None:
    without, along = run(plain, guidance=guidance), run(step, guidance=guidance)
    says = "in the schedule: timesteps are equal, but the {}'s step00 is a sum of what it held, and the {}'s is not"
    assert steps.parted(without, along).startswith(says.format("reference", "candidate"))
    assert steps.parted(along, without).startswith(says.format("candidate", "reference"))


def test_what_a_trace_cannot_tell_is_not_told() -> None:
    whole = run(plain)
    for one in (clips, fresh):
        assert steps.parted(run(one), run(one, error=1e-3)) == ""
    assert steps.parted(run(clips), run(fresh)) == ""  # neither is a sum
    for name in ("latents/initial", "unet/step01/noise_pred"):
        points = {point: value for point, value in whole.items() if point != name}
        assert steps.parted(whole, Trace(points)) == ""
    assert steps.parted(whole, run(plain, count=2)) == ""
    broken = Trace({**whole, "unet/step00/noise_pred": np.full((4, *SHAPE[1:]), np.nan, np.float32)})
    assert steps.parted(whole, broken) == ""
    learned = {point: np.concatenate([v, v], axis=1) if "noise_pred" in point else v for point, v in whole.items()}
    assert steps.parted(Trace(learned), run(other)) == ""
