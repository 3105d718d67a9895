"""Bad files are refused before any process is started for them."""

from __future__ import annotations

import hashlib
import json

import pytest

from parity.coreai import container
from parity.errors import FormatError, MissingError, UnsupportedError

PROGRAM = b"ML\xefR and the rest"


@pytest.fixture
def file(tmp_path):
    """A folder that has the form of an .aimodel."""
    path = tmp_path / "net.aimodel"
    path.mkdir()
    (path / "main.mlirb").write_bytes(PROGRAM)
    (path / "main.hash").write_bytes(hashlib.sha256(PROGRAM).digest())
    (path / "metadata.json").write_text(json.dumps({"assetVersion": "2.0"}))
    return path


def test_a_whole_file_passes_with_or_without_hash(file):
    assert container.check(file)["assetVersion"] == "2.0"
    (file / "main.hash").unlink()
    container.check(file)


def test_each_flipped_bit_is_found(file):
    for index in range(4, len(PROGRAM)):
        damaged = bytearray(PROGRAM)
        damaged[index] ^= 1
        (file / "main.mlirb").write_bytes(damaged)
        with pytest.raises(FormatError, match=r"not what main\.hash says"):
            container.check(file)


@pytest.mark.parametrize("content", [b"", b"ML", b"text instead", PROGRAM[:9]])
def test_empty_truncated_and_foreign_programs(file, content):
    (file / "main.mlirb").write_bytes(content)
    with pytest.raises(FormatError, match=r"net\.aimodel: main\.mlirb"):
        container.check(file)


def test_missing_parts(file):
    (file / "main.mlirb").unlink()
    with pytest.raises(FormatError, match=r"main\.mlirb is missing"):
        container.check(file)
    (file / "metadata.json").unlink()
    with pytest.raises(FormatError, match=r"metadata\.json is missing"):
        container.check(file)
    with pytest.raises(MissingError, match="no such file"):
        container.check(file.with_name("other.aimodel"))
    with pytest.raises(FormatError, match=r"not an \.aimodel"):
        container.check(file.parent)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"assetVersion": "x"}', "[" * 100_000])
def test_unreadable_metadata(file, text):
    (file / "metadata.json").write_text(text)
    with pytest.raises(FormatError, match=r"metadata\.json: not readable"):
        container.check(file)


def test_a_newer_format_is_named(file):
    (file / "metadata.json").write_text('{"assetVersion": "3.1"}')
    with pytest.raises(UnsupportedError, match=r"format 3\.1; up to 2\.x"):
        container.check(file)
