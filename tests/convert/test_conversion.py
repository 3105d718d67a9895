"""Conversions under the released contracts: what is written, and that it computes what PyTorch computes."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from parity import convert
from parity.contracts import converter
from parity.convert import attention, build, lower, plan, samples
from parity.convert.job import Settings, TensorSpec
from parity.convert.networks import Network
from parity.convert.spec import read_spec
from parity.metrics import measure

Model = Callable[[str], Path]
FLOAT16, FLOAT32 = 65552, 65568


def operations(package: Path) -> Counter[str]:
    program = read_spec(package).mlProgram.functions["main"]
    return Counter(op.type for op in program.block_specializations[program.opset].operations if op.type != "const")


def features(package: Path) -> dict[str, list[tuple[str, int]]]:
    description = read_spec(package).description
    return {
        "inputs": [(f.name, f.type.multiArrayType.dataType) for f in description.input],
        "outputs": [(f.name, f.type.multiArrayType.dataType) for f in description.output],
    }


def agreements(folder: Path) -> dict[str, float]:
    record = json.loads((folder / "conversion.json").read_text())
    return {name: entry["agreement"]["psnr"] for name, entry in record.items()}


@pytest.fixture(scope="module")
def main_folder(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All components of Stable Diffusion 1 under today's contract."""
    folder = tmp_path_factory.mktemp("main")
    components = ["text_encoder", "unet", "control-unet", "controlnet", "vae_decoder", "vae_encoder", "safety_checker"]
    convert.convert(model("sd1"), folder, components=components, controlnets=[model("controlnet")], identifier="o/sd1")
    return folder


@pytest.mark.long
def test_todays_contract(main_folder: Path) -> None:
    """File names, features and dtypes as contracts.md sections 2, 4 and 5 list them."""
    stem = "Stable_Diffusion_version_o_sd1_"
    found = {path.stem.removeprefix(stem): features(path) for path in main_folder.glob("*.mlpackage")}
    residuals = [(f"additional_residual_{i}", FLOAT16) for i in range(5)]
    unet = [("sample", FLOAT16), ("timestep", FLOAT16), ("encoder_hidden_states", FLOAT16)]
    noise = [("noise_pred", FLOAT32)]
    safety = [("filtered_images", FLOAT32), ("has_nsfw_concepts", FLOAT32), ("concept_scores", FLOAT32)]
    assert found == {
        "text_encoder": {
            "inputs": [("input_ids", FLOAT32)],
            "outputs": [("last_hidden_state", FLOAT32), ("pooled_outputs", FLOAT32)],
        },
        "unet": {"inputs": unet, "outputs": noise},
        "control-unet": {"inputs": unet + residuals, "outputs": noise},
        "ControlNet_tiny-controlnet": {
            "inputs": [*unet, ("controlnet_cond", FLOAT16)],
            "outputs": [(name, FLOAT32) for name, _ in residuals],
        },
        "vae_decoder": {"inputs": [("z", FLOAT16)], "outputs": [("image", FLOAT32)]},
        "vae_encoder": {"inputs": [("x", FLOAT16)], "outputs": [("latent", FLOAT32)]},
        "safety_checker": {
            "inputs": [("clip_input", FLOAT16), ("images", FLOAT16), ("adjustment", FLOAT16)],
            "outputs": safety,
        },
    }


@pytest.mark.long
def test_todays_metadata(main_folder: Path) -> None:
    key = "com.github.apple.ml-stable-diffusion.version"
    for path in main_folder.glob("*.mlpackage"):
        spec = read_spec(path)
        metadata = spec.description.metadata
        assert spec.specificationVersion == 7
        assert "o/sd1" in metadata.author or "tiny-controlnet" in metadata.author
        assert metadata.license.startswith("OpenRAIL (")
        assert metadata.versionString in {"o/sd1", "tiny-controlnet"}
        assert "arXiv" in metadata.shortDescription
        assert metadata.userDefined["com.github.apple.coremltools.source"].startswith("torch==")
        assert "com.github.apple.coremltools.conversion_date" not in metadata.userDefined
        assert (key in metadata.userDefined) == path.stem.endswith("unet")
        assert metadata.userDefined.get(key, "1.1.0") == "1.1.0"
        assert all(f.shortDescription for f in (*spec.description.input, *spec.description.output))


