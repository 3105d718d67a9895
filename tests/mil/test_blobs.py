"""Weight files against coremltools' own writer, and damaged ones."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.errors import FormatError
from parity.mil import dtypes
from parity.mil.blobs import ALIGNMENT, BlobFile, Weights

_WRITERS = {  # MIL name -> (method of coremltools' writer, dtype of the array that it takes, bits)
    "fp32": ("float", np.float32, 32),
    "int8": ("int8", np.int8, 8),
    "uint8": ("uint8", np.uint8, 8),
    "int16": ("int16", np.int16, 16),
    "uint16": ("uint16", np.uint16, 16),
    "int32": ("int32", np.int32, 32),
    "uint32": ("uint32", np.uint32, 32),
    "int4": ("int4", np.int8, 4),
    "uint1": ("uint1", np.uint8, 1),
    "uint2": ("uint2", np.uint8, 2),
    "uint3": ("uint3", np.uint8, 3),
    "uint4": ("uint4", np.uint8, 4),
    "uint6": ("uint6", np.uint8, 6),
}


def _values(name: str, count: int, rng: np.random.Generator) -> np.ndarray:
    _, dtype, bits = _WRITERS[name]
    if name == "fp32":
        return rng.standard_normal(count).astype(np.float32)
    low, high = (-(1 << (bits - 1)), 1 << (bits - 1)) if name.startswith("int") else (0, 1 << bits)
    return rng.integers(low, high, count).astype(dtype)


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.tuples(st.sampled_from(sorted(_WRITERS)), st.integers(1, 200)), min_size=1, max_size=8))
def test_reads_what_coremltools_writes(
    storage: Any, tmp_path_factory: pytest.TempPathFactory, sizes: list[tuple[str, int]]
) -> None:
    rng = np.random.default_rng(3)
    path = tmp_path_factory.mktemp("blob") / "weight.bin"
    writer = storage._BlobStorageWriter(str(path))
    written = []
    for name, count in sizes:
        values = _values(name, count, rng)
        written.append((name, getattr(writer, f"write_{_WRITERS[name][0]}_data")(values), values))
    del writer
    file = BlobFile(path)
    assert [r.dtype.name for r in file.records()] == [name for name, _, _ in written]
    for name, offset, values in written:
        read = file.read(offset)
        assert read.dtype == dtypes.BY_NAME[name].numpy
        np.testing.assert_array_equal(read, values)


def test_float16_is_a_view_and_read_only_unless_asked(storage: Any, tmp_path: Path) -> None:
    values = np.arange(-4, 4, dtype=np.float16)
    path = tmp_path / "weight.bin"
    writer = storage._BlobStorageWriter(str(path))
    offset = writer.write_fp16_data(values.view(np.uint16))
    del writer
    file = BlobFile(path)
    np.testing.assert_array_equal(file.read(offset), values)
    with pytest.raises(ValueError, match="read-only"):
        file.read(offset)[0] = 1
    before = path.read_bytes()
    file.read(offset, writable=True)[0] = 9
    assert path.read_bytes() == before  # the mapping is private to the process
    file.release(offset)
    assert np.isfinite(file.read(offset)).all()


@pytest.mark.parametrize("name", [row.name for row in dtypes.ALL if row.is_int or row.name in ("fp16", "fp32", "fp64")])
def test_pack_inverts_unpack(name: str) -> None:
    dtype = dtypes.BY_NAME[name]
    rng = np.random.default_rng(11)
    raw = rng.integers(0, 256, 48, dtype=np.uint8)
    count = raw.size * 8 // dtype.bits
    assert dtypes.pack(dtypes.unpack(raw, dtype, count), dtype) == raw.tobytes()


def test_narrow_floats_agree_with_torch() -> None:
    import torch

    codes = np.arange(256, dtype=np.uint8)
    for name, theirs in (("fp8e4m3fn", torch.float8_e4m3fn), ("fp8e5m2", torch.float8_e5m2)):
        expected = torch.from_numpy(codes.copy()).view(theirs).float().numpy()
        np.testing.assert_array_equal(dtypes.unpack(codes, dtypes.BY_NAME[name], 256), expected)
    wide = np.random.default_rng(5).integers(0, 1 << 16, 512, dtype=np.uint16)
    expected = torch.from_numpy(wide.view(np.int16).copy()).view(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(dtypes.unpack(wide.view(np.uint8), dtypes.BY_NAME["bf16"], 512), expected)


def _file(path: Path, *, version: int = 2, record: tuple[int, ...] = (0xDEADBEEF, 2, 16, 128, 0)) -> Path:
    head = struct.pack("<II", 1, version).ljust(ALIGNMENT, b"\0")
    path.write_bytes(head + struct.pack("<IIQQQ", *record).ljust(ALIGNMENT, b"\0") + b"\0" * 16)
    return path


def test_a_valid_file_reads(tmp_path: Path) -> None:
    assert BlobFile(_file(tmp_path / "w")).read(64).tolist() == [0.0] * 4


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ((0xDEADBEE0, 2, 16, 128, 0), "sentinel 0xDEADBEE0"),
        ((0xDEADBEEF, 99, 16, 128, 0), "unknown element type 99"),
        ((0xDEADBEEF, 2, 17, 128, 0), "the file has 144 bytes"),
        ((0xDEADBEEF, 2, 1 << 63, 128, 0), "the file has 144 bytes"),
        ((0xDEADBEEF, 2, 16, (1 << 64) - 8, 0), "the file has 144 bytes"),
        ((0xDEADBEEF, 2, 15, 128, 0), "whole number of fp32"),
        ((0xDEADBEEF, 11, 16, 128, 9), "9 unused bits"),
    ],
)
def test_damaged_records_are_named(tmp_path: Path, record: tuple[int, ...], message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        BlobFile(_file(tmp_path / "w", record=record)).read(64)
    assert "offset 64" in str(caught.value)


@pytest.mark.parametrize("garbage", [1, 4, 0xDEADBEEF, (1 << 64) - 1, 0x00007F3A5C2E1B40])
def test_uninitialised_bytes_of_old_releases_mean_nothing(tmp_path: Path, garbage: int) -> None:
    """coremltools up to 7.2 did not write the field of unused bits; it counts for packed elements alone."""
    file = BlobFile(_file(tmp_path / "w", record=(0xDEADBEEF, 2, 16, 128, garbage)))
    assert (file.record(64).padding_bits, file.record(64).count) == (0, 4)
    assert file.read(64).tolist() == [0.0] * 4


@pytest.mark.parametrize("offset", [0, 1, 65, 128, 1 << 40])
def test_offsets_outside_the_file(tmp_path: Path, offset: int) -> None:
    with pytest.raises(FormatError, match=f"offset {offset}"):
        BlobFile(_file(tmp_path / "w")).read(offset)


def test_short_and_foreign_files(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"abc")
    with pytest.raises(FormatError, match="3 bytes"):
        BlobFile(tmp_path / "short")
    with pytest.raises(FormatError, match="version 1"):
        BlobFile(_file(tmp_path / "old", version=1))


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/hostname", "@model_path/../secret", "link", "", "a\0b", "x" * 5000]
)
def test_weight_names_cannot_leave_the_model(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    _file(tmp_path / "secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(FormatError, match=r"outside|not usable|missing"):
        Weights(folder).read(64, name)
