"""The committed archives are what the manifests say, and they are what real files of their time are like."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fixtures.eras import check, make, model
from tests.eras.cases import ERAS, FOLDERS, OLD
from tests.eras.conftest import Unpacked


def manifest(era: str) -> dict:
    return json.loads((make.HERE / era / make.MANIFEST).read_text())


def test_every_era_is_here() -> None:
    assert tuple(name for name, _ in check.manifests()) == ERAS == tuple(make.eras())


@pytest.mark.parametrize("era", ERAS)
def test_the_archive_is_described(era: str, unpacked: Unpacked) -> None:
    folder = unpacked(era)
    found = {path.relative_to(folder).as_posix(): make.describe(path) for path in folder.rglob("*.mlpackage")}
    assert found == manifest(era)["packages"]
    assert {name.split("/")[0] for name in found} == set(FOLDERS[era])


@pytest.mark.parametrize("era", ERAS)
def test_the_libraries_are_of_the_era(era: str) -> None:
    said, asked = manifest(era)["libraries"], make.eras()[era]
    for name in ("coremltools", "transformers", "diffusers"):
        (pinned,) = (text.partition("==")[2] for text in asked["layer"] if text.startswith(name))
        assert said[name] in (pinned, f"{pinned}.0", pinned.removesuffix(".0"))
    assert said["python"].startswith(asked["table"]["python"])


def test_all_eras_converted_todays_recipe(checkpoint: Path) -> None:
    """Otherwise comparisons with PyTorch would compare two models."""
    assert {manifest(era)["model"]["weights"] for era in ERAS} == {model.digest(checkpoint)}


@pytest.mark.parametrize("era", ERAS)
def test_uninitialised_bytes_are_those_of_the_era(era: str) -> None:
    """Bytes 24-31 of a record are set in files of 8.0 and later for packed elements alone; before, they are memory."""
    packages = manifest(era)["packages"].values()
    records = sum(package["records"] for package in packages)
    garbage = sum(package["records_with_padding_bytes_set"] for package in packages)
    assert garbage > 0.9 * records if era in OLD else garbage == 0


@pytest.mark.parametrize("era", ERAS)
def test_outputs_without_shape_are_those_of_the_era(era: str) -> None:
    missing = [package["outputs_without_shape"] for package in manifest(era)["packages"].values()]
    assert all(missing) if era in ("5.2", "6.1", "6.3", "7.0b1") else not any(missing)


def test_a_damaged_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from parity.errors import FormatError

    (tmp_path / "6.1").mkdir()
    for name in (make.ARCHIVE, make.MANIFEST):
        (tmp_path / "6.1" / name).write_bytes((make.HERE / "6.1" / name).read_bytes() + b" ")
    monkeypatch.setattr(make, "HERE", tmp_path)
    with pytest.raises(FormatError, match="SHA-256"):
        check.unpack("6.1", tmp_path / "out")