@pytest.mark.long
def test_every_component_agrees_with_pytorch(main_folder: Path) -> None:
    """The built-in check ran on three seeds each; these networks reach 50 dB and more in float16."""
    found = agreements(main_folder)
    assert len(found) == 7
    assert all(value is None or value > 50 for value in found.values()), found


@pytest.mark.long
def test_token_ids_above_float16s_integers_survive(tmp_path: Path) -> None:
    """49407, the end-of-text token, would become 49408 in float16."""
    from parity import coreml
    from tests.convert.models import clip_text, save, unet

    ends = {
        "vocab_size": 49408,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "eos_token_id": 49407,
    }
    text = clip_text(num_attention_heads=1, projection_dim=8, max_position_embeddings=9, bos_token_id=0, **ends)
    import diffusers

    parts = {"text_encoder": text, "unet": unet(), "scheduler": diffusers.PNDMScheduler()}
    folder = save(tmp_path / "model", "StableDiffusionPipeline", parts)
    package = convert.convert(folder, tmp_path, components=["text_encoder"])["text_encoder"]
    ids = np.array([[5, 49406, 49405, 49407, 49407, 49407, 49407, 49407, 49407]], np.float32)
    actual = coreml.load(package).predict({"input_ids": ids})
    expected = text(torch.from_numpy(ids).long()).pooler_output.detach().numpy()
    np.testing.assert_allclose(actual["pooled_outputs"], expected, atol=0.02)


