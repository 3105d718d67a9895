"""How a candidate leaves its reference, step by step."""

from __future__ import annotations

import numpy as np
import pytest

from parity.metrics import registry
from parity.pipelines.trace import Trace
from parity.suite.course import METRIC, follow


def traces(error: float) -> tuple[Trace, Trace]:
    generator = np.random.default_rng(5)
    values = {
        f"latents/{name}": generator.standard_normal((1, 4, 6, 8), np.float32)
        for name in ("initial", "step00", "step01")
    }
    reference = Trace({**values, "image": np.zeros((1, 4, 4, 3), np.uint8)})
    changed = dict(values)
    changed["latents/step01"] = values["latents/step01"].copy()
    changed["latents/step01"][0, 2, 3, 5] += error
    return reference, Trace({**changed, "image": reference["image"]})


def test_values_are_those_of_the_metric_and_the_difference_is_where_it_was_planted() -> None:
    reference, candidate = traces(0.5)
    course = follow(reference, candidate)
    assert course is not None
    assert course.points == ("latents/initial", "latents/step00", "latents/step01")
    last = registry.measure(METRIC, reference["latents/step01"], candidate["latents/step01"])
    assert course.values == (np.inf, np.inf, last)
    assert course.scale == pytest.approx(0.5)
    assert course.sheet.shape == (1, 3 * (2 * 6 + 2), 3 * (2 * 8 + 2))  # rows of 2 x 2 channels, with borders
    difference = course.sheet[0, 2 * 14 : -2, 2 * 18 : -2]
    assert np.argwhere(difference != 128).tolist() == [[6 + 3, 5]]  # the third channel is below the first
    assert difference[9, 5] == 255
    assert (course.sheet[0, 28:40, :16] == 128).all()  # equal at the start


def test_latents_that_are_not_finite_are_black_or_white() -> None:
    reference, candidate = traces(np.inf)
    course = follow(reference, candidate)
    assert course is not None
    assert course.values[-1] in (-np.inf, np.nan) or np.isnan(course.values[-1])


@pytest.mark.parametrize("other", [None, Trace({}), Trace({"latents/initial": np.zeros((1, 4, 2, 2), np.float32)})])
def test_nothing_in_common_is_no_course(other: Trace | None) -> None:
    assert follow(traces(0)[0], other) is None


def test_a_schedule_that_is_wrong_in_one_step_is_named_by_the_course() -> None:
    """Networks are not to blame then: on the reference's inputs they agree. The curve says from which step on."""
    from parity.report.page import seen

    generator = np.random.default_rng(5)
    latents = {"latents/initial": generator.standard_normal((1, 4, 6, 8))}
    noise = generator.standard_normal((8, 1, 4, 6, 8))

    def drawn(wrong: int | None) -> Trace:
        values = dict(latents)
        current = latents["latents/initial"]
        for step in range(8):
            current = current - (0.11 if step == wrong else 0.1) * (current + noise[step])
            values[f"latents/step{step:02d}"] = current.astype(np.float32)
        return Trace(values)

    course = follow(drawn(None), drawn(5))
    assert course is not None
    assert [np.isinf(value) for value in course.values] == [True] * 6 + [False] * 3
    told = seen.curve(course.points, course.values)
    assert told.startswith("latents are equal up to step04, then agree by")
    assert "at step05" in told
