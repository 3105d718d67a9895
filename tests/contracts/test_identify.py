"""Every contract of every window is recognised, and each observation narrows the windows as the history says."""

from __future__ import annotations

from pathlib import Path

import pytest

from parity.contracts import converters
from parity.contracts.inspect import inspect
from parity.contracts.inspection import Component
from tests.contracts import packages

CONTRACTS = [
    (window.id, contract.component, contract.family, contract.variant)
    for window in converters().windows
    for contract in window.components
]
WINDOWS = [window.id for window in converters().windows]


def one(path: Path) -> Component:
    return inspect(path).components[0]


@pytest.mark.parametrize("window", sorted({window for window, *_ in CONTRACTS}))
def test_every_contract_is_recognised_in_its_window(window: str, tmp_path: Path) -> None:
    for number, (_, name, family, variant) in enumerate(c for c in CONTRACTS if c[0] == window):
        folder = tmp_path / str(number)
        path = packages.component(folder, name, window=window, family=family, variant=variant)
        found = one(path)
        assert found.kind == name
        assert window in found.windows, (name, family, found.evidence)
        if name in ("unet", "mmdit", "refiner") and (name, family) != ("refiner", "sdxl"):
            assert found.family == family


@pytest.mark.parametrize(
    ("options", "windows"),
    [
        ({"name": "vae_encoder", "window": "C3"}, ["C2", "C3"]),
        ({"name": "vae_encoder", "window": "C3", "w": 96}, ["C3"]),
        ({"name": "vae_encoder", "window": "C5"}, ["C4a", "C4b", "C4c", "C5", "C6", "C6b"]),
        ({"name": "vae_encoder", "window": "C6", "family": "sdxl", "model_id": "x/stable-diffusion-xl"}, ["C6", "C6b"]),
        ({"name": "vae_encoder", "window": "C7"}, ["C7", "C8a", "C8b", "C8c", "C8d", "C8e", "C8f"]),
        ({"name": "unet", "window": "C4c"}, ["C1", "C2", "C3", "C4a", "C4b", "C4c"]),
        ({"name": "unet", "window": "C5"}, ["C5", "C6", "C6b", "C7"]),
        ({"name": "unet", "window": "C5", "outputs": "FLOAT16"}, ["C5", "C6", "C6b"]),
        ({"name": "unet", "window": "C8f", "specification": 8}, ["C8f"]),
        ({"name": "unet", "window": "C8f", "B": 1}, ["C8c", "C8d", "C8e", "C8f"]),
        ({"name": "unet", "window": "C6", "family": "sdxl"}, ["C6", "C6b"]),
        ({"name": "control-unet", "window": "C4b"}, ["C4b", "C4c"]),
        ({"name": "vae_decoder", "window": "C8a", "family": "sd3"}, [w for w in WINDOWS if w.startswith("C8")]),
    ],
)
def test_observations_narrow_the_windows(options: dict, windows: list[str], tmp_path: Path) -> None:
    found = one(packages.component(tmp_path, **options))
    assert list(found.windows) == windows, found.evidence
    assert found.evidence[-1].windows == found.windows


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"name": "unet", "h": 96, "w": 64}, {"B": 2, "Cin": 4, "h": 96, "w": 64, "D": 768, "S": 77}),
        ({"name": "unet", "Cin": 9}, {"Cin": 9, "Cout": 4}),
        ({"name": "safety_checker", "Hs": 768, "Ws": 512}, {"Hs": 768, "Ws": 512, "K": 17}),
        ({"name": "control-unet"}, {"residuals": 3}),
    ],
)
def test_sizes_are_read_off_the_shapes(options: dict, sizes: dict, tmp_path: Path) -> None:
    found = one(packages.component(tmp_path, **options)).sizes
    assert {name: found[name] for name in sizes} == sizes


@pytest.mark.parametrize("kind", ["ORIGINAL", "SPLIT_EINSUM", "SPLIT_EINSUM_V2"])
def test_attention_is_recognised(kind: str, tmp_path: Path) -> None:
    assert one(packages.component(tmp_path, "unet", attention=kind)).fingerprint.attention == kind


@pytest.mark.parametrize(("smallest", "state"), [(-1e4, "patched"), (-65504.0, "unpatched"), (-3.4e38, "unpatched")])
def test_masks_are_judged_by_their_smallest_value(smallest: float, state: str, tmp_path: Path) -> None:
    found = one(packages.component(tmp_path, "text_encoder", mask=smallest))
    assert found.fingerprint.mask == state


@pytest.mark.parametrize(("window", "left"), [("C5", {"legacy"}), ("C8f", {"legacy", "bisect"})])
def test_chunks_tell_who_cut_them_where_they_have_metadata(window: str, left: set[str], tmp_path: Path) -> None:
    for chunk in (1, 2):
        found = one(packages.component(tmp_path, "unet", window=window, chunk=chunk))
        assert (found.kind, found.chunk) == ("unet", chunk)
        chunkers = {w.chunker for w in converters().windows if w.id in found.windows}
        assert chunkers == left
        assert any("bisect_model leaves none" in hint for hint in found.hints) == (len(left) > 1)


def test_the_features_decide_not_the_name(tmp_path: Path) -> None:
    path = packages.component(tmp_path, "vae_encoder", file="Stable_Diffusion_version_x_unet")
    inspection = inspect(path)
    assert inspection.components[0].kind == "vae_encoder"
    assert any("named like unet" in f.text for f in inspection.bundles[0].findings)


def test_a_text_encoder_of_sdxl_is_told_from_the_second_by_its_name(tmp_path: Path) -> None:
    for name in ("text_encoder", "text_encoder_2"):
        assert one(packages.component(tmp_path, name, family="sdxl")).kind == name


def test_float16_residuals_narrow_a_controlnet(tmp_path: Path) -> None:
    usual = one(packages.component(tmp_path / "a", "controlnet", window="0.4.0"))
    half = one(packages.component(tmp_path / "b", "controlnet", window="0.4.0", outputs="FLOAT16"))
    assert "C7" in usual.windows
    assert half.kind == "controlnet"
    assert half.windows == tuple(name for name in usual.windows if name < "C7")
