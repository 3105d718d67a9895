"""What is said about a case that passes: words that were cut, and pictures that were stretched."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from parity.models.model import Model
from parity.pipelines.request import Request
from parity.suite.case import Case
from parity.suite.remarks import remarks

LONG = "a large red circle on a white background " * 12


@pytest.fixture(scope="module")
def model() -> Model:
    return Model("shapes-sd")


def case(name: str, **request: object) -> Case:
    return Case(name, Request(**{"task": "txt2img", "prompt": "a red circle", **request}), 93, "torch-cpu")  # type: ignore[arg-type]


def test_cut_words_are_quoted_and_prompts_that_differ_only_there_are_pointed_out(model: Model) -> None:
    star, square = case("star", prompt=f"{LONG}and a green star"), case("square", prompt=f"{LONG}and a blue square")
    first, second = remarks(star, model, [star, square])
    assert first.startswith("prompt: more than 77 tokens, cut before ")
    assert first.endswith('and a green star"')
    assert "differs from that of case square only in what is cut" in second
    assert remarks(case("short"), model, [star, square]) == ()
    (negative,) = remarks(case("n", negative_prompt=f"{LONG}blurry"), model, [star])
    assert negative.startswith("negative prompt: more than 77 tokens")


def test_the_words_that_are_cut_are_those_that_diffusers_names(model: Model) -> None:
    text = f"{LONG}and a green star"
    ids = model.tokenizer(text, padding="longest", return_tensors="np")["input_ids"]
    named = model.tokenizer.batch_decode(ids[:, 77 - 1 : -1])[0]  # as StableDiffusionPipeline.encode_prompt warns
    assert model.cut(text) == named.strip()
    kept = model.tokenizer.batch_decode(model.tokens(text), skip_special_tokens=True)[0]
    assert f"{kept} {model.cut(text)}".split() == text.split()
    assert model.cut("a red circle") == ""


@pytest.mark.parametrize(
    ("size", "says"),
    [((128, 128), ""), ((256, 256), "resized for both sides"), ((192, 128), "stretched (its proportions change)")],
)
def test_a_picture_of_another_shape_is_not_stretched_without_a_word(
    model: Model, tmp_path: Path, size: tuple[int, int], says: str
) -> None:
    Image.new("RGB", size).save(tmp_path / "start.png")
    found = remarks(case("i", task="img2img", image=tmp_path / "start.png"), model, [])
    if says:
        assert f"start picture start.png: {size[0]}x{size[1]}, the models take 128x128: {says}" in found[0]
    assert len(found) == bool(says)
    wide = model.resized((16, 24))
    assert wide.image_size == (128, 192)
    assert bool(remarks(case("i", task="img2img", image=tmp_path / "start.png"), wide, [])) == (size != (192, 128))
