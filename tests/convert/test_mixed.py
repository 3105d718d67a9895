"""Mixed-bit recipes: analysis, its resumption, and packages whose layers have the recipe's bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from parity import cli, convert, coreml, recipes
from parity.convert import build, check, curve, mixed, plan, samples
from parity.convert.job import Settings
from parity.convert.probe import Probe
from parity.convert.spec import read_spec
from parity.errors import FormatError, UsageError
from parity.metrics import measure
from tests.commands.printed import checked

Model = Callable[[str], Path]
OPTIONS = {"bits": (2, 8), "count": 3, "large": 12_000, "prompts": 1}


@pytest.mark.long
def test_analysis_recipes_and_conversion(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
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
    main = read_spec(made["unet"]).mlProgram.functions["main"]
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
    with pytest.raises(UsageError, match=r"made with the probe .*network.*name another file"):
        convert.analyse_bits(model("sd1"), file, **{**OPTIONS, "prompts": 2})
    with monkeypatch.context() as once:  # the command asks for all bits; what it prints is this result's
        once.setattr(convert, "analyse_bits", lambda *_, **__: result)
        assert cli.main(["convert", str(model("sd1")), "--analyse-bits", str(file), "--json"]) == 0
    told = checked(capsys.readouterr().out, "convert analysis")["recipes"]
    assert {one["name"]: one["layers"] for one in told} == {n: r["layers"] for n, r in result["recipes"].items()}
    assert all(one["mean"] == pytest.approx(np.mean(one["psnr"])) for one in told)
    file.write_text(json.dumps({**result, "model_version": "other"}))
    with pytest.raises(UsageError, match="is of other, not of tiny-sd1"):
        convert.analyse_bits(model("sd1"), file, **OPTIONS)


@pytest.mark.long
def test_a_mixed_package_computes_what_the_analysis_measured(model: Model, tmp_path: Path) -> None:
    """Built-in check against PyTorch with its own bound; and the palettized PyTorch UNet agrees as float16 does."""
    import torch

    layers = mixed.candidates(build.load(plan.plan(model("sd1"), components=["unet"])[0]), large=4000)
    assert len(layers) > 4
    cycle = [4, 8, 6, 16]
    recipe = {name: cycle[i % 4] for i, name in enumerate(layers)}
    made = convert.convert(model("sd1"), tmp_path, components=["unet"], recipe=recipe)
    (entry,) = json.loads((tmp_path / "conversion.json").read_text()).values()
    assert entry["agreement"]["bound"] > 10
    assert entry["agreement"]["psnr"] >= entry["agreement"]["bound"] + 5  # measured 21 dB, bound 12
    (job,) = plan.plan(model("sd1"), components=["unet"], settings=Settings(recipe=tuple(recipe.items())))
    unet = build.load(job)
    for name, bits in recipe.items():
        if bits < 16:
            mixed._set(
                dict(unet.named_modules())[name], mixed.palettized(mixed._array(dict(unet.named_modules())[name]), bits)
            )
    arrays = samples.examples(job, seed=5)
    expected = build.network(job, unet).reference(*(torch.from_numpy(array) for array in arrays))[0].numpy()
    features = {f.name: array for f, array in zip(job.inputs, arrays, strict=True)}
    actual = coreml.load(made["unet"]).predict(features)["noise_pred"]
    assert measure("tensor_psnr", expected, actual) > 50  # measured as without compression


def test_bounds_of_recipes(model: Model) -> None:
    """All layers alike: nearly the bound of that palette; none: the bound of the precision."""

    def bound(bits: int) -> float:
        layers = mixed.candidates(build.load(plan.plan(model("sd1"), components=["unet"])[0]), large=500)
        settings = Settings(recipe=tuple(dict.fromkeys(layers, bits).items()))
        (job,) = plan.plan(model("sd1"), components=["unet"], settings=settings)
        return check.bound(job)

    assert bound(16) == 40
    assert 8 < bound(4) < 9
    assert bound(2) < bound(4) < bound(6) < bound(8) < 40


@pytest.mark.slow
def test_the_probe_is_a_pipeline_where_there_is_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Latents after one step and pictures, on the project's own miniature; the curve is written and well-formed."""
    from xml.etree import ElementTree

    options = {"bits": (2, 4), "count": 2, "large": 70_000, "prompts": 2}
    folder = recipes.build("tiny-sd")
    capfd.readouterr()  # building may draw bars
    latents = convert.analyse_bits(folder, tmp_path / "latents.json", **options)
    picture = convert.analyse_bits(folder, tmp_path / "picture.json", probe="picture", steps=2, **options)
    assert capfd.readouterr().err == ""
    assert latents["probe"] == {"kind": "latents", "prompts": 2, "steps": 1, "seed": 93}
    assert picture["probe"] == {"kind": "picture", "prompts": 2, "steps": 2, "seed": 93}
    for result in (latents, picture):
        layers = result["single_layer"]["2"].keys()
        assert len(layers) >= 2
        assert all(np.mean(result["single_layer"]["4"][n]) > np.mean(result["single_layer"]["2"][n]) for n in layers)
    assert latents["single_layer"] != picture["single_layer"]
    root = ElementTree.parse(tmp_path / "latents.svg").getroot()
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"2 bits", "4 bits", "PSNR in dB", "recipes (mean bits)"} <= set(texts)
    circles = list(root.iter("{http://www.w3.org/2000/svg}circle"))
    assert len(circles) == 2 + len(latents["recipes"])


