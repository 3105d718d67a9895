"""Compiled models with their real program text: inspected like their packages, and rebuilt as packages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from parity import cli, mil, repair
from parity.contracts.inspect import inspect

Converted = Callable[..., Path]
_DTYPES = {"fp16": "Float16", "fp32": "Float32"}


def compiled(source: Path, target: Path, *, metadata: bool = True) -> Path:
    """Write a package's program as text, its weights and its metadata, as Core ML's compiler lays them out."""
    from parity.coreml.mil_text import write_program

    model = mil.load(source)
    (target / "weights").mkdir(parents=True)
    (target / "model.mil").write_text(write_program(model.program))
    shutil.copy(model.weights.file().path, target / "weights" / "weight.bin")
    if metadata:
        counts = inspect(source).components[0].fingerprint.operators
        texts = model.metadata

        def schema(features) -> list[dict]:
            return [
                {"name": f.name, "dataType": _DTYPES[f.dtype], "shape": str(list(f.shape)), "type": "MultiArray"}
                for f in features
            ]

        document = {
            "inputSchema": schema(model.inputs),
            "outputSchema": schema(model.outputs),
            "specificationVersion": 7,
            "author": texts.author,
            "license": texts.license,
            "version": texts.version,
            "shortDescription": texts.short_description,
            "userDefinedMetadata": dict(texts.user_defined),
            "mlProgramOperationTypeHistogram": {
                "Ios16." + "".join(p if i == 0 else p.title() for i, p in enumerate(k.split("_"))): n
                for k, n in counts.items()
            },
        }
        (target / "metadata.json").write_text(json.dumps([document]))
    return target


@pytest.mark.long
@pytest.mark.parametrize("metadata", [True, False])
@pytest.mark.parametrize(("contract", "component"), [("0.3.0", "vae_encoder"), ("1.1.0", "text_encoder")])
def test_a_compiled_model_is_read_like_its_package(
    contract: str, component: str, metadata: bool, converted: Converted, tmp_path: Path
) -> None:
    source = converted(contract, component)
    one = inspect(source).components[0]
    other = inspect(compiled(source, tmp_path / "Model.mlmodelc", metadata=metadata)).components[0]
    for field in ("kind", "contract", "sizes", "weight_bytes"):
        assert getattr(one, field) == getattr(other, field), field
    assert (one.fingerprint.mask, one.fingerprint.mask_minimum) == (
        other.fingerprint.mask,
        other.fingerprint.mask_minimum,
    )
    assert one.fingerprint.operators == other.fingerprint.operators
    assert one.fingerprint.storage.keys() == other.fingerprint.storage.keys()
    if metadata:
        assert one.windows == other.windows


@pytest.mark.long
def test_a_truncated_weight_file_of_a_compiled_model_is_found(converted: Converted, tmp_path: Path) -> None:
    folder = compiled(converted("0.3.0", "vae_encoder"), tmp_path / "VAEEncoder.mlmodelc")
    weights = folder / "weights" / "weight.bin"
    weights.write_bytes(weights.read_bytes()[:100_000])
    assert inspect(tmp_path).components[0].kind == "broken"


def test_a_compiled_legacy_encoder_is_rebuilt_and_cut(converted: Converted, tmp_path: Path) -> None:
    from parity.mil.session import Session

    source = converted("0.3.0", "vae_encoder")
    folder = tmp_path / "Resources"
    compiled(source, folder / "VAEEncoder.mlmodelc")
    plan = repair.plan(inspect(folder))
    assert [job.repairs for job in plan.jobs] == [("package", "encoder-z")]
    (result,) = repair.apply(plan, tmp_path / "out")
    assert Path(result.target).name == "Stable_Diffusion_version_parity_tiny-sd_vae_encoder.mlpackage"
    assert result.proofs[0].exact
    image = np.random.RandomState(3).uniform(-1, 1, (1, 3, 128, 128)).astype(np.float16)
    modern = Session(mil.load(converted("0.4.0", "vae_encoder"))).predict({"z": image})["latent"]
    np.testing.assert_array_equal(Session(mil.load(result.target)).predict({"z": image})["latent"], modern)
    assert "shortDescription" not in mil.load(result.target).metadata.user_defined
    assert mil.load(result.target).metadata.version == mil.load(source).metadata.version


def test_packages_alone_are_rebuilt_exactly(converted: Converted, tmp_path: Path) -> None:
    source = converted("1.1.0", "text_encoder")
    compiled(source, tmp_path / "R" / "TextEncoder.mlmodelc")
    assert cli.main(["repair", str(tmp_path / "R"), "--packages", "-o", str(tmp_path / "out")]) == 0
    (rebuilt,) = (tmp_path / "out").iterdir()
    from parity.contracts.diff import diff_models

    found = diff_models(source, rebuilt)
    assert found.same, found
    in_place = ["repair", str(tmp_path / "R" / "TextEncoder.mlmodelc"), "--in-place"]
    assert cli.main(in_place) == 2
