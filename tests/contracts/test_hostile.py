"""Whatever is in a file, inspection ends with records or one clear error, never a traceback."""

from __future__ import annotations

import contextlib
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from parity.contracts import capabilities, inspect
from parity.errors import ParityError
from tests.contracts import packages

FILES = ("Manifest.json", "Data/com.apple.CoreML/model.mlmodel", "Data/com.apple.CoreML/weights/weight.bin")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packages.component(tmp_path_factory.mktemp("encoder"), "text_encoder", mask=-1e4)


edits = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6
)


def edited(content: bytes, changes: list[tuple[float, bytes]], keep: float) -> bytes:
    data = bytearray(content)
    for place, new in changes:
        start = int(place * len(data))
        data[start : start + len(new)] = new
    return bytes(data[: int(keep * len(data))])


@pytest.mark.long
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(file=st.sampled_from(FILES), changes=edits, keep=st.sampled_from([1.0, 1.0, 1.0, 0.7, 0.1]))
def test_edited_packages(encoder: Path, file: str, changes: list[tuple[float, bytes]], keep: float) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / encoder.name
        for name in FILES:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            content = (encoder / name).read_bytes()
            (target / name).write_bytes(edited(content, changes, keep) if name == file else content)
        for bundle in inspect(scratch).bundles:
            assert len(capabilities(bundle).cells) > 100


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(changes=edits, keep=st.sampled_from([1.0, 1.0, 0.9]))
@example(changes=[(0.849609375, b"\0")], keep=1.0)  # cut a name of the central directory to nothing
def test_edited_archives(encoder: Path, changes: list[tuple[float, bytes]], keep: float) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "models.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in FILES:
                archive.write(encoder / name, f"{encoder.name}/{name}")
        path.write_bytes(edited(path.read_bytes(), changes, keep))
        with contextlib.suppress(ParityError):
            inspect(path)
        assert [p.name for p in Path(scratch).iterdir()] == ["models.zip"]


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=200))
def test_any_text_as_metadata(text: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "Unet.mlmodelc"
        folder.mkdir()
        (folder / "metadata.json").write_text(text, encoding="utf-8", errors="surrogatepass")
        assert inspect(scratch).components[0].kind == "broken"


@pytest.mark.parametrize("name", ["", ".", "./."])
def test_an_archive_entry_without_a_name(encoder: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "models.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in FILES:
            archive.write(encoder / file, f"{encoder.name}/{file}")
        archive.writestr(zipfile.ZipInfo("./"), b"")  # the folder itself, which some programs store
        archive.writestr(zipfile.ZipInfo(name), b"nothing")
    (component,), findings = inspect(path).components, inspect(path).findings
    assert component.kind != "broken"
    assert sum("has no name" in finding.text for finding in findings) == 1
