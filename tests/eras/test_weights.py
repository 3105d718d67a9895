"""Every weight of every era: coremltools 9's reader gives the same values; damage gives an error, never a crash."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parity.errors import FormatError
from parity.mil.blobs import BlobFile
from tests.eras.cases import ERAS
from tests.eras.conftest import Unpacked

RECORD = 64


def weight_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("weight.bin"))


def theirs(reader: Any, name: str, offset: int) -> np.ndarray:
    values = np.asarray(getattr(reader, {"fp32": "read_float_data"}.get(name, f"read_{name}_data"))(offset))
    return values.view(np.float16) if name == "fp16" else values


@pytest.mark.parametrize("era", ERAS)
def test_coremltools_own_reader_agrees_on_every_record(era: str, unpacked: Unpacked, storage: Any) -> None:
    compared = 0
    for path in weight_files(unpacked(era)):
        file = BlobFile(path)
        reader = storage._BlobStorageReader(str(path))
        for record in file.records():
            ours = file.read(record.offset)
            expected = theirs(reader, str(record.dtype), record.offset)
            assert ours.tobytes() == expected.astype(ours.dtype, copy=False).tobytes(), (path, record)
            compared += 1
        assert sum(1 for _ in file.records()) == file.count
    assert compared > 80


@pytest.mark.parametrize("era", ERAS)
def test_damaged_records_give_an_error_or_the_right_values(era: str, unpacked: Unpacked, tmp_path: Path) -> None:
    """Seeded: one to four bytes of a record are overwritten; what is read is refused or within the file."""
    random = np.random.default_rng([93, *era.encode()])
    path = max(weight_files(unpacked(era)), key=lambda p: p.stat().st_size)
    content = path.read_bytes()
    offsets = [record.offset for record in BlobFile(path).records()]
    refused = same = 0
    target = tmp_path / "weight.bin"
    for _ in range(300):
        offset = int(random.choice(offsets))
        damaged = bytearray(content)
        fields = [int(position) for position in random.integers(0, RECORD, random.integers(1, 5))]
        for position in fields:
            damaged[offset + position] = int(random.integers(0, 256))
        target.write_bytes(damaged)
        try:
            values = BlobFile(target).read(offset)
        except FormatError as error:
            refused += str(target) in str(error)
            continue
        if min(fields) >= 24 or damaged == content:  # uninitialised in old files, and unused by plain elements
            np.testing.assert_array_equal(values, BlobFile(path).read(offset))
            same += 1
        assert values.nbytes <= 2 * len(content) * 8
    assert refused > 100
    assert same > 5


@pytest.mark.parametrize("era", ERAS)
def test_cut_files_name_the_record_that_is_gone(era: str, unpacked: Unpacked, tmp_path: Path) -> None:
    path = weight_files(unpacked(era))[0]
    *_, last = BlobFile(path).records()
    target = tmp_path / "weight.bin"
    for length in (last.offset + 10, last.data_offset, last.data_offset + last.size - 1):
        target.write_bytes(path.read_bytes()[:length])
        with pytest.raises(FormatError, match=str(last.offset)):
            BlobFile(target).read(last.offset)


def test_a_garbage_count_of_unused_bits_is_read_over(unpacked: Unpacked) -> None:
    """The fixtures contain what the rule is about: counts that no element type could have."""
    impossible = 0
    for path in weight_files(unpacked("6.1")):
        content = path.read_bytes()
        for record in BlobFile(path).records():
            impossible += struct.unpack_from("<Q", content, record.offset + 24)[0] > 7
    assert impossible > 100
