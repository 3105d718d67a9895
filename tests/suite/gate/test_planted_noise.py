"""Weight noise that costs the shipped model some percent is found by 64 pictures, and half precision passes."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from fixtures.shapes import sheet
from fixtures.shapes.__main__ import load
from parity.backends.rounded import Rounded
from parity.recipes import trained
from parity.suite.gate import scores
from parity.suite.gate.statistics import Plan, decide
from parity.suite.verdict import Verdict

PLAN = Plan(64)
TIMES = 300


def noisy(pipeline: Any, strength: float) -> Any:
    """Return the pipeline with noise on every matrix and kernel of its UNet, as a share of their own spread."""
    other = copy.copy(pipeline)
    other.unet = copy.deepcopy(pipeline.unet)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in other.unet.parameters():
            if weight.ndim > 1:
                weight.add_(torch.randn(weight.shape, generator=generator) * strength * weight.std())
    return other


def scored(pipeline: Any) -> np.ndarray:
    score, prompts = scores.find("shapes"), scores.shapes_prompts(PLAN.prompts)
    drawn = sheet.pictures(pipeline, prompts, seeds=range(PLAN.prompts), steps=16)
    return np.array([score(image, text, image) for image, text in zip(drawn, prompts, strict=True)])


def rates(base: np.ndarray, lost: np.ndarray, *, equal: bool) -> dict[Verdict, float]:
    """Draw prompts anew from those that there are, many times: how often does each verdict come out?"""
    rng, found = np.random.default_rng(0), dict.fromkeys(Verdict, 0)
    for _ in range(TIMES):
        chosen = rng.integers(0, len(base), len(base))
        signs = rng.choice([-1, 1], len(base)) if equal else 1
        found[decide(base[chosen], base[chosen] - lost[chosen] * signs, PLAN).verdict] += 1
    return {verdict: count / TIMES for verdict, count in found.items()}


@pytest.mark.slow
def test_planted_weight_noise_is_found_and_half_precision_is_not() -> None:
    pipeline = load(trained.folder("shapes-sd"))
    base = scored(pipeline)
    with Rounded(torch.float32):  # torch's own float16 kernels are many times slower on a CPU
        half = decide(base, scored(load(trained.folder("shapes-sd"), "float16")), PLAN)
    print("half precision:", half.sentence())
    assert half.verdict is Verdict.PASS
    assert half.spread < PLAN.largest_spread()
    candidate = scored(noisy(pipeline, 0.15))
    found = decide(base, candidate, PLAN)
    print("noise:", found.sentence())
    assert found.loss > PLAN.margin
    assert found.verdict is Verdict.FAIL
    lost = (base - candidate) * PLAN.margin / found.loss  # as if it had cost the margin exactly
    loss, none = rates(base, lost, equal=False), rates(base, lost, equal=True)
    print("of", TIMES, loss, none)
    assert loss[Verdict.FAIL] >= 0.9
    assert none[Verdict.FAIL] <= 0.01
