"""Requests are checked before anything is loaded: sizes, names, texts, and every kind of bad input."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from parity.convert import plan, record
from parity.convert.job import Job, Settings
from parity.convert.sizes import residuals
from parity.errors import FormatError, MissingError, ParityError, UnsupportedError, UsageError

Model = Callable[[str], Path]


def job(folder: Path, component: str, **settings: object) -> Job:
    chosen = Settings(**settings)  # type: ignore[arg-type]
    return plan.plan(folder, components=[component], settings=chosen)[0]


def shapes(job: Job) -> dict[str, tuple[int, ...]]:
    return {feature.name: feature.shape for feature in job.inputs}


@pytest.mark.parametrize(
    ("family", "contract", "component", "inputs"),
    [
        ("sd1", "0.1.0", "unet", {"sample": (2, 4, 8, 8), "timestep": (2,), "encoder_hidden_states": (2, 32, 1, 77)}),
        (
            "inpaint",
            "main",
            "unet",
            {"sample": (2, 9, 8, 8), "timestep": (2,), "encoder_hidden_states": (2, 32, 1, 77)},
        ),
        ("sd1", "1.1.0", "vae_encoder", {"x": (1, 3, 64, 64)}),
        ("sd1", "0.4.0", "vae_encoder", {"z": (1, 3, 64, 64)}),
        (
            "sd1",
            "0.2.0",
            "vae_encoder",
            {
                "sample": (1, 3, 64, 64),
                "diagonal_noise": (1, 4, 8, 8),
                "noise": (1, 4, 8, 8),
                "sqrt_alphas_cumprod": (1, 1),
                "sqrt_one_minus_alphas_cumprod": (1, 1),
            },
        ),
        (
            "sd1",
            "main",
            "safety_checker",
            {"clip_input": (1, 3, 224, 224), "images": (1, 64, 64, 3), "adjustment": (1,)},
        ),
    ],
)
def test_features_of_the_released_contracts(
    model: Model, family: str, contract: str, component: str, inputs: dict[str, tuple[int, ...]]
) -> None:
    assert shapes(job(model(family), component, contract=contract)) == inputs


HALF, SINGLE = "FLOAT16", "FLOAT32"
DENOISER = [("sample", HALF), ("timestep", HALF), ("encoder_hidden_states", HALF)]
TEXT = ([("input_ids", SINGLE)], ["last_hidden_state", "pooled_outputs"])
EMBEDDINGS = ([("input_ids", SINGLE)], ["hidden_embeds", "pooled_outputs"])
RESIDUALS = [f"additional_residual_{i}" for i in range(5)]
FIVE = ["sample", "diagonal_noise", "noise", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"]
SAFETY = ["filtered_images", "has_nsfw_concepts", "concept_scores"]
ALL = ("0.1.0", "0.2.0", "0.3.0", "0.4.0", "1.0.0", "C6", "1.1.0", "1.1.1", "main")
XL = ("C6", "1.1.0", "1.1.1", "main")
FACTS = [  # contracts.md 5.1 to 5.10, typed from there and not from the tables that the converter reads
    ("sd1", ALL, "text_encoder", *TEXT),
    ("sd1", ALL, "unet", DENOISER, ["noise_pred"]),
    ("inpaint", ALL, "unet", DENOISER, ["noise_pred"]),
    ("sd1", ALL, "vae_decoder", [("z", HALF)], ["image"]),
    ("sd1", ALL, "safety_checker", [("clip_input", HALF), ("images", HALF), ("adjustment", HALF)], SAFETY),
    ("sd1", ("0.2.0", "0.3.0"), "vae_encoder", [(name, HALF) for name in FIVE], ["latent_dist"]),
    ("sd1", ("C4a", "0.4.0", "1.0.0", "C6"), "vae_encoder", [("z", HALF)], ["latent"]),
    ("sd1", ("1.1.0", "1.1.1", "main"), "vae_encoder", [("x", HALF)], ["latent"]),
    ("sd1", ("C4b", *ALL[3:]), "control-unet", [*DENOISER, *((r, HALF) for r in RESIDUALS)], ["noise_pred"]),
    ("sd1", ("C4b", *ALL[3:]), "controlnet", [*DENOISER, ("controlnet_cond", HALF)], RESIDUALS),
    ("sdxl", XL, "text_encoder", *EMBEDDINGS),
    ("sdxl", XL, "text_encoder_2", *EMBEDDINGS),
    ("sdxl", XL, "unet", [*DENOISER, ("time_ids", HALF), ("text_embeds", HALF)], ["noise_pred"]),
    ("sdxl", XL, "vae_decoder", [("z", SINGLE)], ["image"]),
    ("sdxl", ("C6",), "vae_encoder", [("z", HALF)], ["latent"]),
    ("sdxl", XL[1:], "vae_encoder", [("x", SINGLE)], ["latent"]),
    ("sdxl-refiner", XL[1:], "unet", [*DENOISER, ("time_ids", HALF), ("text_embeds", HALF)], ["noise_pred"]),
]


@pytest.mark.parametrize(("family", "contracts", "component", "inputs", "outputs"), FACTS)
def test_feature_lists_equal_the_facts(
    model: Model,
    family: str,
    contracts: tuple[str, ...],
    component: str,
    inputs: list[tuple[str, str]],
    outputs: list[str],
) -> None:
    for contract in contracts:
        settings = Settings(contract=contract)
        nets = [model("controlnet")] if component == "controlnet" else []
        (made,) = plan.plan(model(family), components=[component], settings=settings, controlnets=nets)
        assert [(f.name, f.dtype) for f in made.inputs] == inputs, contract
        assert [(f.name, f.dtype) for f in made.outputs] == [(name, SINGLE) for name in outputs], contract


def test_half_precision_outputs_where_a_release_left_them_to_coremltools(model: Model) -> None:
    """Sections 4 and 6: FLOAT16 with coremltools 7.0b2 and later until C7; programs in float32 kept FLOAT32."""
    for contract, component, expected in (
        ("0.1.0", "unet", HALF),
        ("1.0.0", "vae_decoder", HALF),
        ("C6b", "text_encoder", HALF),
    ):
        assert job(model("sd1"), component, contract=contract, outputs=HALF).outputs[0].dtype == expected
    names = ["unet", "text_encoder_2", "vae_encoder", "vae_decoder"]
    settings = Settings(contract="C6", outputs=HALF)
    jobs = plan.plan(model("sdxl"), components=names, settings=settings)
    assert [made.outputs[0].dtype for made in jobs] == [HALF, HALF, HALF, SINGLE]
    for contract in ("1.1.0", "main"):
        with pytest.raises(UsageError, match="outputs FLOAT16: this release writes noise_pred as FLOAT32"):
            job(model("sdxl"), "unet", contract=contract, outputs=HALF)


@pytest.mark.parametrize(("contract", "expected"), [("C6", (12,)), ("1.1.0", (2, 6)), ("main", (2, 6))])
def test_time_ids_are_flat_in_the_first_sdxl_window(model: Model, contract: str, expected: tuple[int, ...]) -> None:
    assert shapes(job(model("sdxl"), "unet", contract=contract))["time_ids"] == expected


def test_refiner_takes_five_time_ids_and_the_bases_file_name(model: Model) -> None:
    (made,) = plan.plan(model("sdxl"), components=["refiner"], refiner=model("sdxl-refiner"), identifier="owner/base")
    assert shapes(made)["time_ids"] == (2, 5)
    assert made.file_name == "Stable_Diffusion_version_owner_base_refiner.mlpackage"
    assert made.labels["version"] == "tiny-sdxl-refiner"
    assert "owner/base" in made.labels["author"]


def test_residuals_of_stable_diffusion_1() -> None:
    """The list of contracts.md 5.6 for 512x512 images."""
    expected = [(320, 64, 64)] * 3 + [(320, 32, 32)] + [(640, 32, 32)] * 2 + [(640, 16, 16)] + [(1280, 16, 16)] * 2
    expected += [(1280, 8, 8)] * 4
    assert residuals({"block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2}, 64, 64) == expected


def test_residuals_of_odd_sizes_follow_the_convolutions() -> None:
    assert residuals({"block_out_channels": (8, 8), "layers_per_block": 1}, 15, 22)[2] == (8, 8, 11)


@pytest.mark.parametrize(
    ("contract", "images"), [("0.2.0", (64, 64)), ("0.3.0", (16, 24)), ("C4b", (16, 24)), ("0.4.0", (128, 192))]
)
def test_safety_checkers_image_size_has_the_windows_history(
    model: Model, contract: str, images: tuple[int, int]
) -> None:
    sizes = {} if contract == "0.2.0" else {"height": 128, "width": 192}
    assert shapes(job(model("sd1"), "safety_checker", contract=contract, **sizes))["images"] == (1, *images, 3)


def test_token_length_changes_the_denoiser_only(model: Model) -> None:
    jobs = plan.plan(model("sd1"), components=["unet", "text_encoder"], settings=Settings(tokens=154))
    assert [j.inputs[-1].shape[-1] for j in jobs] == [154, 77]


@pytest.mark.parametrize(
    ("contract", "expected"),
    [("0.4.0", {}), ("1.0.0", "1.0.0"), ("C6b", "1.0.0"), ("1.1.0", "1.1.0"), ("main", "1.1.0")],
)
def test_version_key_of_the_unet(model: Model, contract: str, expected: object) -> None:
    metadata = job(model("sd1"), "unet", contract=contract).labels["metadata"]
    assert metadata == (expected and {"com.github.apple.ml-stable-diffusion.version": expected})


def test_compression_reaches_the_components_that_each_release_compressed(model: Model) -> None:
    names = ["text_encoder", "unet", "vae_decoder"]
    for contract, compression, expected in (
        ("0.4.0", "affine8", ["affine8"] * 3),
        ("1.0.0", "palette6", ["palette6", "palette6", None]),
    ):
        settings = Settings(contract=contract, compression=compression)
        assert [j.compression for j in plan.plan(model("sd1"), components=names, settings=settings)] == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"contract": "0.9.0"}, "unknown converter release '0.9.0'"),
        ({"attention": "FLASH"}, "unknown attention 'FLASH'"),
        ({"attention": "SPLIT_EINSUM_V2", "contract": "0.4.0"}, "1.0.0 and later"),
        ({"height": 100}, "height 100: .* multiple of 8"),
        ({"width": -8}, "width -8"),
        ({"height": 128, "contract": "0.2.0"}, "0.3.0 or later"),
        ({"batch": 1, "contract": "1.1.0"}, "batch 1"),
        ({"batch": 3}, "batch 3"),
        ({"tokens": 154, "contract": "0.4.0"}, "1.0.0 or later"),
        ({"target": "macOS15", "contract": "1.1.0"}, "macOS13 only"),
        ({"target": "macOS12"}, "unknown deployment target"),
        ({"outputs": "FLOAT16"}, "FLOAT32"),
        ({"outputs": "INT8"}, "FLOAT16 or FLOAT32"),
        ({"compression": "palette3"}, "unknown compression"),
        ({"compression": "affine8"}, "palette1"),
        ({"compression": "palette1", "contract": "1.0.0"}, "palette2"),
    ],
)
def test_settings_that_no_release_could_write(model: Model, settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        job(model("sd1"), "unet", **settings)


def test_what_a_contract_cannot_express_names_the_release_that_could(model: Model) -> None:
    with pytest.raises(UsageError, match=r"C4c \(0.4.0\) writes no unet of family sdxl; written by C6 to C8f"):
        job(model("sdxl"), "unet", contract="0.4.0")
    with pytest.raises(UsageError, match=r"C1 \(0.1.0\) writes no vae_encoder"):
        job(model("sd1"), "vae_encoder", contract="0.1.0")
    with pytest.raises(UsageError, match="batch 1: unet of family sdxl"):
        job(model("sdxl"), "unet", batch=1)


def test_controlnet_for_another_base(model: Model, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(model("controlnet"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "cross_attention_dim": 1024}))
    with pytest.raises(UsageError, match="other was made for another base model: its cross_attention_dim is 1024"):
        plan.plan(model("sd1"), components=["controlnet"], controlnets=[folder])


def test_controlnet_whose_configuration_hides_its_base(model: Model, tmp_path: Path) -> None:
    """Its configuration is that of a fitting one; its weights are not."""
    from tests.convert.models import controlnet

    fitting = (model("controlnet") / "config.json").read_text()
    for name, changes, message in (
        ("wide", {"cross_attention_dim": 48}, r"its tensor down_blocks\.0.*to_k.weight is \(16, 48\)"),
        ("inpaint", {"in_channels": 9}, r"its tensor conv_in.weight is \(16, 9, 3, 3\), .* has \(16, 4, 3, 3\)"),
        ("deep", {"layers_per_block": 2}, r"its tensor down_blocks.* is \(.*\), the UNet of tiny-sd1 has none"),
        ("linear", {"use_linear_projection": True}, r"its tensor .*proj_in.weight is \(16, 16\)"),
    ):
        folder = tmp_path / name
        controlnet(**changes).save_pretrained(folder)
        (folder / "config.json").write_text(fitting)
        with pytest.raises(UsageError, match=f"{name} was made for another base model: {message}"):
            plan.plan(model("sd1"), components=["controlnet"], controlnets=[folder])
    with pytest.raises(UsageError, match=r"its tensor conv_in\.weight"):
        plan.plan(model("inpaint"), components=["controlnet"], controlnets=[model("controlnet")])


def test_controlnet_without_a_residuals_output(model: Model, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "cut"
    shutil.copytree(model("controlnet"), folder)
    (weights,) = folder.glob("*.safetensors")
    tensors = load_file(weights)
    del tensors["controlnet_down_blocks.3.weight"]
    save_file(tensors, weights)
    with pytest.raises(
        UsageError, match=r"its list of the residuals' channels is \[16, 16, 16, 32\], .* has \[16, 16,"
    ):
        plan.plan(model("sd1"), components=["controlnet"], controlnets=[folder])
    weights.write_bytes(weights.read_bytes()[:20])
    with pytest.raises(FormatError, match="no safetensors header"):
        plan.plan(model("sd1"), components=["controlnet"], controlnets=[folder])
    with pytest.raises(UsageError, match="batch 1: controlnet of family sd"):
        plan.plan(
            model("sd1"),
            components=["controlnet"],
            controlnets=[model("controlnet")],
            settings=Settings(batch=1),
        )


@pytest.mark.parametrize(
    ("family", "component", "dtype", "compute"),
    [
        ("sd1", "vae_decoder", "FLOAT16", "FLOAT16"),
        ("sdxl", "vae_decoder", "FLOAT16", "FLOAT16"),  # the model's own is FLOAT32
        ("sdxl", "vae_encoder", "FLOAT32", "FLOAT32"),
    ],
)
def test_custom_vae(model: Model, family: str, component: str, dtype: str, compute: str) -> None:
    """contracts.md sections 4 and 5.8-5.9: precision; names and texts are the model's."""
    (own,) = plan.plan(model(family), components=[component], identifier="o/m")
    (made,) = plan.plan(model(family), components=[component], identifier="o/m", vae=model("sd2") / "vae")
    assert (made.inputs[0].dtype, made.contract.compute) == (dtype, compute)
    assert made.file_name == own.file_name == f"Stable_Diffusion_version_o_m_{component}.mlpackage"
    assert (made.labels["author"], made.labels["license"]) == (own.labels["author"], own.labels["license"])
    assert made.weights == model("sd2") / "vae"
    assert own.weights == model(family) / "vae"


