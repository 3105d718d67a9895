"""Inspecting real conversions of every converter window: the window is named, and why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from parity.contracts import converters
from parity.contracts.capability import capabilities
from parity.contracts.inspect import inspect
from parity.contracts.inspection import Component
from parity.suite.questions import releases

Converted = Callable[..., Path]
Written = Callable[..., dict[str, Path]]

IDS = [window.id for window in converters().windows]
C5_ON, C7_ON = IDS[IDS.index("C5") :], IDS[IDS.index("C7") :]
LEGACY, Z = ["C2", "C3"], IDS[IDS.index("C4a") : IDS.index("C7")]
UNKEYED, KEY_1_0 = IDS[: IDS.index("C5")], ["C5", "C6", "C6b", "C7"]  # 1.0.0 was still written on C7's first day

# component -> what its files alone tell: the windows that wrote them alike (facts of the public converter)
SD = {
    "text_encoder": [IDS],
    "vae_decoder": [IDS],
    "safety_checker": [IDS],
    "unet": [UNKEYED, KEY_1_0, C7_ON],
    "control-unet": [["C4b", "C4c"], KEY_1_0, C7_ON],
    "controlnet": [IDS[IDS.index("C4b") :]],
    "vae_encoder": [LEGACY, Z, C7_ON],
}
XL = {
    "text_encoder": [IDS[IDS.index("C6") :]],
    "text_encoder_2": [IDS[IDS.index("C6") :]],
    "vae_decoder": [IDS[IDS.index("C6") :]],
    "unet": [["C6", "C6b"], C7_ON],
    "refiner": [C7_ON],
    "vae_encoder": [["C6", "C6b"], C7_ON],
}


def one(path: Path) -> Component:
    return inspect(path).components[0]


@pytest.mark.long
@pytest.mark.parametrize("window", [w if w != "C6b" else pytest.param(w, marks=pytest.mark.slow) for w in IDS])
def test_every_component_of_every_window_is_ascribed_to_it(window: str, written: Written) -> None:
    for family, alike in (("sd", SD), ("xl", XL)):
        if family == "xl" and window not in IDS[IDS.index("C6") :]:
            continue
        for key, path in written(window, family).items():
            kind = key.partition(":")[0]
            found = one(path)
            assert found.kind == kind, path
            expected = [group for group in alike[kind] if window in group][-1]
            float32 = family == "xl" and kind == "vae_decoder"  # computes in float32
            if window == "C6b" and not float32:  # float16 outputs, with the coremltools of those weeks
                expected = [name for name in expected if name not in C7_ON]
            assert list(found.windows) == expected, (kind, found.evidence)
            assert len(found.evidence) >= 1
            assert found.evidence[-1].windows == found.windows
            split = kind in ("unet", "control-unet", "refiner", "controlnet")
            assert (found.fingerprint.attention == "SPLIT_EINSUM") == split, kind


@pytest.mark.parametrize("window", ["C1", "C3", "C4c", "C5", "C7", "C8f"])
def test_folders_of_a_window_fit_together(window: str, written: Written, tmp_path: Path) -> None:
    (bundle,) = inspect(releases.assemble(written(window), tmp_path)).bundles
    assert window in bundle.windows
    assert [f for f in bundle.findings if f.severity == "error"] == []
    assert {c.kind for c in bundle.components} == {key.partition(":")[0] for key in written(window)}
    assert capabilities(bundle).cell("txt2img", "S8").verdict == "yes"


def test_sdxl_folders_fit_together(written: Written, tmp_path: Path) -> None:
    for window in ("C6", "1.1.0"):
        (bundle,) = inspect(releases.assemble(written(window, "xl"), tmp_path / window)).bundles
        assert bundle.family == "sdxl"
        assert [f for f in bundle.findings if f.severity == "error"] == []


@pytest.mark.long
@pytest.mark.parametrize(
    ("contract", "component", "options", "windows", "why"),
    [
        ("main", "unet", {"batch": 1}, IDS[IDS.index("C8c") :], "features"),
        pytest.param("main", "unet", {"target": "macOS14"}, ["C8f"], "specification version 8", marks=pytest.mark.slow),
        ("main", "vae_decoder", {"target": "macOS15"}, ["C8f"], "specification version 9"),
        ("0.4.0", "vae_decoder", {"compression": "affine8"}, UNKEYED, "8-bit linear"),
        ("1.0.0", "text_encoder", {"compression": "palette6"}, C5_ON, "palettized"),
        pytest.param(
            "1.1.0", "unet", {"compression": "palette4"}, C7_ON, "version key is 1.1.0", marks=pytest.mark.slow
        ),
        pytest.param("1.0.0", "unet", {"tokens": 256}, KEY_1_0, "version key is 1.0.0", marks=pytest.mark.slow),
        ("0.4.0", "vae_encoder", {"outputs": "FLOAT16"}, Z[: Z.index("C6b") + 1], "features"),
        ("0.3.0", "vae_encoder", {"height": 64, "width": 96}, ["C3"], "not square"),
        pytest.param("1.1.0", "unet", {"attention": "ORIGINAL"}, C7_ON, "version key", marks=pytest.mark.slow),
    ],
)
def test_options_of_a_release_tell_more(
    contract: str, component: str, options: dict[str, object], windows: list[str], why: str, converted: Converted
) -> None:
    found = one(converted(contract, component, **options))
    assert found.kind == component
    assert list(found.windows) == windows, found.evidence
    assert any(why in evidence.text for evidence in found.evidence)
    if options.get("attention"):
        assert found.fingerprint.attention == "ORIGINAL"


@pytest.mark.slow
def test_attention_in_blocks_of_512_queries(converted: Converted) -> None:
    found = one(converted("1.0.0", "unet", attention="SPLIT_EINSUM_V2", height=256, width=256))
    assert found.fingerprint.attention == "SPLIT_EINSUM_V2"
    assert list(found.windows) == KEY_1_0


@pytest.mark.long
@pytest.mark.parametrize(
    ("contract", "options", "size"),
    [
        ("0.1.0", {}, (128, 128)),
        ("0.3.0", {"height": 64, "width": 96}, (8, 12)),  # latents taken for pixels
        ("0.4.0", {"height": 64, "width": 96}, (64, 96)),
        ("main", {"height": 512, "width": 512}, (512, 512)),
    ],
)
def test_sizes_of_safety_checkers(
    contract: str, options: dict[str, int], size: tuple[int, int], checkpoint: Path
) -> None:
    from parity.convert import cached

    path = cached(releases.safety(checkpoint), contract=contract, components=["safety_checker"], **options)
    (bundle,) = inspect(path["safety_checker"]).bundles
    (found,) = bundle.components
    assert (found.kind, found.sizes["Hs"], found.sizes["Ws"]) == ("safety_checker", *size)
    verdict = capabilities(bundle).cell("safety-check", "S7").verdict
    assert verdict == ("yes" if size == (512, 512) else "no")


@pytest.mark.long
@pytest.mark.parametrize(
    ("window", "chunker"), [pytest.param("0.3.0", "legacy", marks=pytest.mark.slow), ("main", "bisect")]
)
@pytest.mark.parametrize("compression", [None, pytest.param("palette6", marks=pytest.mark.slow)])
def test_real_halves_tell_who_cut_them(
    window: str, chunker: str, compression: str | None, converted: Converted, tmp_path: Path
) -> None:
    from parity.convert.chunk import chunk

    if compression and window == "0.3.0":
        window = "1.0.0"  # palettes came with it
    whole = converted(window, "unet", compression=compression)
    halves = chunk(whole, tmp_path, chunker=chunker, check=False)
    (bundle,) = inspect(tmp_path).bundles
    assert [(c.kind, c.chunk) for c in bundle.components] == [("unet", 1), ("unet", 2)]
    assert bundle.facts["chunks"] == "agree"
    possible = (
        {"legacy"} if chunker == "legacy" else {"legacy", "bisect"}
    )  # bisect_model leaves no metadata, nor did 6.x
    assert {w.chunker for w in converters().windows if w.id in bundle.windows} == possible
    if compression:
        assert all("6-bit palette" in c.fingerprint.compression for c in bundle.components)
    assert halves.first.is_dir()


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*quantize_per_tensor")
def test_a_unet_with_quantized_activations(tmp_path: Path) -> None:
    """Made by coremltools' quantizer for torch, as the released script does: a small net with a UNet's features."""
    (bundle,) = inspect(quantized_unet(tmp_path / "Stable_Diffusion_version_x_unet.mlpackage")).bundles
    (found,) = bundle.components
    assert (found.kind, found.specification) == ("unet", 8)
    assert found.fingerprint.operators["quantize"] > 0
    assert list(found.windows) == ["C8e", "C8f"]
    assert any(evidence.text == "activations are quantized" for evidence in found.evidence)
    reasons = capabilities(bundle).cell("txt2img", "S8").reasons
    assert any("macOS 14" in reason.failure for reason in reasons)


def quantized_unet(path: Path) -> Path:
    import torch

    from parity import quiet

    ct = quiet.coremltools()
    from coremltools.optimize.torch import quantization

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = torch.nn.Conv2d(4, 8, 3, padding=1), torch.nn.Conv2d(8, 4, 3, padding=1)
            self.text, self.act = torch.nn.Conv2d(32, 8, 1), torch.nn.ReLU()

        def forward(self, sample, timestep, encoder_hidden_states):
            context = self.text(encoder_hidden_states).mean(dim=(2, 3), keepdim=True)
            return self.last(self.act(self.first(sample) + context + timestep[:, None, None, None] * 0.001))

    torch.manual_seed(93)
    inputs = {"sample": (2, 4, 16, 16), "timestep": (2,), "encoder_hidden_states": (2, 32, 1, 77)}
    examples = tuple(torch.randn(shape) for shape in inputs.values())
    options = quantization.ModuleLinearQuantizerConfig(quantization_scheme="symmetric", milestones=[0, 1000, 1000, 0])
    quantizer = quantization.LinearQuantizer(Network().eval(), quantization.LinearQuantizerConfig(options))
    prepared = quantizer.prepare(example_inputs=examples)
    quantizer.step()
    prepared(*examples)
    traced = torch.jit.trace(quantizer.finalize().eval(), examples)
    model = ct.convert(
        traced,
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.macOS14,
        compute_units=ct.ComputeUnit.CPU_ONLY,
        inputs=[ct.TensorType(name, shape, dtype=np.float16) for name, shape in inputs.items()],
        outputs=[ct.TensorType("noise_pred", dtype=np.float32)],
        skip_model_load=True,
    )
    model.save(str(path))
    return path


@pytest.mark.long
def test_an_inpainting_unet_is_named(tmp_path: Path) -> None:
    from parity.convert import cached
    from tests.convert import models

    (tmp_path / "model").mkdir()
    folder = models.build("inpaint", tmp_path / "model")
    packages = cached(folder, components=["unet", "vae_decoder", "text_encoder"])
    (bundle,) = inspect(releases.assemble(packages, tmp_path / "packages")).bundles
    assert bundle.facts["unet_channels"] == "9"
    assert capabilities(bundle).cell("txt2img", "S7").failure.startswith("Swift: an assertion")
