"""Forty planted defects: the component that has it is named, nothing else is, and without one everything passes.

No bound in decibels is involved: the standard is half precision by itself, of each model.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest

from parity.pipelines.trace import Trace
from parity.recipes.build import load, write
from parity.suite.case import Case
from parity.suite.comparison import Check
from parity.suite.options import Options
from parity.suite.questions import candidate
from parity.suite.questions.candidate import Situation
from parity.suite.stage import Stage
from parity.suite.verdict import Verdict
from tests.suite import defects
from tests.suite.defects import Defect, Planted, requested

COMPONENTS = ("text_encoder", "unet", "vae_decoder")
SUBSET = "shapes-sd"


@lru_cache(maxsize=1)
def stage(model: str, folder: Path) -> tuple[Stage, Case, Trace]:
    """Open a model and draw its reference, three steps."""
    location = model
    if model == "drawn":
        location = str(folder / "drawn")
        if not Path(location).exists():  # only one model is kept open, so this one may be asked for again
            recipe = load("tiny-sd")
            write(replace(recipe, table={**recipe.table, "seed": 7}), folder / "drawn")
    opened = Stage(Options(model_version=location))
    shipped = next(case for case in opened.cases if case.name == "txt2img-ddim")
    case = replace(shipped, request=replace(shipped.request, steps=3))
    return opened, case, opened.run(opened.reference, case)[0]


def judged(model: str, folder: Path, defect: Defect | None) -> tuple[Check, ...]:
    opened, case, reference = stage(model, folder)
    backend = Planted(opened.reference, defect)
    drawn, _ = opened.run(backend, replace(case, request=requested(case.request, defect)))
    situation = Situation(standard=opened.standard(case))
    return candidate.compare(reference, drawn, (opened.reference, backend), COMPONENTS, opened.tolerances, situation)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def _marked(model: str) -> tuple[pytest.MarkDecorator, ...]:
    return () if model == SUBSET else (pytest.mark.slow,)


@pytest.mark.long
@pytest.mark.parametrize("model", [pytest.param(name, marks=_marked(name)) for name in defects.MODELS])
def test_without_a_defect_everything_passes(folder: Path, model: str) -> None:
    found = judged(model, folder, None)
    assert {check.verdict for check in found} == {Verdict.PASS}, [check.message for check in found]
    assert all(check.score is not None for check in found if check.point != "latents/initial")


@pytest.mark.long
@pytest.mark.parametrize(
    "defect",
    [
        pytest.param(each, id=f"{each.model}-{each.kind}-{each.place}", marks=_marked(each.model))
        for each in sorted(defects.ALL, key=lambda each: defects.MODELS.index(each.model))
    ],
)
def test_the_component_with_the_defect_is_named(folder: Path, defect: Defect) -> None:
    found = judged(defect.model, folder, defect)
    failed = {check.point for check in found if check.verdict is Verdict.FAIL}
    if defect.place == "scheduler":
        assert failed == {"image"}
        (message, *_) = (check.message for check in found if check.verdict is Verdict.FAIL)
        assert "every network agrees on the reference's inputs" in message
        assert "lies between them, in the schedule: " in message
    else:
        assert defect.place in failed
        assert failed <= {defect.place, "image"}


def test_there_are_forty() -> None:
    assert len(set(defects.ALL)) == 40
    assert {(each.kind, each.model) for each in defects.ALL} == {
        (kind, model) for kind in defects.KINDS for model in defects.MODELS
    }