def test_a_vae_of_another_scale_is_refused(model: Model, tmp_path: Path) -> None:
    """Contracts count on eighths: these packages would not fit the checkpoint's own pipeline; the others do."""
    folder = Path(shutil.copytree(model("sd1"), tmp_path / "own"))
    path = folder / "vae" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"block_out_channels": config["block_out_channels"][:2]}))
    with pytest.raises(UsageError, match=r"own: its VAE has 2 levels .* 2 times as large .* takes 4 levels"):
        job(folder, "vae_encoder")
    with pytest.raises(UsageError, match="its VAE has 2 levels"):  # a size in pixels, which its latents are not
        job(folder, "unet", height=64)
    for component in ("unet", "text_encoder"):
        assert job(folder, component).inputs == job(model("sd1"), component).inputs


def test_custom_vaes_that_cannot_be(model: Model, tmp_path: Path) -> None:
    vae, other = model("sd2") / "vae", tmp_path / "deep"
    with pytest.raises(UsageError, match=r"C6 has no such option; 1\.1\.0 and later have"):
        plan.plan(model("sdxl"), components=["vae_decoder"], vae=vae, settings=Settings(contract="C6"))
    with pytest.raises(UsageError, match="neither vae_decoder nor vae_encoder is among the components"):
        plan.plan(model("sd1"), components=["unet"], vae=vae)
    shutil.copytree(vae, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "latent_channels": 16}))
    with pytest.raises(UsageError, match="VAE deep has 16 latent channels, the denoiser of tiny-sd1 gives 4"):
        plan.plan(model("sd1"), components=["vae_decoder"], vae=other)
    with pytest.raises(UnsupportedError, match="is a ControlNetModel; AutoencoderKL is needed here"):
        plan.plan(model("sd1"), components=["vae_decoder"], vae=model("controlnet"))


