"""Bounds that follow from figures: Student's prediction limit, checked in closed form and by drawing."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from parity.cli import main
from parity.commands import calibrate
from parity.suite import calibration
from parity.suite.calibration import Sample, spreads
from tests.commands.printed import checked

CASE = '[[case]]\nname = "quick"\ntask = "txt2img"\nprompt = "a ring"\nscheduler = "ddim"\nsteps = 1\n'


def sample(value: float, seed: int, metric: str = "tensor_psnr", **given: float) -> Sample:
    return Sample("unet", metric, "reference runtime (declared)", seed, "AVX2", "case", "ddim", value, **given)


def test_the_bound_is_students_limit() -> None:
    values = [60.0, 61.0, 62.0, 63.0, 64.0]
    (found,) = spreads([sample(value, seed) for seed, value in enumerate(values)], 0.05)
    # t(0.95, 4) = 2.1318; deviation sqrt(2.5)
    assert found.bound == pytest.approx(62 - 2.13185 * math.sqrt(2.5) * math.sqrt(1.2), abs=1e-3)
    assert (found.worst, found.best, found.count) == (60.0, 64.0, 5)


def test_a_largest_error_spreads_in_its_logarithm_and_upwards() -> None:
    values = [0.1, 0.2, 0.4, 0.8]
    (found,) = spreads([sample(value, seed, "max_abs") for seed, value in enumerate(values)], 0.01)
    logs = np.log(values)
    assert math.log(found.bound) == pytest.approx(logs.mean() + 4.5407 * logs.std(ddof=1) * math.sqrt(1.25), abs=1e-3)
    assert (found.worst, found.best) == (0.8, 0.1)


@pytest.mark.long
def test_false_alarms_come_at_the_rate_that_was_asked() -> None:
    random, alarms = np.random.default_rng(93), 0
    for _ in range(4000):
        values = random.normal(60, 2, 11)
        (found,) = spreads([sample(float(value), seed) for seed, value in enumerate(values[:10])], 0.02)
        alarms += values[10] < found.bound
    assert alarms / 4000 == pytest.approx(0.02, abs=0.007)


def test_what_the_other_seeds_do_not_expect_is_counted() -> None:
    values = [60.0, 60.1, 60.2, 59.9, 60.05, 40.0]
    (found,) = spreads([sample(value, seed, rms=1.5) for seed, value in enumerate(values)], 0.01)
    assert found.left_out == 1
    assert found.rms == 1.5


def test_without_enough_or_finite_figures_there_is_no_bound() -> None:
    few = [sample(60.0 + seed, seed) for seed in range(3)]
    broken = [sample(math.nan if seed == 2 else 60.0, seed, "max_abs") for seed in range(6)]
    for figures in (few, broken):
        (found,) = spreads(figures, 0.01)
        assert math.isnan(found.bound)


def test_equal_arrays_are_no_figures_of_a_spread() -> None:
    (found,) = spreads([sample(math.inf, seed) for seed in range(5)], 0.01)
    assert math.isnan(found.bound)


@pytest.mark.parametrize("rate", [0.0, 0.5, -1.0, math.nan])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match=r"a rate of false alarms lies between 0 and 0\.5"):
        spreads([], rate)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--seeds", "3"], "--seeds 3: at least 4 are needed"),
        (["--repeats", "0"], "--repeats 0: at least 1 is needed"),
        (["--false-alarms", "0.7"], "--false-alarms 0.7: a rate between 0 and 0.5 is needed"),
        (["--kernels", "sse"], "--kernels sse: there are default, avx2, avx512"),
    ],
)
def test_the_command_refuses(capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    assert main(["calibrate", "-o", "never.toml", *words]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.long
def test_the_command_measures_writes_and_tells(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """PyTorch as its own candidate: figures of equal arrays, of which no bound follows, and the picture's maximum."""
    cases, table = tmp_path / "cases.toml", tmp_path / "table.toml"
    cases.write_text(CASE)
    words = ["--model-version", "tiny-sd", "--backend", "torch:cpu", "--cases", str(cases), "--seeds", "4"]
    assert main(["calibrate", *words, "-o", str(table), "--samples", str(tmp_path / "samples"), "--json"]) == 0
    told = checked(capsys.readouterr().out, "calibrate")
    kept = calibration.read(tmp_path / "samples")
    assert (told["table"], told["figures"], told["seeds"]) == (str(table), len(kept), 4)
    assert {sample.seed for sample in kept} == {1, 2, 3, 4}
    assert [(one["point"], one["metric"]) for one in told["bounds"]] == [
        (one.point, one.metric) for one in spreads(kept, 0.01)
    ]
    assert all(one["count"] == 4 for one in told["bounds"])
    assert "# unet, tensor_psnr: no bound, a figure is not finite" in table.read_text()


def test_a_line_keeps_a_sample() -> None:
    import json

    kept = sample(60.0, 3, rms=1.25, half=62.0, largest=1.0, overlap=0.99)
    assert Sample(**json.loads(calibration.line(kept))) == kept


def test_what_does_not_spread_passes_the_bound_as_it_is_written() -> None:
    """A text encoder's figure does not depend on the seed; six figures of it must not fail it."""
    same = [sample(0.00500297546386718, seed, "max_abs") for seed in range(5)]
    (found,) = spreads(same, 0.01)
    assert found.left_out == 0
    assert float(f"{found.bound:.6g}") >= same[0].value


def test_the_command_knows_how_many_figures_a_bound_needs() -> None:
    assert calibrate.LEAST == calibration.LEAST
