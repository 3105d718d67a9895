"""Zipped downloads: whatever is cut, damaged, strange or hostile in them is said without reading all bytes."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from parity import cli
from parity.contracts import discover
from parity.contracts.capability import capabilities
from parity.contracts.inspect import inspect
from parity.contracts.inspection import Finding
from tests.contracts import packages
from tests.contracts.test_compiled import compiled

Written = Callable[..., dict[str, Path]]
KINDS = ("text_encoder", "unet", "vae_decoder", "vae_encoder", "control-unet", "safety_checker")
WAYS = {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED}


@pytest.fixture(scope="session")
def layouts(written: Written, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Real models of 1.1.0, as packages and as a Resources folder."""
    models = {key: path for key, path in written("1.1.0").items() if key in KINDS}
    root = tmp_path_factory.mktemp("layouts")
    names = ("TextEncoder", "Unet", "VAEDecoder", "VAEEncoder", "ControlledUnet", "SafetyChecker")
    for key, name in zip(KINDS, names, strict=True):
        shutil.copytree(models[key], root / "packages" / models[key].name)
        compiled(models[key], root / "compiled" / f"{name}.mlmodelc")
    return {name: root / name for name in ("packages", "compiled")}


@pytest.fixture(params=["packages", "compiled"])
def folder(request: pytest.FixtureRequest, layouts: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of one layout, to be damaged."""
    return Path(shutil.copytree(layouts[request.param], tmp_path / "models"))


def zipped(folder: Path, compression: int, *only: Path) -> Path:
    """Zip a folder; where files are named, the others are stored."""
    archive = folder.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w", compresslevel=1) as file:
        for path in sorted(folder.rglob("*")):
            kind = compression if not only or path in only else zipfile.ZIP_STORED
            file.write(path, path.relative_to(folder.parent), kind)
    return archive


def weights(folder: Path, kind: str) -> Path:
    wanted = kind.replace("-", "").replace("_", "")
    found = [
        path
        for path in folder.rglob("weight.bin")
        if path.parts[len(folder.parts)].split(".")[0].replace("_", "").replace("-", "").lower().endswith(wanted)
        or (kind == "control-unet" and "ControlledUnet" in str(path))
    ]
    (path,) = [p for p in found if kind == "control-unet" or "control" not in str(p).lower()]
    return path


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
def test_whole_archives_are_judged_like_their_folder(folder: Path, way: str) -> None:
    plain, packed = inspect(folder), inspect(zipped(folder, WAYS[way]))

    def inside(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
        return tuple(replace(finding, where=f"{folder.name}/{finding.where}") for finding in findings)

    assert packed.findings == inside(plain.findings)
    (one,), (other,) = plain.bundles, packed.bundles
    assert [c.kind for c in other.components] == [c.kind for c in one.components]
    assert sorted(c.kind for c in other.components) == sorted(KINDS)
    assert [c.windows for c in other.components] == [c.windows for c in one.components]
    assert [c.weight_bytes for c in other.components] == [c.weight_bytes for c in one.components]
    assert other.facts == one.facts
    assert other.findings == inside(one.findings)


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_cut_weights_of_any_component_are_found(folder: Path, way: str, kind: str) -> None:
    path = weights(folder, kind)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 9 // 10])
    (bundle,) = inspect(zipped(folder, WAYS[way], path)).bundles
    broken = [c for c in bundle.components if c.kind == "broken"]
    assert [c.named for c in broken] == [kind], bundle.findings
    text = next(f.text for f in bundle.findings if f.where == broken[0].path)
    assert "an unfinished download?" in text
    assert "parity-inspect-" not in text, "no temporary path"


def test_a_damaged_record_is_found(folder: Path) -> None:
    path = weights(folder, "unet")
    content = bytearray(path.read_bytes())
    words = np.frombuffer(content, "<u4")
    (records,) = np.nonzero(words == 0xDEADBEEF)
    content[4 * records[-1] : 4 * records[-1] + 4] = b"\0\0\0\0"
    path.write_bytes(content)
    (bundle,) = inspect(zipped(folder, zipfile.ZIP_STORED)).bundles
    assert [c.named for c in bundle.components if c.kind == "broken"] == ["unet"]


@pytest.mark.parametrize("way", WAYS)
def test_a_weight_file_that_is_none_is_found(folder: Path, way: str) -> None:
    path = weights(folder, "vae_decoder")
    size = path.stat().st_size
    path.write_bytes(b"<html>" + bytes(size))
    (bundle,) = inspect(zipped(folder, WAYS[way], path)).bundles
    assert [c.named for c in bundle.components if c.kind == "broken"] == ["vae_decoder"]


def test_large_weights_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    outline = discover._outline

    def watched(file: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, archive: Path) -> bool:
        complete = outline(file, entry, path, archive)
        written.append(path.stat().st_blocks * 512)
        return complete

    monkeypatch.setattr(discover, "_outline", watched)
    path = packages.component(tmp_path / "m", "text_encoder", mask=-1e4)
    path = path.rename(path.with_name("Stable_Diffusion_version_x_unet.mlpackage"))
    source = next(path.rglob("weight.bin"))
    with source.open("r+b") as file:
        file.truncate(64 << 20)
    inspect(zipped(tmp_path / "m", zipfile.ZIP_STORED))
    assert len(written) == 1
    assert written[0] < 1 << 20


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 246144152\n".format("0" * 64)


def test_pointers_in_archives_are_named_as_such(tmp_path: Path) -> None:
    folder = packages.folder_of(tmp_path / "m", "text_encoder", "unet", "vae_decoder")
    for path in folder.rglob("model.mlmodel"):
        path.write_text(POINTER)
    path = packages.component(folder, "vae_encoder")
    weight = path / "Data/com.apple.CoreML/weights/weight.bin"
    weight.parent.mkdir()
    weight.write_text(POINTER)
    inspection = inspect(zipped(folder, zipfile.ZIP_DEFLATED))
    texts = [f.text for bundle in inspection.bundles for f in bundle.findings]
    assert sum("is a git-lfs pointer, not the file of 246,144,152 bytes" in text for text in texts) == 4


def test_two_unets_foreign_models_and_strange_names_in_archives(tmp_path: Path) -> None:
    folder = packages.folder_of(tmp_path / "моя модель ✓", "text_encoder", "unet", "vae_decoder")
    packages.component(folder, "unet", file="Stable_Diffusion_version_naïve mødel (2)_unet")
    packages.package(folder, "Classifier", {"image": ("FLOAT32", (1, 3, 8, 8))}, {"label": ("FLOAT32", (1, 2))})
    archive = zipped(folder, zipfile.ZIP_DEFLATED)
    (bundle,) = inspect(archive).bundles
    texts = [f.text for f in bundle.findings]
    assert any("2 models are unet" in text for text in texts)
    assert any("no Stable Diffusion component" in text for text in texts)
    assert capabilities(bundle).cell("txt2img", "S7").verdict == "yes"
    assert cli.main(["inspect", str(archive)]) == 0


def test_names_that_leave_the_archive_are_refused_and_the_rest_is_judged(tmp_path: Path) -> None:
    folder = packages.folder_of(tmp_path / "m", "unet")
    archive = zipped(folder, zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("../../evil/weights/weight.bin", bytes(100_000))
        file.writestr("/abs/weights/weight.bin", bytes(100_000))
    before = sorted(tmp_path.rglob("*"))
    inspection = inspect(archive)
    assert sum("names a path outside itself: refused" in f.text for f in inspection.findings) == 2
    assert [c.kind for c in inspection.components] == ["unet"]
    assert sorted(tmp_path.rglob("*")) == before


def test_an_sd3_folder_with_sdxls_encoder_is_warned_about(tmp_path: Path) -> None:
    names = ("text_encoder", "text_encoder_2", "mmdit", "vae_decoder", "vae_encoder")
    model_id = "stabilityai/stable-diffusion-3-medium"
    packages.folder_of(tmp_path, *names, window="C8a", family="sd3", model_id=model_id, h=64, w=64)
    (bundle,) = inspect(tmp_path).bundles
    found = bundle.component("vae_encoder")
    assert found is not None
    assert (found.family, found.contract) == ("sd3", "x")
    assert min(found.windows) == "C8a"
    assert any("SDXL's" in f.text and "32 channels" in f.text for f in bundle.findings)
    assert capabilities(bundle).cell("img2img", "S8").failure.startswith("index crash")