@pytest.mark.long
def test_five_input_encoder_with_half_precision_output(model: Model, tmp_path: Path) -> None:
    made = convert.convert(model("sd1"), tmp_path, contract="0.3.0", components=["vae_encoder"], outputs="FLOAT16")
    names = ["sample", "diagonal_noise", "noise", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"]
    assert features(made["vae_encoder"]) == {
        "inputs": [(name, FLOAT16) for name in names],
        "outputs": [("latent_dist", FLOAT16)],
    }
    assert operations(made["vae_encoder"])["split"] == 1
    assert agreements(tmp_path)[made["vae_encoder"].name] > 50


@pytest.mark.long
def test_first_sdxl_window(model: Model, tmp_path: Path) -> None:
    components = ["text_encoder_2", "unet", "vae_encoder"]
    made = convert.convert(model("sdxl"), tmp_path, contract="C6", components=components, attention="ORIGINAL")
    assert [name for name, _ in features(made["unet"])["inputs"]][-2:] == ["time_ids", "text_embeds"]
    assert features(made["vae_encoder"])["inputs"] == [("z", FLOAT16)]
    assert [name for name, _ in features(made["text_encoder_2"])["outputs"]] == ["hidden_embeds", "pooled_outputs"]
    assert "einsum" not in operations(made["unet"])
    assert min(agreements(tmp_path).values()) > 45


@pytest.mark.long
def test_sdxl_decoder_is_single_precision(model: Model, tmp_path: Path) -> None:
    made = convert.convert(model("sdxl"), tmp_path, components=["vae_decoder"])
    os.umask(mask := os.umask(0o022))
    modes = {path.name: path.stat().st_mode & 0o666 for path in tmp_path.rglob("*") if path.is_file()}
    assert {"model.mlmodel", "weight.bin"} <= modes.keys()
    assert set(modes.values()) == {0o666 & ~mask}  # coremltools writes them for the user alone
    assert features(made["vae_decoder"]) == {"inputs": [("z", FLOAT32)], "outputs": [("image", FLOAT32)]}
    assert agreements(tmp_path)[made["vae_decoder"].name] > 100


@pytest.mark.long
def test_custom_vae_takes_the_place_of_the_models_own(model: Model, tmp_path: Path) -> None:
    """Another VAE of other weights: the package agrees with it, not with the model's own."""
    import diffusers

    from parity import coreml
    from tests.convert import models

    vae = models._seeded(diffusers.AutoencoderKL(**models.VAE), 8)
    vae.save_pretrained(tmp_path / "vae")
    made = convert.convert(model("sdxl"), tmp_path / "out", components=["vae_decoder"], vae=tmp_path / "vae")
    assert made["vae_decoder"].name == "Stable_Diffusion_version_tiny-sdxl_vae_decoder.mlpackage"
    assert features(made["vae_decoder"]) == {"inputs": [("z", FLOAT16)], "outputs": [("image", FLOAT32)]}
    assert agreements(tmp_path / "out")[made["vae_decoder"].name] > 50
    z = np.random.default_rng(1).standard_normal((1, 4, 8, 8)).astype(np.float16).astype(np.float32)
    actual = coreml.load(made["vae_decoder"]).predict({"z": z})["image"]
    own = build.load(plan.plan(model("sdxl"), components=["vae_decoder"])[0])
    with torch.no_grad():
        right, wrong = (net.decode(torch.from_numpy(z)).sample.numpy() for net in (vae, own))
    assert measure("tensor_psnr", right, actual) > 50
    assert measure("tensor_psnr", wrong, actual) < 30


@pytest.mark.slow
def test_refiner_of_a_base_model(model: Model, tmp_path: Path) -> None:
    made = convert.convert(model("sdxl"), tmp_path, components=["refiner"], refiner=model("sdxl-refiner"))
    assert ("time_ids", FLOAT16) in features(made["refiner"])["inputs"]
    assert agreements(tmp_path)[made["refiner"].name] > 45


class _Attention(torch.nn.Module):
    def __init__(self, kind: str, heads: int) -> None:
        super().__init__()
        self.kind, self.heads = kind, heads

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return attention.KINDS[self.kind](q, k, v, self.heads)


@pytest.mark.parametrize(
    ("kind", "queries", "expected"),
    [
        ("ORIGINAL", 64, {"matmul": 2, "softmax": 1, "einsum": 0}),
        ("SPLIT_EINSUM", 64, {"einsum": 6, "softmax": 3, "slice_by_index": 9, "transpose": 1}),
        ("SPLIT_EINSUM_V2", 64, {"einsum": 6, "softmax": 3, "slice_by_index": 9, "transpose": 1}),
        ("SPLIT_EINSUM_V2", 1024, {"einsum": 12, "softmax": 6}),
        ("SPLIT_EINSUM_V2", 1025, {"einsum": 18, "softmax": 9}),
    ],
)
def test_fingerprint_of_each_attention(kind: str, queries: int, expected: dict[str, int], tmp_path: Path) -> None:
    """contracts.md section 11, for three heads."""
    net = Network(_Attention(kind, 3).eval(), lambda *_: ())
    shapes = {"q": (1, 12, 1, queries), "k": (1, 12, 1, 77), "v": (1, 12, 1, 77)}
    inputs = [TensorSpec(name, shape, "FLOAT16") for name, shape in shapes.items()]
    lower.lower(
        net,
        tmp_path / "a.mlpackage",
        inputs=inputs,
        outputs=[TensorSpec("y", (1, 12, 1, queries), "FLOAT32")],
        examples=[np.zeros(shape, np.float32) for shape in shapes.values()],
        labels=lower.Labels("", "", "", ""),
    )
    found = operations(tmp_path / "a.mlpackage")
    assert {name: found[name] for name in expected} == expected
    main = read_spec(tmp_path / "a.mlpackage").mlProgram.functions["main"]
    block = main.block_specializations[main.opset]
    constants = {op.outputs[0].name: op for op in block.operations if op.type == "const"}
    for op in block.operations:
        if op.type == "einsum":
            value = constants[op.inputs["equation"].arguments[0].name].attributes["val"]
            assert value.immediateValue.tensor.strings.values[0] in {"bkhc,bchq->bkhq", "bchk,bkhq->bchq"}
        if op.type == "softmax":
            value = constants[op.inputs["axis"].arguments[0].name].attributes["val"]
            assert value.immediateValue.tensor.ints.values[0] == (3 if kind == "ORIGINAL" else 1)


@pytest.mark.long
def test_layer_norms_fold_into_one_operation(main_folder: Path) -> None:
    """Two transformers of one block: three norms each; 1x1 convolutions, no linear operation."""
    found = operations(main_folder / "Stable_Diffusion_version_o_sd1_unet.mlpackage")
    assert found["layer_norm"] == 6
    assert found["linear"] == 0


EVERY = [
    (family, contract, component)
    for family, contracts, components in (
        (
            "sd1",
            ("0.1.0", "0.2.0", "0.3.0", "0.4.0", "1.0.0", "1.1.0", "main"),
            ("unet", "vae_decoder", "text_encoder"),
        ),
        ("sd1", ("0.2.0", "0.3.0", "0.4.0", "1.0.0", "1.1.0", "main"), ("vae_encoder", "safety_checker")),
        ("sd1", ("C4b", "1.0.0", "main"), ("control-unet", "controlnet")),
        ("sd2", ("0.1.0", "main"), ("unet", "text_encoder")),
        ("inpaint", ("0.3.0", "main"), ("unet",)),
        ("sdxl", ("C6", "1.1.0", "main"), ("unet", "text_encoder", "text_encoder_2", "vae_decoder", "vae_encoder")),
        ("sdxl-refiner", ("1.1.0", "main"), ("unet", "text_encoder_2")),
    )
    for contract in contracts
    for component in components
]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "contract", "component"), EVERY)
def test_every_contract(model: Model, tmp_path: Path, family: str, contract: str, component: str) -> None:
    kinds = converter(contract).attention if "unet" in component or component == "controlnet" else ["ORIGINAL"]
    for kind in kinds:
        settings = Settings(contract=contract, attention=kind)
        nets = [model("controlnet")] if component == "controlnet" else []
        (job,) = plan.plan(model(family), components=[component], settings=settings, controlnets=nets)
        convert.convert(
            model(family), tmp_path / kind, contract=contract, components=[component], attention=kind, controlnets=nets
        )
        found = features(tmp_path / kind / job.file_name)
        codes = {"FLOAT16": FLOAT16, "FLOAT32": FLOAT32}
        assert found["inputs"] == [(f.name, codes[f.dtype]) for f in job.inputs]
        assert found["outputs"] == [(f.name, codes[f.dtype]) for f in job.outputs]
        assert all(value is None or value > 45 for value in agreements(tmp_path / kind).values())


