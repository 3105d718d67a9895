"""Goldens on the disk: what is accepted is bound to its digests, and damage is named."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from parity.errors import FormatError, MissingError, ParityError
from parity.pipelines.trace import Trace
from parity.suite.goldens import store
from tests.suite.goldens.drawn import TORCH, accepted, asked, trace


def test_a_golden_holds_what_was_drawn_and_where(tmp_path: Path) -> None:
    golden = store.write(tmp_path, asked(), trace())
    assert sorted(path.name for path in golden.folder.iterdir()) == ["image.png", "provenance.json", "trace.npz"]
    assert golden.id.startswith("org_model/txt2img-")
    assert golden.keys == TORCH
    assert golden.record["environment"]["python"]
    opened = golden.open()
    for point in store.points(trace()):
        assert opened[point].dtype == trace()[point].dtype
        assert np.array_equal(opened[point], trace()[point])


def test_the_same_is_written_once_and_another_one_beside_it(tmp_path: Path) -> None:
    first = store.write(tmp_path, asked(), trace())
    times = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    assert store.write(tmp_path, asked(), trace()).id == first.id
    assert {path: path.stat().st_mtime_ns for path in first.folder.iterdir()} == times
    others = {store.write(tmp_path, asked(), trace(1)).id, store.write(tmp_path, asked(weights="def"), trace()).id}
    assert len({first.id, *others}) == 3
    assert not [path for path in first.folder.parent.iterdir() if path.name.startswith(".")]


def test_the_picture_digest_is_of_decoded_pixels(tmp_path: Path) -> None:
    golden = accepted(tmp_path, asked(), trace())
    with Image.open(golden.folder / "image.png") as picture:
        picture.load()
        picture.save(golden.folder / "image.png", compress_level=0, pnginfo=None)
    assert np.array_equal(golden.open()["image"], trace()["image"])


def other_picture(path: Path) -> None:
    Image.new("RGB", (32, 32), "red").save(path)


def bomb(path: Path) -> None:
    Image.new("L", (1, 1)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = (60000).to_bytes(4, "big") * 2  # width and height of the header
    path.write_bytes(data)


def huge_array(path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_2_0(header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 44,)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("image.npy", header.getvalue())


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def pickled(path: Path) -> None:
    np.savez(path, image=np.array([{"a": 1}], dtype=object))


def without_picture(path: Path) -> None:
    np.savez(path, other=np.zeros(3))


def of_floats(path: Path) -> None:
    np.savez(path, image=np.zeros((1, 8, 8, 3), np.float32))


def nothing(path: Path) -> None:
    path.write_bytes(b"")


def gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("trace.npz", nothing),
        ("trace.npz", lambda path: path.write_bytes(path.read_bytes()[:200])),
        ("trace.npz", flipped),
        ("trace.npz", pickled),
        ("trace.npz", huge_array),
        ("trace.npz", without_picture),
        ("trace.npz", of_floats),
        ("trace.npz", gone),
        ("image.png", nothing),
        ("image.png", lambda path: path.write_bytes(path.read_bytes()[:100])),
        ("image.png", bomb),
        ("image.png", other_picture),
        ("image.png", lambda path: Image.new("RGB", (64, 32)).save(path)),
        ("image.png", gone),
    ],
)
def test_damage_is_named_with_the_file(tmp_path: Path, file: str, damage: Callable[[Path], object]) -> None:
    golden = accepted(tmp_path, asked(), trace())
    damage(golden.folder / file)
    with pytest.raises((FormatError, MissingError), match=file):
        golden.open()


def test_what_was_changed_after_it_was_accepted_is_not_accepted(tmp_path: Path) -> None:
    golden = accepted(tmp_path, asked(), trace())
    other = store.write(tmp_path / "elsewhere", asked(), trace(3))
    for path in other.folder.iterdir():
        (golden.folder / path.name).write_bytes(path.read_bytes())
    with pytest.raises(FormatError, match=r"changed since it was accepted on .* by Ada .*\(picture"):
        golden.open()
    changed = {**{point: trace()[point] for point in store.points(trace())}, "latents/initial": np.zeros(3, np.float32)}
    Trace(changed).save(golden.folder / "trace.npz")
    with pytest.raises(FormatError, match=r"\(tensors: other digest\)"):
        golden.open()


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"model": 3}',
        json.dumps({"model": "m", "weights": "", "image_sha256": "", "case": [], "environment": {}}).encode(),
        json.dumps(
            {"model": "m", "weights": "", "image_sha256": "", "case": {}, "environment": {}, "keys": {"chip": 1}}
        ).encode(),
        b" " * (1 << 21),
        None,
    ],
)
def test_damaged_provenance_is_named(tmp_path: Path, content: bytes | None) -> None:
    golden = accepted(tmp_path, asked(), trace())
    path = golden.folder / "provenance.json"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(ParityError, match=r"provenance\.json"):
        store.in_series(tmp_path, asked().series)


def test_settings_that_were_changed_after_the_picture_was_accepted_are_found(tmp_path: Path) -> None:
    golden = accepted(tmp_path, asked(), trace())
    path = golden.folder / "provenance.json"
    path.write_text(path.read_text().replace('"seed": 93', '"seed": 94'))
    (changed,) = store.in_series(tmp_path, asked().series)
    with pytest.raises(FormatError, match=r"provenance\.json was changed"):
        changed.open()


def test_scratch_and_other_folders_are_no_goldens(tmp_path: Path) -> None:
    golden = store.write(tmp_path, asked(), trace())
    for name in ("notes", ".scratch-1234", "ABCDEF012345"):
        (golden.folder.parent / name).mkdir()
    (tmp_path / ".git" / "x").mkdir(parents=True)
    assert [one.id for one in store.everything(tmp_path)] == [golden.id]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="--golden-dir"):
        store.everything(tmp_path / "none")
