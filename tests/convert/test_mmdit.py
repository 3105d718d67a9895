"""Stable Diffusion 3's packages: the told features, the right numbers, and what no release could write."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from parity import convert, coreml, mil, recipes
from parity.contracts.inspect import inspect
from parity.convert import build, samples
from parity.convert.plan import plan
from parity.errors import MissingError, UsageError
from parity.metrics import measure

H = "FLOAT16"
FULL = {"joint_attention_dim": 4096, "pooled_projection_dim": 2048, "sample_size": 64, "pos_embed_max_size": 192}


def edited(folder: Path, part: str, **values: object) -> Path:
    file = folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    return folder


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny-sd3"
    recipes.write(recipes.load("tiny-sd3"), folder)
    return folder


@pytest.fixture
def model(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "tiny-sd3"))


def test_features_of_the_full_size_model_are_the_told_ones(model: Path) -> None:
    edited(model, "transformer", **FULL)
    for part, width in (("text_encoder", 768), ("text_encoder_2", 1280)):
        edited(model, part, hidden_size=width, projection_dim=width)
    found = {job.key: job for job in plan(str(model), identifier="stabilityai/stable-diffusion-3-medium")}
    listed = {key: [(f.name, f.shape, f.dtype) for f in (*job.inputs, *job.outputs)] for key, job in found.items()}
    assert listed == {
        "text_encoder": [
            ("input_ids", (1, 77), "FLOAT32"),
            ("hidden_embeds", (1, 77, 768), "FLOAT32"),
            ("pooled_outputs", (1, 768), "FLOAT32"),
        ],
        "text_encoder_2": [
            ("input_ids", (1, 77), "FLOAT32"),
            ("hidden_embeds", (1, 77, 1280), "FLOAT32"),
            ("pooled_outputs", (1, 1280), "FLOAT32"),
        ],
        "mmdit": [
            ("latent_image_embeddings", (2, 16, 64, 64), H),
            ("token_level_text_embeddings", (2, 4096, 1, 154), H),
            ("pooled_text_embeddings", (2, 2048, 1, 1), H),
            ("timestep", (2,), H),
            ("denoiser_output", (2, 16, 64, 64), H),
        ],
        "vae_decoder": [("z", (1, 16, 64, 64), H), ("image", (1, 3, 512, 512), H)],
    }
    assert (found["mmdit"].contract.compute, found["vae_decoder"].contract.compute) == ("FLOAT32", "FLOAT16")
    assert found["mmdit"].file_name == "Stable_Diffusion_version_stabilityai_stable-diffusion-3-medium_mmdit.mlpackage"
    assert found["mmdit"].labels["metadata"] == {"com.github.apple.ml-stable-diffusion.version": "1.1.0"}
    assert found["vae_decoder"].labels["description"] == ""
    assert found["mmdit"].labels["license"].startswith("Stability AI Community License (")


@pytest.mark.long
def test_packages_agree_with_pytorch_and_are_known_again(model: Path, tmp_path: Path) -> None:
    made = convert.convert(str(model), tmp_path / "out", contract="C8a")  # checks each against its original
    program = mil.load(made["mmdit"]).program
    block = next(iter(program.functions["main"].block_specializations.values()))
    kinds = {operation.type for operation in block.operations}
    assert "pixel_shuffle" in kinds
    ranks = [len(output.type.tensorType.dimensions) for op in block.operations for output in op.outputs]
    assert max(ranks) <= 5, "Core ML has no tensors of more axes"
    (bundle,) = inspect(tmp_path / "out").bundles
    assert (bundle.family, bundle.prediction) == ("sd3", "epsilon")
    assert {component.kind for component in bundle.components} == set(made)
    for component in bundle.components:
        assert "C8a" in component.windows
        alone = component.kind in ("mmdit", "vae_decoder")  # encoders have SDXL's features and, here, no known id
        assert component.family == ("sd3" if alone else "sdxl")
    (transformer,) = (c for c in bundle.components if c.kind == "mmdit")
    assert transformer.windows == ("C8a", "C8b", "C8c", "C8d", "C8e", "C8f")
    assert transformer.sizes.items() >= {"J": 96, "S": 77, "h": 8, "w": 8, "B": 2}.items()


def test_the_traced_transformer_equals_diffusers_own(model: Path) -> None:
    import torch

    (job,) = plan(str(model), components=["mmdit"])
    network = build.network(job, build.load(job))
    inputs = [torch.from_numpy(array) for array in samples.examples(job, seed=3)]
    with torch.no_grad():
        ours, theirs = network.module(*inputs)[0], network.reference(*inputs)[0]
    assert theirs.shape == (2, 16, 8, 8)
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.long
def test_another_size_and_rows_that_do_not_mix(model: Path, tmp_path: Path) -> None:
    made = convert.convert(str(model), tmp_path / "out", components=["mmdit"], height=96, width=64, check=False)
    package = coreml.load(made["mmdit"], runtime="reference")
    (job,) = plan(str(model), components=["mmdit"], settings=convert.job.Settings(height=96, width=64))
    inputs = {f.name: array for f, array in zip(job.inputs, samples.examples(job, seed=1), strict=True)}
    assert inputs["latent_image_embeddings"].shape == (2, 16, 12, 8)
    once = np.asarray(package.predict(inputs)["denoiser_output"])
    swapped = np.asarray(
        package.predict({name: array[::-1].copy() for name, array in inputs.items()})["denoiser_output"]
    )
    assert measure("tensor_psnr", once[::-1].astype(np.float64), swapped.astype(np.float64)) > 60


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        ({}, {"components": ["vae_encoder"]}, UsageError, "no converter release writes Stable Diffusion 3's"),
        ({}, {"components": ["unet"]}, MissingError, "has no unet; it has"),
        ({}, {"contract": "1.1.1"}, UsageError, "writes no mmdit of family sd3; written by C8a to"),
        ({}, {"height": 72}, UsageError, "multiples of 16 up to 192"),
        ({}, {"height": 256}, UsageError, "multiples of 16 up to 192"),
        ({"pooled_projection_dim": 64}, {}, UsageError, "pooled texts of width 64, the text encoders give 32 and 48"),
    ],
)
def test_what_cannot_be_written(
    model: Path, tmp_path: Path, change: dict, options: dict, error: type, message: str
) -> None:
    edited(model, "transformer", **change)
    with pytest.raises(error, match=message):
        convert.convert(str(model), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_widths_that_do_not_fit_are_found_by_inspect(tmp_path: Path) -> None:
    from tests.contracts import packages

    names = ("text_encoder", "text_encoder_2", "mmdit", "vae_decoder")
    packages.folder_of(tmp_path, *names, window="C8a", family="sd3")
    assert not [f for f in inspect(tmp_path).bundles[0].findings if f.severity == "error"]
    shutil.rmtree(next(tmp_path.glob("*mmdit.mlpackage")))
    packages.component(tmp_path, "mmdit", window="C8a", family="sd3", P=1024)
    errors = [f.text for f in inspect(tmp_path).bundles[0].findings if f.severity == "error"]
    assert errors == ["the transformer takes pooled texts of width 1792, the text encoders give 2048 together"]