@pytest.mark.parametrize("family", ["sd1", "sd2", "inpaint", "sdxl", "sdxl-refiner"])
def test_traced_networks_equal_their_originals(model: Model, family: str) -> None:
    """In float32 and without Core ML: the rewriting alone, for every component of every family."""
    components = {
        "sd1": ["text_encoder", "unet", "control-unet", "controlnet", "vae_decoder", "vae_encoder", "safety_checker"],
        "sdxl": ["text_encoder", "text_encoder_2", "unet", "vae_decoder"],
        "sdxl-refiner": ["text_encoder_2", "unet"],
    }.get(family, ["text_encoder", "unet"])
    for job in plan.plan(model(family), components=components, controlnets=[model("controlnet")]):
        network = build.network(job, build.load(job))
        tensors = [torch.from_numpy(array) for array in samples.examples(job, seed=2)]
        with torch.no_grad():
            actual, expected = network.module(*tensors), network.reference(*tensors)
        for feature, a, b in zip(job.outputs, actual, expected, strict=True):
            assert tuple(a.shape) == feature.shape, (job.key, feature.name)
            scale = max(float(b.abs().max()), 1e-6)
            torch.testing.assert_close(a, b, rtol=0, atol=2e-5 * scale, msg=f"{job.key} {feature.name}")
