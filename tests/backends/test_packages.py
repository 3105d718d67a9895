"""What users have: packages, compiled models, halves, archives, folders of several sets; each is found or named."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from parity import convert, recipes
from parity.backends import packages
from parity.backends.coreml import CoreMLBackend
from parity.backends.packages import Packages
from parity.convert.chunk import chunk
from parity.errors import FormatError, MissingError
from tests.contracts.test_compiled import compiled

NAMES = {
    "text_encoder": "TextEncoder",
    "unet": "Unet",
    "vae_decoder": "VAEDecoder",
    "vae_encoder": "VAEEncoder",
}


pytestmark = pytest.mark.long  # models are converted for all of them


@pytest.fixture(scope="module")
def whole() -> dict[str, Path]:
    return dict(convert.cached(recipes.build("tiny-sd")))


@pytest.fixture(scope="module")
def halves(whole: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    made = chunk(whole["unet"], tmp_path_factory.mktemp("halves"), check=False)
    return made.first, made.second


@pytest.fixture
def folder(whole: dict[str, Path], tmp_path: Path) -> Path:
    """The packages as they lie after a conversion."""
    for path in whole.values():
        shutil.copytree(path, tmp_path / "models" / path.name)
    return tmp_path / "models"


def unet(found: Packages, seed: int = 93) -> np.ndarray:
    """What a UNet answers to inputs that depend on nothing but the seed."""
    component = CoreMLBackend(found.paths, runtime="reference").component("unet")
    rng = np.random.default_rng(seed)
    width = component._models[0].inputs  # type: ignore[attr-defined]
    context = next(feature for feature in width if feature.name == "encoder_hidden_states").shape[1]
    return component(
        {
            "sample": rng.normal(size=(2, 4, 16, 16)).astype(np.float32),
            "timestep": np.array([500, 500]),
            "hidden": rng.normal(size=(2, 77, context)).astype(np.float32),
        }
    )["noise_pred"]


def test_packages_in_a_folder_and_one_alone(folder: Path) -> None:
    found = packages.find(folder)
    assert set(found.paths) == set(NAMES)
    assert found.latent == (16, 16)
    assert found.remarks == ()
    only = packages.find(next(folder.glob("*_unet.mlpackage")))
    assert list(only.paths) == ["unet"]
    assert "no text_encoder in it" in only.parts["text_encoder"].problem
    assert not only.parts["text_encoder"].damaged


@pytest.mark.long
def test_names_do_not_decide(folder: Path) -> None:
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(folder / f"model{number}.mlpackage")
    assert set(packages.find(folder).paths) == set(NAMES)


def test_two_halves_are_a_unet_and_give_what_the_whole_gives(
    folder: Path, whole: dict[str, Path], halves: tuple[Path, Path]
) -> None:
    expected = unet(packages.find(folder))
    shutil.rmtree(folder / whole["unet"].name)
    for half in halves:
        shutil.copytree(half, folder / half.name)
    found = packages.find(folder)
    assert [path.name[-14:] for path in found.paths["unet"]] == ["chunk1.mlpackage"[-14:], "chunk2.mlpackage"[-14:]]
    error = np.abs(unet(found) - expected).max()
    assert error <= 2e-3 * np.abs(expected).max()  # each half is fused by itself
    shutil.rmtree(folder / halves[0].name)
    problem = packages.find(folder).parts["unet"].problem
    assert "is half of it, chunk 1 is missing" in problem
    assert str(folder) in problem


@pytest.mark.long
def test_halves_of_two_models_are_named(halves: tuple[Path, Path], whole: dict[str, Path]) -> None:
    backend = CoreMLBackend({"unet": (halves[0], whole["vae_decoder"])}, runtime="reference")
    with pytest.raises(FormatError, match=r"vae_decoder.mlpackage: it needs the input z, and the first half does not"):
        backend.component("unet")
    with pytest.raises(FormatError, match=r"needs the input .*, and only sample, timestep, encoder_hidden_states are"):
        CoreMLBackend({"unet": (halves[1],)}, runtime="reference").component("unet")


def test_the_whole_unet_is_judged_where_both_are(folder: Path, halves: tuple[Path, Path]) -> None:
    for half in halves:
        shutil.copytree(half, folder / half.name)
    found = packages.find(folder)
    assert len(found.paths["unet"]) == 1
    assert any("whole UNet is judged, not the halves" in remark for remark in found.remarks)


@pytest.mark.parametrize(
    "place",
    [pytest.param("", marks=pytest.mark.slow), pytest.param("Resources", marks=pytest.mark.slow), "coreml/Resources"],
)
def test_compiled_models_as_an_app_ships_them(
    whole: dict[str, Path], halves: tuple[Path, Path], tmp_path: Path, place: str
) -> None:
    target = tmp_path / "app" / place
    for name, path in whole.items():
        if name != "unet":
            compiled(path, target / f"{NAMES[name]}.mlmodelc")
    for number, half in enumerate(halves, 1):
        compiled(half, target / f"UnetChunk{number}.mlmodelc")
    found = packages.find(tmp_path / "app")
    assert set(found.paths) == set(NAMES)
    assert [path.name for path in found.paths["unet"]] == ["UnetChunk1.mlmodelc", "UnetChunk2.mlmodelc"]
    assert found.latent == (16, 16)
    assert np.isfinite(unet(found)).all()


def test_packages_come_before_compiled_models_beside_them(folder: Path, whole: dict[str, Path]) -> None:
    compiled(whole["unet"], folder / "Resources" / "Unet.mlmodelc")
    assert [path.suffix for path in packages.find(folder).paths["unet"]] == [".mlpackage"]
    shutil.rmtree(folder / whole["unet"].name)
    assert [path.suffix for path in packages.find(folder).paths["unet"]] == [".mlmodelc"]


@pytest.mark.long
def test_a_zip_archive_runs_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "models.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, Path("some-model") / path.relative_to(folder))
        file.writestr("../outside.txt", "x")
    found = packages.find(archive)
    assert np.array_equal(unet(found), unet(packages.find(folder)))
    assert not (tmp_path / "outside.txt").exists()
    assert found.say(str(found.paths["unet"][0])) == str(archive / "some-model" / found.paths["unet"][0].name)
    unpacked = found.root
    assert unpacked.is_dir()
    found.close()
    assert not unpacked.exists()


def test_several_sets_are_listed(folder: Path, tmp_path: Path) -> None:
    for name in ("original", "split_einsum"):
        shutil.copytree(folder, tmp_path / "all" / name / "packages")
    with pytest.raises(FormatError, match=r"several sets .*\(original/packages, split_einsum/packages\); name the fol"):
        packages.find(tmp_path / "all")


def test_two_models_for_one_component_are_named(folder: Path) -> None:
    shutil.copytree(next(folder.glob("*_unet.mlpackage")), folder / "other_unet.mlpackage")
    with pytest.raises(FormatError, match=r"two candidates for unet: .* and other_unet.mlpackage"):
        packages.find(folder)


def test_damage_is_named_with_the_path_and_leaves_the_others(folder: Path) -> None:
    weights = {f"{name}.mlpackage": next(folder.glob(f"*_{name}.mlpackage")) for name in NAMES}
    blob = Path("Data/com.apple.CoreML/weights/weight.bin")
    pointer = weights["text_encoder.mlpackage"] / blob
    pointer.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 123456\n")
    shutil.rmtree((weights["vae_decoder.mlpackage"] / blob).parent)
    (weights["vae_encoder.mlpackage"] / "Data" / "com.apple.CoreML" / "model.mlmodel").write_bytes(b"\xff" * 100)
    found = packages.find(folder)
    assert list(found.paths) == ["unet"]
    for name in ("text_encoder", "vae_decoder", "vae_encoder"):
        assert found.parts[name].damaged
        assert str(weights[f"{name}.mlpackage"]) in found.parts[name].problem
    assert "git-lfs pointer, not the file of 123,456 bytes" in found.parts["text_encoder"].problem


def test_nothing_to_find(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no such file or folder"):
        packages.find(tmp_path / "nowhere")
    with pytest.raises(MissingError, match=r"no converted text encoder, UNet or VAE in it .*expected names such as"):
        packages.find(tmp_path)
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(FormatError, match=r"a\.zip: not a readable zip archive"):
        packages.find(tmp_path / "a.zip")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(FormatError, match=r"a\.txt: neither a folder"):
        packages.find(tmp_path / "a.txt")
