"""The rounding of a fractional timestep is named where it makes the difference, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from parity.suite.questions.features import rounded_time


class Wave:
    """A network that is sensitive to its time."""

    name = "unet"

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"noise_pred": np.float32(np.sin(inputs["sample"] + inputs["timestep"][0]))}


SAMPLE = np.linspace(-1, 1, 64, dtype=np.float32)


@pytest.mark.parametrize(
    ("time", "given", "named"),
    [
        (749.32, 749.5, True),  # as a float16 feature has it
        (749.32, 751.0, False),  # another time altogether
        (749.0, 751.0, False),  # float16 has this one
    ],
)
def test_what_is_named(time: float, given: float, named: bool) -> None:
    call = {"sample": SAMPLE, "timestep": np.array([time], np.float32)}
    outputs = tuple(Wave()({**call, "timestep": np.array([t], np.float32)})["noise_pred"] for t in (time, given))
    text = rounded_time(Wave(), call, "noise_pred", (outputs[0], outputs[1]))
    assert ("takes 749.32 as 749.5" in text) is named
    assert bool(text) is named


def test_a_network_without_a_timestep_is_let_be() -> None:
    assert rounded_time(Wave(), {"sample": SAMPLE}, "noise_pred", (SAMPLE, SAMPLE + 1)) == ""