def _edit(folder: Path, **changes: object) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, **changes}))


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda f: shutil.rmtree(f / "scheduler"), MissingError, "scheduler_config.json is missing"),
        (lambda f: _edit(f, scheduler=[None, None]), MissingError, "no scheduler configuration"),
        (lambda f: shutil.rmtree(f / "unet"), MissingError, "model_index.json lists unet"),
        (lambda f: (f / "model_index.json").unlink(), MissingError, "model_index.json is missing"),
        (lambda f: (f / "unet" / "config.json").write_text("{"), FormatError, "is not JSON"),
        (lambda f: (f / "unet" / "config.json").write_text("[]"), FormatError, "JSON object"),
        (lambda f: _edit(f, _class_name="StableDiffusion3Pipeline"), MissingError, "has no transformer; it has"),
        (lambda f: _edit(f, _class_name="FluxPipeline"), UnsupportedError, "no converter release writes Flux"),
        (lambda f: _edit(f, _class_name="Mystery"), UnsupportedError, "no contract expresses it"),
    ],
)
def test_damaged_folders(
    model: Model, tmp_path: Path, damage: Callable[[Path], object], error: type[ParityError], message: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model("sd1"), folder)
    damage(folder)
    with pytest.raises(error, match=message):
        job(folder, "unet")


