"""Repairs on real conversions of the miniature model: exact moments, provenance, nothing half-written."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from parity import assets, cli, mil, repair
from parity.contracts.causal import mask_values
from parity.contracts.consumers import consumers
from parity.contracts.inspect import inspect
from parity.errors import FormatError, UsageError
from parity.repair import encoder, features
from parity.repair.program import Editor
from tests.contracts import packages

Converted = Callable[..., Path]
IMAGE = np.random.RandomState(93).uniform(-1, 1, (1, 3, 128, 128)).astype(np.float16)


def operators(path: Path) -> list[str]:
    function = mil.load(path).program.functions["main"]
    return [op.type for op in function.block_specializations[function.opset].operations]


def run(path: Path, **inputs: np.ndarray) -> np.ndarray:
    from parity.mil.session import Session

    return next(iter(Session(mil.load(path), fuse=False).predict(inputs).values()))


def repaired(path: Path, output: Path, **options) -> repair.Repaired:
    who = options.pop("consumer", None)
    plan = repair.plan(inspect(path), consumer=consumers().consumer(who) if who else None, only=options.pop("only", ()))
    (result,) = repair.apply(plan, output, **options)
    return result


def test_a_cut_encoder_gives_the_moments_of_a_modern_conversion(
    converted: Converted, checkpoint: Path, tmp_path: Path
) -> None:
    result = repaired(converted("0.3.0", "vae_encoder"), tmp_path, reference=checkpoint)
    modern = converted("0.4.0", "vae_encoder")
    ours, theirs = run(Path(result.target), z=IMAGE), run(modern, z=IMAGE)
    assert ours.dtype == theirs.dtype == np.float32
    np.testing.assert_array_equal(ours, theirs)
    assert float(ours.std()) > 0.01
    assert operators(Path(result.target)) == operators(modern)
    assert [proof.exact for proof in result.proofs] == [True, False]
    assert "PSNR" in str(result.proofs[1])
    found = inspect(result.target).components[0]
    assert (found.contract, found.windows) == ("z", inspect(modern).components[0].windows)
    assert any("repaired" in hint for hint in found.hints)


def test_halves_that_take_variances_are_proved(tmp_path: Path) -> None:
    """Of a package that was cut inside a normalization: random numbers below zero have no root."""
    with zipfile.ZipFile(assets.fixtures() / "eras" / "6.1" / "models.zip") as archive:
        archive.extractall(tmp_path / "models", [name for name in archive.namelist() if "0.2.0/" in name])
    inspection = inspect(next((tmp_path / "models").rglob("0.2.0")))
    plan = repair.plan(inspection)
    (job,) = (job for job in plan.jobs if job.component.chunk == 2)
    assert any("reduce_mean" in feature.name for feature in mil.load(Path(inspection.path) / job.component.path).inputs)
    (result,) = repair.apply(replace(plan, jobs=(job,)), tmp_path / "out")
    assert [proof.exact for proof in result.proofs] == [True]


def test_x_becomes_z_and_back_by_a_rename(converted: Converted, tmp_path: Path) -> None:
    source = converted("1.1.0", "vae_encoder")
    first = repaired(source, tmp_path / "z")
    second = repaired(Path(first.target), tmp_path / "x", only=("encoder-x",))
    results = [run(source, x=IMAGE), run(Path(first.target), z=IMAGE), run(Path(second.target), x=IMAGE)]
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])
    assert operators(source) == operators(Path(first.target))


@pytest.mark.parametrize("contract", ["0.4.0", "1.1.0"])
def test_a_modern_encoder_extended_for_swift_3_equals_the_old_one(
    contract: str, converted: Converted, tmp_path: Path
) -> None:
    result = repaired(converted(contract, "vae_encoder"), tmp_path, consumer="S3")
    old = converted("0.3.0", "vae_encoder")
    random = np.random.RandomState(7)
    inputs = {
        "sample": IMAGE,
        "diagonal_noise": random.standard_normal((1, 4, 16, 16)).astype(np.float16),
        "noise": random.standard_normal((1, 4, 16, 16)).astype(np.float16),
        "sqrt_alphas_cumprod": np.full((1, 1), 0.7, np.float16),
        "sqrt_one_minus_alphas_cumprod": np.full((1, 1), 0.714, np.float16),
    }
    again = repaired(Path(result.target), tmp_path / "again")
    modern = converted(contract, "vae_encoder")
    (name,) = (feature.name for feature in mil.load(modern).inputs)
    np.testing.assert_array_equal(run(Path(again.target), z=IMAGE), run(modern, **{name: IMAGE}))
    extended, original = run(Path(result.target), **inputs), run(old, **inputs)
    if contract == "0.4.0":
        np.testing.assert_array_equal(extended, original)
        assert operators(Path(result.target)) == operators(old)
    else:  # attention of four axes instead of three: other operations, rounded otherwise
        np.testing.assert_allclose(extended, original, atol=0.01)


@pytest.mark.long
def test_compressed_encoders_are_cut_too(converted: Converted, tmp_path: Path) -> None:
    source = converted("0.3.0", "vae_encoder", compression="affine8")
    assert inspect(source).components[0].fingerprint.compression == ("8-bit linear",)
    result = repaired(source, tmp_path)
    assert result.proofs[0].exact
    assert inspect(result.target).components[0].fingerprint.compression == ("8-bit linear",)


def test_provenance_is_recorded(converted: Converted, tmp_path: Path) -> None:
    source = converted("0.3.0", "vae_encoder")
    result = repaired(source, tmp_path)
    record = json.loads(mil.load(result.target).metadata.user_defined[repair.PROVENANCE])
    assert record["repairs"] == ["encoder-z"]
    assert record["source_digest"] == mil.load(source).digest()
    author = mil.load(source).metadata.author
    assert mil.load(result.target).metadata.author == author


def test_float16_outputs_become_float32(converted: Converted, tmp_path: Path) -> None:
    source = converted("0.4.0", "vae_decoder", outputs="FLOAT16")
    result = repaired(source, tmp_path)
    latent = np.random.RandomState(1).standard_normal((1, 4, 16, 16)).astype(np.float16)
    before, after = run(source, z=latent), run(Path(result.target), z=latent)
    assert (before.dtype.name, after.dtype.name) == ("float16", "float32")
    np.testing.assert_array_equal(before.astype(np.float32), after)
    assert result.proofs[0].exact


@pytest.mark.parametrize("compression", [None, "palette6"])
def test_an_overflowing_mask_is_replaced(compression: str | None, converted: Converted, tmp_path: Path) -> None:
    good = converted("1.1.0", "text_encoder", compression=compression)
    assert inspect(good).components[0].fingerprint.mask == "patched"
    broken = unpatched(good, tmp_path / good.name)
    assert inspect(broken).components[0].fingerprint.mask == "unpatched"
    result = repaired(broken, tmp_path / "out")
    assert "of the causal mask set to -10000" in result.changes[0]
    assert inspect(result.target).components[0].fingerprint.mask == "patched"
    ids = np.arange(77, dtype=np.float32)[None] % 40
    np.testing.assert_array_equal(run(Path(result.target), input_ids=ids), run(good, input_ids=ids))


def unpatched(source: Path, target: Path) -> Path:
    """Copy a text encoder, its mask's -1e4 (or the table's entry) made the smallest float16."""
    model = mil.load(source)
    function = model.program.functions["main"]
    for operation in function.block_specializations[function.opset].operations:
        for value in mask_values(operation, 77):
            offset = value.blobFileValue.offset
    record = model.weights.file().record(offset)
    content = bytearray(model.weights.file().path.read_bytes())
    mask = np.frombuffer(content, np.float16, record.count, record.data_offset).copy()
    assert mask.min() == pytest.approx(-10000, rel=1e-3)
    mask[mask < -9000] = -65504
    content[record.data_offset : record.data_offset + mask.nbytes] = mask.tobytes()
    weights = target.parent / "weights.bin"
    target.parent.mkdir(parents=True, exist_ok=True)
    weights.write_bytes(content)
    return mil.save(model.specification, {"@model_path/weights/weight.bin": weights}, target)


def test_time_ids_are_reshaped_both_ways(tmp_path: Path) -> None:
    ids = np.arange(12, dtype=np.float16)
    inputs = {"time_ids": ("FLOAT16", (2, 6)), "sample": ("FLOAT16", (2, 4, 8, 8))}
    source = packages.package(tmp_path, "rows", inputs, {"noise_pred": ("FLOAT16", (2, 6))})
    sample = np.zeros((2, 4, 8, 8), np.float16)
    editor = Editor(mil.load(source))
    assert features.reshape_time_ids(editor, flat=True) == (12,)
    flat = mil.save(editor.specification, None, tmp_path / "flat.mlpackage")
    assert [f.shape for f in mil.load(flat).inputs] == [(12,), (2, 4, 8, 8)]
    np.testing.assert_array_equal(run(flat, time_ids=ids, sample=sample), ids.reshape(2, 6))
    back = Editor(mil.load(flat))
    assert features.reshape_time_ids(back, flat=False) == (2, 6)
    assert features.reshape_time_ids(back, flat=False) == (2, 6), "nothing to do the second time"
    rows = mil.save(back.specification, None, tmp_path / "rows-again.mlpackage")
    np.testing.assert_array_equal(run(rows, time_ids=ids.reshape(2, 6), sample=sample), ids.reshape(2, 6))


@pytest.mark.slow
def test_time_ids_of_a_converted_sdxl_unet(tmp_path: Path) -> None:
    from parity.convert import convert
    from tests.convert import models

    (tmp_path / "model").mkdir()
    model = str(models.build("sdxl", tmp_path / "model"))
    flat, rows = (
        convert(model, tmp_path / contract, contract=contract, components=["unet"], identifier="a/xl")["unet"]
        for contract in ("C6b", "1.1.0")
    )
    random = np.random.RandomState(4)
    inputs = {f.name: random.standard_normal(f.shape).astype(np.float16) for f in mil.load(flat).inputs}
    expected = run(flat, **inputs)
    for source, name in ((rows, "time-ids-flat"), (flat, "time-ids-rows")):
        result = repaired(source, tmp_path / name, only=(name,))
        assert result.proofs[0].exact
    made_flat = tmp_path / "time-ids-flat" / rows.name
    np.testing.assert_array_equal(run(made_flat, **inputs).astype(np.float16), expected)
    made_rows = tmp_path / "time-ids-rows" / flat.name
    inputs["time_ids"] = inputs["time_ids"].reshape(2, 6)
    np.testing.assert_array_equal(run(made_rows, **inputs), expected)


def test_chunks_get_the_metadata_of_their_siblings(tmp_path: Path) -> None:
    packages.folder_of(tmp_path, "text_encoder", "vae_decoder")
    packages.component(tmp_path, "unet", chunk=1)
    plan = repair.plan(inspect(tmp_path))
    assert [(job.component.chunk, job.repairs) for job in plan.jobs] == [(1, ("metadata",))]
    (result,) = repair.apply(plan, tmp_path / "out", prove=False)
    assert mil.load(result.target).metadata.version == packages.MODEL_ID


def test_a_plan_serves_the_named_consumer(tmp_path: Path) -> None:
    packages.folder_of(tmp_path, "vae_encoder", window="1.1.0")
    packages.folder_of(tmp_path, "unet", window="C7", family="sdxl")
    planned = {
        name: [r for job in repair.plan(inspect(tmp_path), consumer=who).jobs for r in job.repairs]
        for name, who in [("none", None), *((i, consumers().consumer(i)) for i in ("S3", "S6", "S7", "M3.0", "P6"))]
    }
    assert planned["none"] == ["encoder-z"]
    assert planned["S3"] == planned["M3.0"] == ["encoder-legacy"]
    assert sorted(planned["S6"]) == ["encoder-z", "time-ids-flat"]
    assert planned["S7"] == ["encoder-z"]
    assert planned["P6"] == []


def test_another_encoder_with_five_inputs_is_refused(converted: Converted, tmp_path: Path) -> None:
    model = mil.load(converted("0.3.0", "vae_encoder"))
    editor = Editor(model)
    clip = next(op for op in editor.block.operations if op.type == "clip")
    clip.type = "tanh"
    target = mil.save(
        editor.specification, model.weights, tmp_path / "Stable_Diffusion_version_x_vae_encoder.mlpackage"
    )
    with pytest.raises(FormatError, match="is the result of tanh, expected clip"):
        encoder.moments(Editor(mil.load(target)))
    with pytest.raises(FormatError, match="not the encoder of five inputs that the converter wrote"):
        repaired(target, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.mlpackage"))


def test_a_failed_proof_writes_nothing(converted: Converted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(editor: Editor, **_: str) -> str:
        found = encoder.moments(editor)
        editor.set_outputs([found])
        editor.set_inputs([("sample", "fp16", (1, 3, 128, 128), "")])
        editor.rename("sample", "z")
        doubled = {"dtype": "fp16", "shape": (1, 8, 16, 16)}
        total = editor.append("add", "twice", {"x": found, "y": found}, **doubled)
        editor.set_outputs(
            [editor.append("cast", "latent", {"x": total, "dtype": "fp32"}, dtype="fp32", shape=(1, 8, 16, 16))]
        )
        editor.describe_outputs([("latent", "fp32", (1, 8, 16, 16), "")])
        return found

    monkeypatch.setattr(encoder, "cut", wrong)
    with pytest.raises(FormatError, match="differs from its original: latent against the original's own moments"):
        repaired(converted("0.3.0", "vae_encoder"), tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.mlpackage"))


def test_existing_results_are_kept_unless_forced(converted: Converted, tmp_path: Path) -> None:
    source = converted("0.3.0", "vae_encoder")
    repaired(source, tmp_path, prove=False)
    with pytest.raises(UsageError, match="exists; choose another output, or --force"):
        repaired(source, tmp_path, prove=False)
    repaired(source, tmp_path, prove=False, force=True)


def test_the_command_plans_writes_and_makes_a_folder_pass(
    converted: Converted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    folder, out = tmp_path / "old models", tmp_path / "new models"
    packages.folder_of(folder, "text_encoder", "unet", "vae_decoder", window="0.3.0", h=16, w=16, model_id="a/b")
    source = converted("0.3.0", "vae_encoder")
    shutil.copytree(source, folder / source.name)
    demand = ["--require", "img2img on swift>=0.4"]
    assert cli.main(["inspect", str(folder), *demand]) == 1
    assert cli.main(["repair", str(folder), "--dry-run"]) == 0
    assert "encoder-z: cut the VAE encoder" in capsys.readouterr().out
    assert not out.exists()
    assert cli.main(["repair", str(folder), "-o", str(out), "--complete"]) == 0
    assert "bit-identical over 2,048 values" in capsys.readouterr().out
    assert cli.main(["inspect", str(out), *demand]) == 0
    assert cli.main(["repair", str(folder)]) == 2
    assert cli.main(["repair", str(folder), "-o", str(out), "--only", "magic"]) == 2
    assert cli.main(["repair", str(folder), "-o", str(out), "--for", "swift"]) == 2
    before = mil.load(folder / source.name).digest()
    assert cli.main(["repair", str(folder), "--in-place", "--no-proof"]) == 0
    assert mil.load(folder / source.name).digest() != before
