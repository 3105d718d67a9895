"""Do networks that answer from memory give what they would have computed, and only to what they were asked?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from parity.coreml.model_proxy import ModelProxy
from parity.models.model import Model
from parity.suite.questions import remembered
from tests.pipelines.playing import execute

PARTS = ("text_encoder", "unet", "vae_decoder")


def test_pictures_are_those_without_memory(checkpoint: Path, converted: Callable[..., Path]) -> None:
    models = {part: converted("1.1.0", part) for part in PARTS}
    given = {"original": checkpoint, "prompt": Model("tiny-sd").tokens("a ring"), "steps": 2}
    given["negative"] = given["prompt"]
    kept: dict = {}
    counts, pictures = [], []
    for consumer, memory in (("S7", kept), ("S8", kept), ("S8", {})):
        before = ModelProxy.predictions
        result = execute(models, consumer, **given, kept=memory)
        counts.append(ModelProxy.predictions - before)
        pictures.append((result.pictures, result.references))
    np.testing.assert_array_equal(pictures[1], pictures[2])
    assert counts[1] < counts[0] <= counts[2], counts


def test_an_answer_belongs_to_its_question_and_cannot_be_changed() -> None:
    asked = []

    def ask(inputs):  # type: ignore[no-untyped-def]
        asked.append(inputs)
        return {"y": inputs["x"] + 1}

    memory: dict = {}
    one = np.arange(6, dtype=np.float32).reshape(2, 3)
    first = remembered._looked_up(memory, {"x": one}, ask)
    first["y"][:] = 7
    np.testing.assert_array_equal(remembered._looked_up(memory, {"x": one.copy()}, ask)["y"], one + 1)
    assert len(asked) == 1
    others: tuple[np.ndarray, ...] = (
        one.astype(np.float16),
        one[:1],
        one.reshape(3, 2),
        np.asfortranarray(one),
        np.nextafter(one, 9),
    )
    for number, other in enumerate(others, 2):
        np.testing.assert_array_equal(remembered._looked_up(memory, {"x": other}, ask)["y"], other + 1)
        assert len(asked) == number


def test_large_answers_are_not_kept() -> None:
    memory: dict = {}
    for size in (2**20, 2**20 + 1):
        given = {"x": np.zeros(size, np.float32)}
        assert remembered._looked_up(memory, given, lambda inputs: {"y": inputs["x"]})["y"].size == size
    assert [answer["y"].size for answer in memory.values()] == [2**20]