def test_models_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no such folder"):
        job(tmp_path / "nowhere", "unet")
    with pytest.raises(UsageError, match="not dict"):
        job({}, "unet")  # type: ignore[arg-type]


def test_unknown_and_absent_components(model: Model) -> None:
    with pytest.raises(UsageError, match="unknown component 'unett'"):
        job(model("sd1"), "unett")
    with pytest.raises(MissingError, match="has no safety_checker"):
        job(model("sd2"), "safety_checker")
    with pytest.raises(UsageError, match="name the refiner model"):
        job(model("sdxl"), "refiner")
    with pytest.raises(UsageError, match="at least one ControlNet"):
        job(model("sd1"), "controlnet")
    with pytest.raises(UsageError, match="at least one of"):
        plan.plan(model("sd1"), components=[])


def test_planning_imports_nothing_heavy(model: Model) -> None:
    code = (
        "import sys; from parity.convert import plan; plan.plan(sys.argv[1]);"
        "print([m for m in ('torch', 'diffusers', 'coremltools', 'transformers') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(model("sd1"))]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_requests_whose_difference_a_component_does_not_have_share_its_program(model: Model) -> None:
    def keys(**settings: object) -> dict[str, str]:
        jobs = plan.plan(
            model("sd1"), components=["text_encoder", "unet", "vae_decoder"], settings=Settings(**settings)
        )
        return {job.component: record.program_key(job) for job in jobs}

    plain = keys()

    def own(**settings: object) -> list[str]:
        return [name for name, key in keys(**settings).items() if key != plain[name]]

    assert own(batch=1) == ["unet"]
    assert own(attention="ORIGINAL") == ["unet"]
    assert own(height=96, width=64) == ["unet", "vae_decoder"]
    assert own(tokens=64) == ["unet"]
    assert {"text_encoder", "vae_decoder"} <= set(own(attention_rank=3))
