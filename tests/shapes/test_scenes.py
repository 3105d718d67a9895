"""Pictures and captions of the training set: areas, reproducible samples, a judge that is right on the truth."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.shapes import caption, measure, picture

_AREAS = {  # of the shapes of circumscribed radius 1, from their definitions in picture.distance
    "circle": math.pi * 0.92**2,
    "ring": math.pi * (0.96**2 - 0.52**2),
    "square": (2 * 0.76) ** 2,
    "cross": 2 * (1.9 * 0.6) - 0.6**2,
    "triangle": 3 * math.sqrt(3) / 4,
    "star": 5 * 0.42 * math.sin(math.pi / 5),
}


@pytest.mark.parametrize("shape", picture.SHAPES)
@pytest.mark.parametrize("turn", [0.0, 0.3])
def test_areas_are_those_of_geometry(shape: str, turn: float) -> None:
    thing = picture.Thing(shape, "black", 64.0, 64.0, 48.0, turn)
    drawn = picture.draw(picture.Scene("white", (thing,)))[..., 0].astype(float)
    cover = (drawn.max() - drawn) / (drawn.max() - drawn.min())
    assert cover.sum() == pytest.approx(_AREAS[shape] * 48.0**2, rel=0.01)


def test_samples_are_reproducible() -> None:
    """The numbers of the set, so that a trained model's data can be made again (pixels follow from them)."""
    items = caption.training(50)
    assert hashlib.sha256(repr(items).encode()).hexdigest()[:16] == "df191215f156cb4b"
    assert items[7:9] == caption.training(2, start=7)


@pytest.mark.long
def test_held_out_captions_are_never_trained_on() -> None:
    trained = {item.caption for item in caption.training(3000)}
    prompts = caption.prompts(200)
    assert len({item.caption for item in prompts}) == 200
    assert not trained & {item.caption for item in prompts}
    assert any(caption.held_out(caption.sample(index).caption) for index in range(100)), "the filter had work to do"


def test_captions_use_words_of_the_tokenizer() -> None:
    used = {word for index in range(2000) for word in caption.sample(index).caption.split()}
    assert used <= set(caption.WORDS)
    assert {*picture.COLOURS, *picture.SHAPES, *picture.BACKGROUNDS} <= used


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_the_judge_is_right_on_true_pictures(index: int) -> None:
    item = caption.sample(index, seed=5)
    verdict = measure.judge(picture.draw(item.scene), item)
    assert verdict.background
    assert verdict.colour
    assert verdict.shape
    assert verdict.count
    assert verdict.place in (True, None)


def _with(item: caption.Sample, **changes: object) -> np.ndarray:
    first, *rest = item.scene.things
    return picture.draw(replace(item.scene, things=(replace(first, **changes), *rest)))


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"colour": "blue"}, "colour"),
        ({"shape": "star"}, "shape"),
        ({"x": 90.0}, "place"),
        ({"radius": 2.0}, "count"),
    ],
)
def test_the_judge_sees_what_is_wrong(changes: dict[str, object], wrong: str) -> None:
    thing = picture.Thing("circle", "red", 36.0, 64.0, 20.0)
    item = caption.Sample("a red circle on the left", picture.Scene("gray", (thing,)), "one", "on the left")
    assert measure.judge(picture.draw(item.scene), item) == measure.Verdict(True, True, True, True, True)
    assert not getattr(measure.judge(_with(item, **changes), item), wrong)


def test_the_order_of_a_pair_matters() -> None:
    left, right = picture.Thing("ring", "red", 34.0, 64.0, 24.0), picture.Thing("cross", "green", 94.0, 64.0, 24.0)
    item = caption.Sample("", picture.Scene("white", (left, right)), "pair", "left of")
    swapped = picture.draw(picture.Scene("white", (replace(left, x=94.0), replace(right, x=34.0))))
    assert measure.judge(picture.draw(item.scene), item).place
    assert not measure.judge(swapped, item).place
