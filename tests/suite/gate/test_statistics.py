"""The gate's promises, kept on simulated scores; and its answers on scores that can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from parity.errors import UsageError
from parity.suite.gate import statistics
from parity.suite.gate.statistics import Finding, Plan, decide
from parity.suite.verdict import Verdict

PLAN = Plan(64)
TIMES = 400
Differences = Callable[[np.random.Generator, int], np.ndarray]
KINDS = ("heavy", *(pytest.param(name, marks=pytest.mark.slow) for name in ("normal", "mostly equal")))

SHAPES: dict[str, Differences] = {  # of mean 0 and standard deviation 1
    "normal": lambda rng, n: rng.normal(size=n),
    "heavy": lambda rng, n: rng.standard_t(4, size=n) / np.sqrt(2),
    "mostly equal": lambda rng, n: rng.normal(size=n) * (rng.random(n) < 0.25) * 2,
}


def rates(shape: str, loss: float, spread: float, plan: Plan = PLAN) -> dict[Verdict, float]:
    """Draw pairs many times and return how often each verdict comes out."""
    rng = np.random.default_rng(7)
    found = dict.fromkeys(Verdict, 0)
    for _ in range(TIMES):
        first = np.clip(rng.normal(0.85, 0.1, plan.prompts), 0.2, 1.2)
        lost = 0.85 * (loss + spread * SHAPES[shape](rng, plan.prompts))
        found[decide(first, first - lost, plan).verdict] += 1
    return {verdict: count / TIMES for verdict, count in found.items()}


@pytest.mark.long
@pytest.mark.parametrize("shape", KINDS)
def test_a_model_as_good_fails_once_in_a_hundred_at_most(shape: str) -> None:
    alarms = rates(shape, 0.0, 0.06)[Verdict.FAIL]
    assert alarms <= stats.binom.isf(0.001, TIMES, PLAN.alarms) / TIMES


@pytest.mark.long
@pytest.mark.parametrize("shape", KINDS)
def test_64_prompts_find_a_loss_of_three_percent_nine_times_in_ten(shape: str) -> None:
    found = rates(shape, 0.03, 0.06)
    assert found[Verdict.FAIL] >= 0.9
    assert found[Verdict.PASS] <= stats.binom.isf(0.001, TIMES, PLAN.risk) / TIMES


@pytest.mark.long
def test_the_stated_power_is_reached_at_the_stated_spread() -> None:
    spread = PLAN.largest_spread()
    assert spread == pytest.approx(0.0601, abs=0.0005)  # 3 % x 8 / (t of 0.5 % + t of 10 %), nearly
    assert PLAN.reached(spread) == pytest.approx(0.9, abs=1e-6)
    alone = replace(PLAN, risk=1e-6)  # the margin is never excluded
    assert alone.reached(0.065) == pytest.approx(stats.nct.sf(stats.t.isf(0.005, 63), 63, 0.24 / 0.065), abs=1e-4)
    error = 3 * np.sqrt(0.9 * 0.1 / TIMES)
    assert rates("normal", 0.03, spread)[Verdict.FAIL] >= 0.9 - error
    passing = rates("normal", 0.0, spread)[Verdict.PASS]
    assert passing == pytest.approx(PLAN.passes(spread), abs=3 * np.sqrt(passing * (1 - passing) / TIMES) + 0.01)


@pytest.mark.long
@pytest.mark.parametrize("prompts", [300, pytest.param(1000, marks=pytest.mark.slow)])
def test_with_many_prompts_small_losses_pass_and_the_margin_fails(prompts: int) -> None:
    many = replace(PLAN, prompts=prompts)
    assert rates("normal", 0.01, 0.06, many)[Verdict.PASS] > 0.99
    assert rates("normal", 0.03, 0.06, many)[Verdict.FAIL] == pytest.approx(1 - many.risk, abs=0.02)


@pytest.mark.long
def test_with_few_prompts_nothing_is_claimed() -> None:
    found = rates("normal", 0.0, 0.3)
    assert found[Verdict.UNKNOWN] > 0.7
    assert PLAN.reached(0.3) < 0.1
    needed = PLAN.needed(0.3)
    assert replace(PLAN, prompts=needed).reached(0.3) >= 0.9 > replace(PLAN, prompts=needed - 1).reached(0.3)


def scores(*lost: float) -> Finding:
    first = np.ones(len(lost))
    return decide(first, first - np.array(lost), Plan(len(lost)))


def test_equal_scores_pass() -> None:
    found = scores(*[0.0] * 16)
    assert (found.verdict, found.loss, found.chance, found.excluded) == (Verdict.PASS, 0.0, 1.0, 0.0)


def test_a_constant_loss_is_found_or_excluded_without_any_spread() -> None:
    assert scores(*[0.04] * 16).verdict is Verdict.FAIL
    assert scores(*[0.02] * 16).verdict is Verdict.PASS
    assert "a small loss is no chance" in scores(*[0.02] * 16).sentence()
    assert scores(*[-0.5] * 16).verdict is Verdict.PASS  # a gain is no loss,
    assert scores(*[-0.5] * 16).equivalent == 1.0  # but not the same


def test_the_numbers_are_those_of_scipy() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.normal(1, 0.1, 40), rng.normal(0.98, 0.1, 40)
    found = decide(first, second, Plan(40))
    lost = first - second
    low, high = stats.t.interval(0.9, 39, lost.mean(), stats.sem(lost)) / first.mean()
    assert found.low == pytest.approx(low)
    assert found.high == pytest.approx(high)
    excluded = stats.ttest_1samp(lost - 0.03 * first, 0, alternative="less").pvalue
    assert found.excluded == pytest.approx(excluded)
    assert found.first - found.second == pytest.approx(lost.mean())


def test_all_sign_patterns_of_eight_pairs() -> None:
    """Of 256 patterns one has eight losses, and nine have seven or more."""
    assert scores(*[0.5] * 8).chance == pytest.approx(1 / 256, abs=0.0015)
    assert scores(*[0.5] * 7, -0.5).chance == pytest.approx(9 / 256, abs=0.004)


@pytest.mark.parametrize("seed", range(6))
def test_the_chance_is_the_share_of_all_sign_patterns(seed: int) -> None:
    lost = np.random.default_rng(seed).normal(0.4, 1, 10).round(1)
    size = np.abs(lost)
    ranks = np.where(size > 0, stats.rankdata(size), 0)
    patterns = 1 - 2 * ((np.arange(1024)[:, None] >> np.arange(10)) & 1)
    speaks = [
        max((signs @ size) / np.linalg.norm(size), (signs @ ranks) / np.linalg.norm(ranks))
        for signs in (*patterns, np.sign(lost))
    ]
    exact = np.mean(np.array(speaks[:-1]) >= speaks[-1] - 1e-9)
    assert scores(*lost).chance == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 9999) + 1e-4)


def test_what_is_a_little_worse_everywhere_is_found_beside_two_pictures_that_changed() -> None:
    lost = np.full(64, 0.04) + np.random.default_rng(5).normal(0, 0.03, 64)
    lost[:2] = 0.6, -0.8
    assert stats.ttest_1samp(lost, 0, alternative="greater").pvalue > PLAN.alarms
    assert decide(np.ones(64), 1 - lost, PLAN).verdict is Verdict.FAIL


def test_more_pairs_than_are_kept_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = np.random.default_rng(1).normal(0.2, 1, 64)
    kept = statistics._by_flipped_signs(lost)
    monkeypatch.setattr(statistics, "_ROWS", 63)
    assert statistics._by_flipped_signs(lost) == pytest.approx(kept, abs=0.01)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"prompts": 7}, "between 8 and"),
        ({"margin": 0.0}, "margin 0: a share between 0 and 1"),
        ({"margin": 3}, "margin 3: a share between 0 and 1"),
        ({"alarms": 1e-5}, "can be told apart"),
        ({"power": float("nan")}, "power nan"),
    ],
)
def test_a_plan_that_cannot_be_asked(changes: dict[str, float], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        replace(PLAN, **changes)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="below 1"):
        replace(PLAN, power=0.97).largest_spread()


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        (np.ones(8), np.ones(9), "shapes"),
        (np.ones(9), np.ones(9), "shapes"),
        (np.ones(8), np.full(8, np.nan), "finite"),
        (np.zeros(8), np.ones(8), "positive"),
        (-np.ones(8), np.ones(8), "positive"),
    ],
)
def test_scores_that_tell_nothing(first: np.ndarray, second: np.ndarray, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        decide(first, second, Plan(8))


def test_a_plan_says_before_the_run_what_it_finds() -> None:
    assert PLAN.sentence() == (
        "64 prompts: a model as good fails with probability 0.01 at most; one that lost 3.0% fails with probability "
        "0.9 or more if differences of paired scores spread by 6.0% of the mean score or less"
    )
