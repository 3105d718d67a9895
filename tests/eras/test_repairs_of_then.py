"""Encoders of five inputs that their own era wrote are cut, and give the very moments that they computed inside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from parity import mil, repair
from parity.contracts.inspect import inspect
from parity.mil.session import Session

Package = Callable[[str], Path]
IMAGE = np.random.default_rng(93).uniform(-1, 1, (1, 3, 64, 64)).astype(np.float16)


def run(path: Path, **inputs: np.ndarray) -> np.ndarray:
    (value,) = Session(mil.load(path), fuse=False).predict(inputs).values()
    return value


def moments(source: Path, target: Path) -> np.ndarray:
    """Run a copy of a legacy encoder whose output is what its only two-way split takes, by the protobuf alone."""
    model = mil.load(source)
    spec = type(model.specification)()
    spec.CopyFrom(model.specification)
    function = spec.mlProgram.functions["main"]
    (block,) = function.block_specializations.values()
    (split,) = (operation for operation in block.operations if operation.type == "split")
    name = split.inputs["x"].arguments[0].name
    block.outputs[:] = [name]
    (feature,) = spec.description.output
    feature.name = name
    del feature.type.multiArrayType.shape[:]
    feature.type.multiArrayType.shape.extend((1, 8, 8, 8))
    feature.type.multiArrayType.dataType = 65552
    latent = np.zeros((1, 4, 8, 8), np.float16)
    factor = np.ones((1, 1), np.float16)
    given = {"diagonal_noise": latent, "noise": latent, "sqrt_alphas_cumprod": factor}
    copy = mil.save(spec, model.weights, target)
    return run(copy, sample=IMAGE, sqrt_one_minus_alphas_cumprod=factor, **given).astype(np.float32)


@pytest.mark.parametrize("name", ["6.1/0.2.0", "6.1/0.2.0-affine8", "7.0/0.3.0-late"])
def test_moments_are_bit_identical(name: str, package: Package, tmp_path: Path) -> None:
    source = package(f"{name}/vae_encoder")
    (result,) = repair.apply(repair.plan(inspect(source)), tmp_path / "out")
    assert result.proofs[0].exact
    ours, theirs = run(Path(result.target), z=IMAGE), moments(source, tmp_path / "inside.mlpackage")
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, theirs)
    assert float(ours.std()) > 0.01
    found = inspect(result.target).components[0]
    assert (found.kind, found.contract) == ("vae_encoder", "z")
    assert "C4c" in found.windows


def test_a_cut_encoder_is_the_modern_one_of_its_libraries(package: Package, tmp_path: Path) -> None:
    """coremltools 7.0 wrote both forms: what is left after the cut has the moments of the encoder with one input."""
    (result,) = repair.apply(repair.plan(inspect(package("7.0/0.3.0-late/vae_encoder"))), tmp_path)
    modern = run(package("7.0/C6b/vae_encoder"), z=IMAGE)
    np.testing.assert_array_equal(run(Path(result.target), z=IMAGE), modern.astype(np.float32))


@pytest.mark.long
@pytest.mark.parametrize("component", ["text_encoder", "unet", "vae_decoder", "vae_encoder"])
def test_float16_outputs_become_float32(component: str, package: Package, tmp_path: Path) -> None:
    from parity import coreml
    from tests.eras.test_execution import inputs

    source = package(f"7.0/C6b/{component}")
    (result,) = repair.apply(repair.plan(inspect(source), only=("float32-outputs",)), tmp_path)
    assert {feature.dtype for feature in inspect(result.target).components[0].outputs} == {"FLOAT32"}
    before, after = (coreml.load(path, runtime="reference") for path in (source, Path(result.target)))
    given = inputs(before)
    for key, value in after.predict(given).items():
        np.testing.assert_array_equal(np.asarray(value, np.float32), np.asarray(before.predict(given)[key], np.float32))


def test_a_causal_mask_that_8_bits_lost_is_restored(
    package: Package, original: Callable[[str], object], tmp_path: Path
) -> None:
    """coremltools 6.1 gave the mask, whose elements are all equal before its triangle is cut, the scale 0."""
    from parity import coreml
    from tests.eras.test_execution import expected, inputs, psnr

    source = package("6.1/0.2.0-affine8/text_encoder")
    inspection = inspect(source)
    assert inspection.components[0].fingerprint.mask == "lost"
    assert any("every token sees all others" in finding.text for finding in inspection.bundles[0].findings)
    (result,) = repair.apply(repair.plan(inspection, only=("causal-mask",)), tmp_path)
    assert all(proof.exact for proof in result.proofs)
    assert inspect(result.target).components[0].fingerprint.mask == "patched"
    models = [coreml.load(path, runtime="reference") for path in (source, Path(result.target))]
    given = inputs(models[0])
    truth = expected("text_encoder", given, original)["last_hidden_state"]
    before, after = (psnr(np.asarray(model.predict(given)["last_hidden_state"]), truth) for model in models)
    assert before < 15
    assert after > 30  # the bound of 8-bit weights


def test_a_lost_mask_is_known_in_compiled_text_too(package: Package, tmp_path: Path) -> None:
    from tests.contracts.test_compiled import compiled

    lost = compiled(package("6.1/0.2.0-affine8/text_encoder"), tmp_path / "lost" / "TextEncoder.mlmodelc")
    kept = compiled(package("6.1/0.2.0/text_encoder"), tmp_path / "kept" / "TextEncoder.mlmodelc")
    assert inspect(lost).components[0].fingerprint.mask == "lost"
    assert inspect(kept).components[0].fingerprint.mask == "patched"


def test_wrong_palettes_are_named_with_the_values_that_were_lost(package: Package, tmp_path: Path) -> None:
    """The float weights of the same era are the witness: which tensors differ, and in which values."""
    from parity.contracts import fingerprint
    from parity.mil import values
    from tests.contracts.test_compiled import compiled

    wrong: dict[str, tuple[float, ...]] = {}
    for component in ("text_encoder", "unet"):
        plain, small = (
            mil.load(package(f"8.3/{folder}/{component}")) for folder in ("batch-one", "batch-one-palette8")
        )
        weights = {
            o.outputs[0].name: o.attributes["val"] for o in fingerprint.operations(plain.program) if o.type == "const"
        }
        for operation in fingerprint.operations(small.program):
            if operation.type != "constexpr_lut_to_dense":
                continue
            name = operation.outputs[0].name
            if (message := weights.get(name.removesuffix("_palettized"))) is None:
                continue  # the causal mask: folded anew
            table, places = (values.decode(operation.attributes[n], n, small.weights) for n in ("lut", "indices"))
            weight = values.decode(message, name, plain.weights).reshape(-1)
            if len(lost := np.unique(weight[np.abs(table[places].astype(float) - weight) > 1e-3])):
                wrong[name] = tuple(map(float, lost))
    assert wrong == {
        "mid_block_resnets_0_conv2_weight_to_fp16_palettized": (-0.03125,),
        "mid_block_resnets_1_conv2_weight_to_fp16_palettized": (0.125,),
    }
    source = package("8.3/batch-one-palette8/unet")
    for path in (source, compiled(source, tmp_path / "Unet.mlmodelc")):
        inspection = inspect(path)
        found = inspection.components[0].fingerprint.palettes
        assert {one.tensor: one.lost for one in found} == wrong
        (text,) = (f.text for f in inspection.bundles[0].findings if "unpack" in f.text)
        assert all(name in text for name in wrong)
    (refused,) = repair.plan(inspect(source)).refused
    assert refused[1] == text


@pytest.mark.parametrize("name", ["7.0b1/1.0.0-palette4", "7.2/1.1.1-palette6", "8.3/batch-one-palette8"])
def test_no_right_palette_is_suspected(name: str, package: Package) -> None:
    for component in ("text_encoder", "unet"):
        found = inspect(package(f"{name}/{component}")).components[0].fingerprint
        assert any("palette" in form for form in found.storage)
        assert bool(found.palettes) == (name.startswith("8.3") and component == "unet")
