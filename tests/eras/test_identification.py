"""Every era's folder is recognised as what the converter of its time wrote, and its cells are those of the tables."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from parity.contracts import capabilities, inspection
from parity.contracts.inspect import inspect
from tests.eras.cases import BEFORE_KEY, HALF, MODERN, SHAPELESS
from tests.eras.conftest import STEM, Unpacked

LEGACY = ("C2", "C3")
SINGLE = ("C4a", "C4b", "C4c")  # encoders with one input `z`, before the version key
KEYED = ("C5", "C6")
WINDOWS: dict[str, dict[str, tuple[str, ...]]] = {
    "6.1/0.2.0": {"text_encoder": SHAPELESS, "unet": BEFORE_KEY, "vae_decoder": SHAPELESS, "vae_encoder": LEGACY},
    "6.3/0.4.0": {
        "text_encoder": SHAPELESS,
        "unet": BEFORE_KEY,
        "vae_decoder": SHAPELESS,
        "vae_encoder": (*SINGLE, *KEYED),
    },
    "7.0b1/1.0.0": {
        "text_encoder": SHAPELESS,
        "unet": KEYED,
        "vae_decoder": SHAPELESS,
        "vae_encoder": (*SINGLE, *KEYED),
    },
    "7.0/C6b": {
        "text_encoder": HALF,
        "unet": (*KEYED, "C6b"),
        "vae_decoder": HALF,
        "vae_encoder": (*SINGLE, *KEYED, "C6b"),
    },
    "7.0/0.3.0-late": {"vae_encoder": LEGACY},
    "7.2/1.1.1": dict.fromkeys(("unet", "vae_encoder"), MODERN),
    "8.0/main": dict.fromkeys(("unet", "vae_encoder"), MODERN),
    "8.3/batch-one": {"unet": ("C8c", "C8d", "C8e", "C8f"), "vae_encoder": MODERN},
    "9.0/main": dict.fromkeys(("unet", "vae_encoder"), MODERN),
    "9.0/macos15": {"unet": ("C8f",), "text_encoder": ("C8f",)},
}
RUNS = ("yes", "degraded")
FORMS = {"6.1": "legacy", "6.3": "z", "7.0b1": "z", "7.0": "z", "7.2": "x", "8.0": "x", "8.3": "x", "9.0": "x"}


def bundle(folder: Path) -> inspection.Bundle:
    (found,) = inspect(folder).bundles
    return found


@pytest.mark.parametrize("name", WINDOWS)
def test_windows(name: str, unpacked: Unpacked) -> None:
    era, group = name.split("/")
    found = {(c.kind, c.chunk): c for c in bundle(unpacked(era) / group).components}
    assert not {"broken", "foreign"} & {kind for kind, _ in found}
    for component, windows in WINDOWS[name].items():
        assert found[component, 0].windows == windows, component


@pytest.mark.parametrize(
    "name",
    ["6.1/0.2.0-affine8", "6.3/0.4.0-affine8", "7.0b1/1.0.0-palette4", "7.2/1.1.1-palette6", "8.3/batch-one-palette8"],
)
def test_compressed_weights_are_known(name: str, unpacked: Unpacked) -> None:
    era, group = name.split("/")
    form = {"affine8": "8-bit linear", "palette4": "4-bit palette", "palette6": "6-bit palette"}
    for component in bundle(unpacked(era) / group).components:
        assert component.fingerprint.compression == (form.get(group.rpartition("-")[2], "8-bit palette"),)
        assert component.windows


@pytest.mark.parametrize("name", ["6.1/0.2.0", "6.3/0.4.0", "7.2/1.1.1", "8.0/main", "9.0/main"])
def test_halves(name: str, unpacked: Unpacked) -> None:
    era, group = name.split("/")
    halves = [c for c in bundle(unpacked(era) / group).components if c.chunk]
    assert [(c.kind, c.chunk) for c in halves] == [("unet", 1), ("unet", 2)]
    legacy, bisect = {"C1", "C7"}, {"C8b", "C8f"}
    for half in halves:
        assert set(half.windows) & (legacy if era in ("6.1", "6.3", "7.2") else bisect)
        if era in ("6.1", "6.3"):
            assert not half.metadata
            assert not bisect & set(half.windows)


@pytest.mark.parametrize("era", FORMS)
def test_image_to_image_follows_the_encoder(era: str, unpacked: Unpacked) -> None:
    """The table of docs/contracts.md: five inputs for 0.3.0 alone, `z` from 0.4.0 on, `x` from 1.1.0 on."""
    group = next(name for name in WINDOWS if name.startswith(f"{era}/")).split("/")[1]
    cells = capabilities(bundle(unpacked(era) / group))
    found = {swift: cells.cell("img2img", swift).verdict for swift in ("S3", "S4", "S5", "S6", "S7", "S8")}
    works = {"legacy": {"S3"}, "z": {"S4", "S5", "S6", "S7", "S8"}, "x": {"S7", "S8"}}[FORMS[era]]
    if era == "7.0":  # float16 outputs: read without conversion up to 1.0.0
        works -= {"S4", "S5"}
    if era == "8.3":  # a batch of one
        works &= {"S8"}
    assert {swift for swift, verdict in found.items() if verdict in RUNS} == works, found


def test_text_to_image_runs_everywhere_from_0_2_0_on(unpacked: Unpacked) -> None:
    for name in ("6.1/0.2.0", "6.3/0.4.0", "7.0b1/1.0.0", "7.2/1.1.1", "8.0/main", "9.0/main"):
        era, group = name.split("/")
        cells = capabilities(bundle(unpacked(era) / group))
        verdicts = {swift: cells.cell("txt2img", swift).verdict for swift in ("S2", "S3", "S4", "S5", "S6", "S7", "S8")}
        assert set(verdicts.values()) == {"yes"}, (name, verdicts)


def test_programs_from_before_the_converter_are_nobodys(unpacked: Unpacked) -> None:
    """iOS 15 programs have float32 features: no release wrote such a UNet, and no window may be claimed."""
    for component in bundle(unpacked("5.2") / "ios15").components:
        assert component.kind != "broken"
        assert not component.windows or component.kind == "foreign"


def test_a_folder_of_several_eras_is_named_not_broken(unpacked: Unpacked, tmp_path: Path) -> None:
    chosen = {"text_encoder": "6.1/0.2.0", "unet": "7.0b1/1.0.0", "vae_decoder": "7.2/1.1.1", "vae_encoder": "9.0/main"}
    for component, name in chosen.items():
        era, group = name.split("/")
        package = f"{STEM}{component}.mlpackage"
        shutil.copytree(unpacked(era) / group / package, tmp_path / package)
    found = bundle(tmp_path)
    assert {c.kind for c in found.components} == set(chosen)
    assert found.windows == ()
    assert any("converter" in finding.text for finding in found.findings), found.findings
    assert capabilities(found).cell("txt2img", "S7").verdict == "yes"
    assert capabilities(found).cell("img2img", "S5").verdict == "no"


def test_halves_of_two_eras_are_named(unpacked: Unpacked, tmp_path: Path) -> None:
    for era, group, half in (("6.1", "0.2.0", 1), ("9.0", "main", 2)):
        package = f"{STEM}unet_chunk{half}.mlpackage"
        shutil.copytree(unpacked(era) / group / package, tmp_path / package)
    found = bundle(tmp_path)
    assert {(c.kind, c.chunk) for c in found.components} == {("unet", 1), ("unet", 2)}
    assert any("chunk" in finding.text or "half" in finding.text for finding in found.findings), found.findings
