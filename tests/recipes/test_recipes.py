"""The smallest model: the same bits everywhere, and loadable by diffusers."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity import recipes
from parity.errors import FormatError, MissingError
from parity.recipes import tokenizer, unigram, weights

# Written once from the code as it stands; torch, diffusers, the platform and the order of parameters must not matter.
DIGESTS = {
    "text_encoder": "19d927e815b17c928029a253d457f49b5973dd85878ac3c3cebfcdb544c2554a",
    "unet": "889d809d92ea2ee255f236dd601d61028f2cdc8caa088d254f7e42b3e8b6b8ea",
    "vae": "974119318b3393d3332bcb527a2971e0531008e5de657bdaaa9784c2c71c24be",
}


@pytest.mark.parametrize("component", list(DIGESTS))
def test_weights_are_the_same_bits_on_every_platform(component: str) -> None:
    recipe = recipes.load("tiny-sd")
    parameters = {
        weights.canonical(component, name): tensor.detach().numpy()
        for name, tensor in recipe.component(component).named_parameters()
    }
    assert weights.digest(parameters) == DIGESTS[component]


def test_a_tensor_depends_on_its_name_and_seed_alone() -> None:
    rules = [weights.Rule("", gain=1.0)]
    a = weights.draw("unet.conv_in.weight", (8, 4, 3, 3), seed=1, rules=rules)
    assert a.dtype == np.float32
    assert np.array_equal(a, weights.draw("unet.conv_in.weight", (8, 4, 3, 3), seed=1, rules=rules))
    assert not np.array_equal(a, weights.draw("unet.conv_in.weight", (8, 4, 3, 3), seed=2, rules=rules))
    assert not np.array_equal(a, weights.draw("unet.conv_out.weight", (8, 4, 3, 3), seed=1, rules=rules))
    assert a.std() == pytest.approx(1 / 6, rel=0.1)  # fan-in 36
    assert abs(a).max() <= 3**0.5 / 6


def test_the_first_matching_rule_applies_and_a_missing_one_is_named() -> None:
    rules = [weights.Rule(r"norm\.weight$", mean=1.0, std=0.0), weights.Rule(r"\.bias$", std=0.0)]
    assert (weights.draw("x.norm.weight", (3,), seed=0, rules=rules) == 1).all()
    with pytest.raises(FormatError, match=r"x\.proj\.weight"):
        weights.draw("x.proj.weight", (3, 3), seed=0, rules=rules)


def test_diffusers_loads_the_folder() -> None:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(recipes.build("tiny-sd"))
    assert pipeline.unet.config.cross_attention_dim == pipeline.text_encoder.config.hidden_size
    assert pipeline.vae_scale_factor == 8
    assert pipeline.tokenizer.model_max_length == 77
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        assert all(bool(p.isfinite().all()) for p in part.parameters())


def test_a_recipe_takes_over_what_it_extends() -> None:
    base, more = recipes.load("tiny-sd3"), recipes.load("tiny-sd3-t5")
    assert more.table["components"].keys() - base.table["components"].keys() == {"text_encoder_3"}
    assert more.table["weights"] == base.table["weights"]
    for part in ("transformer", "text_encoder"):  # the same names and seed: the same weights
        ours, theirs = (dict(recipe.component(part).named_parameters()) for recipe in (base, more))
        assert all(bool((ours[name] == theirs[name]).all()) for name in ours)


def test_the_t5_tokenizer_knows_its_words_and_spells_others(tmp_path: Path) -> None:
    from transformers import T5TokenizerFast

    unigram.write(tmp_path, ["red", "circle", "a"])
    loaded = T5TokenizerFast.from_pretrained(tmp_path)
    ids = {token: index for index, (token, _) in enumerate(unigram.pieces(["red", "circle", "a"]))}
    assert loaded("a red circle")["input_ids"] == [ids["▁a"], ids["▁red"], ids["▁circle"], ids["</s>"]]
    spelled = loaded("reds!", add_special_tokens=False)["input_ids"]
    assert loaded.decode(spelled) == "reds!"
    padded = loaded("red", padding="max_length", max_length=5)["input_ids"]
    assert padded == [ids["▁red"], ids["</s>"], 0, 0, 0]


def test_building_twice_gives_the_same_folder_and_leaves_no_scratch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARITY_CACHE", str(tmp_path))
    first = recipes.build("tiny-sd")
    stamp = (first / "model_index.json").stat().st_mtime_ns
    assert recipes.build("tiny-sd") == first
    assert (first / "model_index.json").stat().st_mtime_ns == stamp
    assert [path.name for path in (tmp_path / "recipes").iterdir()] == [first.name]


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(MissingError, match="tiny-sd"):
        recipes.load("huge-sd")


def test_listed_words_are_one_token_and_any_text_survives(tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    words = ["red", "circle", "a", "triangle", "tri", "background"]
    vocabulary = tokenizer.write(tmp_path, words)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    for word in words:
        assert loaded(word)["input_ids"] == [
            vocabulary[tokenizer.START],
            vocabulary[f"{word}</w>"],
            vocabulary[tokenizer.END],
        ]
    assert loaded.decode(loaded("A Red zebra 7!", add_special_tokens=False)["input_ids"]) == "a red zebra 7 !"
    assert json.loads((tmp_path / "vocab.json").read_text()) == vocabulary


@given(st.lists(st.text("abcdr", min_size=1, max_size=8), min_size=1, max_size=12))
def test_merges_join_every_listed_word(words: list[str]) -> None:
    pairs = tokenizer.merges(words)
    rank = {pair: index for index, pair in enumerate(pairs)}
    for word in words:  # an independent BPE: always join the pair of lowest rank
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            candidates = [(rank[pair], i) for i, pair in enumerate(pairwise(pieces)) if pair in rank]
            assert candidates, f"{word} stops at {pieces} with {pairs}"
            at = min(candidates)[1]
            pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
