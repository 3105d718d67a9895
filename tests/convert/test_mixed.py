"""Mixed-bit recipes: analysis, its resumption, and packages whose layers have the recipe's bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from parity import convert
from parity.convert import lower, mixed
from parity.errors import FormatError, UsageError

Model = Callable[[str], Path]
OPTIONS = {"bits": (2, 8), "count": 3, "large": 12_000, "prompts": 1}


def test_analysis_recipes_and_conversion(model: Model, tmp_path: Path) -> None:
    seen: list[int] = []

    def interrupt(component: str, stage: str, done: int, total: int) -> None:
        seen.append(done)
        if len(seen) == 2:
            raise KeyboardInterrupt

    file = tmp_path / "bits.json"
    with pytest.raises(KeyboardInterrupt):
        convert.analyse_bits(model("sd1"), file, progress=interrupt, **OPTIONS)
    begun = json.loads(file.read_text())
    assert len(begun["single_layer"]["2"]) == 2
    result = convert.analyse_bits(model("sd1"), file, **OPTIONS)
    assert json.loads(file.read_text()) == result
    assert result["single_layer"]["2"].items() >= begun["single_layer"]["2"].items()
    layers = result["single_layer"]["2"].keys()
    assert all(np.mean(result["single_layer"]["8"][n]) > np.mean(result["single_layer"]["2"][n]) for n in layers)
    assert np.mean(result["baselines"]["original"]) > np.mean(result["baselines"]["linear_8bit"])
    for name, recipe in result["recipes"].items():
        assert recipe["layers"].keys() == layers
        assert name.startswith("recipe_")
        assert name.endswith("_bit_mixedpalette")
    name = list(result["recipes"])[-1]
    chosen = {layer: (2 if i % 2 else 8) for i, layer in enumerate(mixed.read_recipe(file, name))}
    made = convert.convert(model("sd1"), tmp_path / "out", components=["unet"], recipe=chosen, check=False)
    main = lower.read_spec(made["unet"]).mlProgram.functions["main"]
    block = main.block_specializations[main.opset]
    tables = [
        op.attributes["lut"].type.tensorType.dimensions[0].constant.size
        for op in block.operations
        if op.type == "constexpr_lut_to_dense"
    ]
    expected = [2**bits for bits in chosen.values()]
    assert sorted(tables) == sorted(expected)
    other = {"no.such.layer": 4}
    with pytest.raises(UsageError, match=r"1 layers that the UNet does not have, e\.g\. no\.such\.layer"):
        convert.convert(model("sd1"), tmp_path / "other", components=["unet"], recipe=other, check=False)
    assert list((tmp_path / "other").iterdir()) == []
    with pytest.raises(UsageError, match="has no recipe 'best'; there are recipe_"):
        mixed.read_recipe(file, "best")
    file.write_text(json.dumps({**result, "model_version": "other"}))
    with pytest.raises(UsageError, match="is of other, not of tiny-sd1"):
        convert.analyse_bits(model("sd1"), file, **OPTIONS)


def test_a_package_of_another_model_is_refused(model: Model, tmp_path: Path) -> None:
    from tests.convert.models import unet

    package = convert.convert(model("sd1"), tmp_path, components=["text_encoder"], check=False)["text_encoder"]
    with pytest.raises(FormatError, match=r"does not hold the weights of layer conv_in; was it made from this model"):
        mixed.apply(package, tmp_path / "x.mlpackage", {"conv_in": 4}, unet())


def test_layers_are_restored(model: Model, tmp_path: Path) -> None:
    from tests.convert.models import unet

    network = unet()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    mixed.analyse(network, lambda: [np.ones(3)], tmp_path / "a.json", model_version="m", bits=(1,), count=2, large=9000)
    assert all((before[name] == tensor).all() for name, tensor in network.state_dict().items())


def test_palettized_values_come_from_a_table() -> None:
    weights = np.random.default_rng(3).standard_normal((40, 300)).astype(np.float32)
    for bits in (1, 4):
        result = mixed.palettized(weights, bits)
        assert len(np.unique(result.astype(np.float64))) == 2**bits
        assert result.shape == weights.shape
    assert mixed.palettized(weights, 8) == pytest.approx(weights, abs=0.1)


def test_linear_8_bits_keep_the_ends_of_each_range() -> None:
    weights = np.random.default_rng(4).standard_normal((30, 4)).astype(np.float32)
    result = mixed.linear8(weights)
    np.testing.assert_allclose(result.min(axis=0), weights.min(axis=0), rtol=1e-5)
    np.testing.assert_allclose(result.max(axis=0), weights.max(axis=0), rtol=1e-5)
    assert all(len(np.unique(result[:, i])) <= 256 for i in range(4))
    assert np.abs(result - weights).max() <= (np.ptp(weights, axis=0) / 255).max() / 2 + 1e-6


def test_a_file_that_is_no_analysis(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(FormatError, match="needs the keys model_version"):
        mixed.read_recipe(tmp_path / "a.json", "x")
    with pytest.raises(FormatError, match="no such file"):
        mixed.read_recipe(tmp_path / "b.json", "x")