def test_the_curve_places_what_it_draws() -> None:
    """Half the size is half the way; higher PSNR is higher up."""
    import re

    table = {"a": [10.0, 20.0]}
    result = {
        "model_version": "<m>",
        "baselines": {"original": [60.0], "linear_8bit": [40.0]},
        "cumulative": {"4": table, "8": {"a": [30.0]}},
        "recipes": {"recipe_6.00_bit_mixedpalette": {"layers": {}, "psnr": [25.0, 25.0]}},
    }
    text = curve.draw(result, weights=8_000_000)
    assert "&lt;m&gt;" in text
    points = [(float(x), float(y)) for x, y in re.findall(r'circle cx="([\d.]+)" cy="([\d.]+)"', text)]
    (x4, y4), (x8, y8), (x6, y6) = points
    assert x6 - x4 == pytest.approx(x8 - x6, abs=0.2)
    assert y4 > y6 > y8
    assert (x4 - 70) * 2 == pytest.approx(x8 - 70, abs=0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probe": "pixels"}, "unknown probe 'pixels'; there are latents, picture, network"),
        ({"probe": "latents"}, "tiny-sd1 has no text-to-image pipeline with tokenizer"),
        ({"prompts": 9}, "9 prompts: 1 to 8"),
        ({"steps": 0}, "0 steps: at least one"),
    ],
)
def test_probes_that_cannot_be(model: Model, tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        convert.analyse_bits(model("sd1"), tmp_path / "a.json", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_a_package_of_another_model_is_refused(model: Model, tmp_path: Path) -> None:
    from tests.convert.models import unet

    package = convert.convert(model("sd1"), tmp_path, components=["text_encoder"], check=False)["text_encoder"]
    with pytest.raises(FormatError, match=r"does not hold the weights of layer conv_in; was it made from this model"):
        mixed.apply(package, tmp_path / "x.mlpackage", {"conv_in": 4}, unet())


def test_layers_are_restored(model: Model, tmp_path: Path) -> None:
    from tests.convert.models import unet

    network = unet()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    options = {"model_version": "m", "probe": Probe(), "bits": (1,), "count": 2, "large": 9000}
    mixed.analyse(network, lambda: [np.ones(3)], tmp_path / "a.json", **options)  # type: ignore[arg-type]
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
