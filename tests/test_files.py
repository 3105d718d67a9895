"""Copies that cost nothing where links can be made, and digests that read no file whole."""

from __future__ import annotations

import errno
import hashlib
import os
import tracemalloc
from pathlib import Path

import pytest

from parity import files


def test_a_copy_is_a_link_where_the_file_system_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "a"
    source.write_bytes(b"weights")
    files.link_or_copy(source, tmp_path / "linked")
    assert (tmp_path / "linked").samefile(source)

    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    files.link_or_copy(source, tmp_path / "copied")
    assert (tmp_path / "copied").read_bytes() == b"weights"
    assert not (tmp_path / "copied").samefile(source)


@pytest.mark.parametrize("size", [0, 1, (1 << 22) - 1, 1 << 22, (1 << 22) + 1])
def test_digests_are_those_of_hashlib(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * (size // 256) + bytes(size % 256))
    assert files.sha256(path).hexdigest() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_large_file_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    with path.open("wb") as stream:
        stream.truncate(1 << 26)  # 64 MiB
    tracemalloc.start()
    try:
        files.sha256(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 24


@pytest.mark.parametrize(("mask", "file", "folder"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_what_is_written_has_ordinary_permissions(tmp_path: Path, mask: int, file: int, folder: int) -> None:
    """Libraries write through temporary files that nobody else can read; the user's mask decides, nothing else."""
    before = os.umask(mask)
    try:
        other = tmp_path / "other"
        other.touch(0o600)
        with files.replacing(tmp_path / "model.mlpackage") as path:
            (path / "Data").mkdir(parents=True, mode=0o700)
            (path / "Data" / "model.mlmodel").touch(0o600)
            (path / "Data" / "run.sh").touch(0o700)
            os.link(other, path / "Data" / "linked")
    finally:
        os.umask(before)
    made = tmp_path / "model.mlpackage"
    modes = {name: (made / name).stat().st_mode & 0o777 for name in ("Data", "Data/model.mlmodel", "Data/run.sh")}
    assert modes == {"Data": folder, "Data/model.mlmodel": file, "Data/run.sh": 0o700 | file}
    assert other.stat().st_mode & 0o777 == 0o600  # a link's other name is somebody else's


def test_an_empty_folder_that_was_made_vanishes_and_nothing_else(tmp_path: Path) -> None:
    new, used = tmp_path / "a" / "b", tmp_path / "c"
    with files.unless_empty(new):
        new.mkdir(parents=True)
    assert list(tmp_path.iterdir()) == []
    with files.unless_empty(used):
        used.mkdir()
        (used / "kept").touch()
    (tmp_path / "own").mkdir()
    with files.unless_empty(tmp_path / "own"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "own"]


def test_what_cannot_be_written_is_named_as_the_user_did(tmp_path: Path) -> None:
    """A folder in the way and a full disk: nobody named the temporary file."""
    (tmp_path / "index.html").mkdir()
    with pytest.raises(IsADirectoryError) as caught, files.replacing(tmp_path / "index.html") as path:
        path.write_text("page")
    assert caught.value.filename == str(tmp_path / "index.html")
    with pytest.raises(OSError, match="No space left") as full, files.replacing(tmp_path / "page.html"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as writes raise it, without a name
    assert (full.value.errno, full.value.filename) == (errno.ENOSPC, str(tmp_path / "page.html"))
    assert [each.name for each in tmp_path.iterdir()] == ["index.html"]


def test_another_file_and_a_librarys_own_error_are_left_alone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, files.replacing(tmp_path / "page.html"):
        (tmp_path / "source").read_text()
    assert caught.value.filename == str(tmp_path / "source")
    with pytest.raises(OSError, match="cannot identify"), files.replacing(tmp_path / "page.html"):
        raise OSError("cannot identify")
