"""Causes are planted and asked back; the command line writes, compares and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from parity import streams
from parity.cli import main
from parity.errors import UsageError
from parity.streams import files, semantics
from parity.streams.compare import UNEXPLAINED, compare, explain

SHAPE = (1, 4, 16, 16)


def _drawn(name: str, seed: int = 93, shape: object = SHAPE, **options: object) -> np.ndarray:
    dtype = options.pop("dtype", None)
    return streams.open(name, seed, **options).normal(shape, dtype=dtype)  # type: ignore[arg-type]


def _said(a: np.ndarray, b: np.ndarray) -> str:
    return "\n".join(map(str, explain(a, b)))


def test_difference_is_counted() -> None:
    a = _drawn("torch-cpu")
    b = a.copy()
    b[0, 1, 2, 3] += 1
    b[0, 3, 0, 0] += 4
    difference = compare(a, b)
    assert difference is not None
    assert (difference.differing, difference.first, difference.largest_at) == (2, (0, 1, 2, 3), (0, 3, 0, 0))
    assert difference.share == 2 / 1024
    assert difference.largest == pytest.approx(4.0)
    assert str(compare(a, a)) == "equal: all 1024 values"
    assert compare(a, a[:, :2]) is None
    b[...] = np.nan
    assert compare(b, b).differing == 0  # type: ignore[union-attr]
    assert compare(a, b).largest == np.inf  # type: ignore[union-attr]


def test_kernels() -> None:
    said = _said(_drawn("torch-cpu"), _drawn("torch-cpu", kernel="libm"))
    assert "kernel avx2" in said
    assert "two CPU kernels" in said


def test_streams() -> None:
    said = _said(_drawn("numpy-legacy").astype(np.float16), _drawn("torch-cpu"))
    assert "A is numpy-legacy seed 93" in said
    assert "unrelated" in said


def test_seed_offset() -> None:
    assert "seeds differ by 1" in _said(_drawn("torch-cpu", 93), _drawn("torch-cpu", 94))


def test_seeds_of_equal_low_bits() -> None:
    """torch's CPU generator takes 32 bits of a seed; an app whose seeds have no more gives the noise all the same."""
    a, b = _drawn("torch-cpu", 5_000_000_000), _drawn("swift-torch", 705_032_704)
    said = "\n".join(map(str, explain(a, b, seeds=(5_000_000_000, 705_032_704))))
    assert "705032704 is 5000000000 modulo 2**32" in said
    assert "number the images" not in said
    with pytest.raises(UsageError, match="torch-cpu's noise for it is that of seed 705032704"):
        streams.open("swift-torch", seed=5_000_000_000)


def test_what_is_nan_in_both_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = np.arange(6, dtype=np.float32)
    values[2:4] = np.nan
    difference = compare(values, values.copy())
    assert difference is not None
    assert (difference.differing, difference.undefined) == (0, 2)
    np.save(tmp_path / "a.npy", values)
    assert main(["latents", "--compare", str(tmp_path / "a.npy"), str(tmp_path / "a.npy")]) == 1
    assert "equal: all 6 values, 2 of them NaN in both" in capsys.readouterr().out


def test_rounding() -> None:
    a = _drawn("numpy-legacy")
    assert "B is A rounded to float16" in _said(a, a.astype(np.float16))
    assert "A is B rounded to float32" in _said(a.astype(np.float32), a)


def test_scaling() -> None:
    a = _drawn("torch-cpu")
    assert "B is A times 14.6146" in _said(a, a * np.float32(14.6146))


def test_shift() -> None:
    values = _drawn("numpy-legacy", shape=1024 + 4)
    assert "B is A from value 4 on: 4 more values" in _said(values[:1024], values[4:])


def test_ragged_end() -> None:
    a, b = _drawn("torch-cpu", shape=1000), _drawn("swift-torch", shape=1000)
    assert "no multiple of 16" in _said(a, b)
    c = a.copy()
    c[-16:] = 0
    assert "only the last 16 values differ" in _said(a, c)


def test_one_generator_for_each_item() -> None:
    a = semantics.diffusers(93, (2, 4, 8, 8))
    b = semantics.diffusers([93, 94], (2, 4, 8, 8))
    assert "one generator for each item" in _said(a, b)


def test_half_rules() -> None:
    a, b = (_drawn("torch-cpu", dtype="float16", torch_version=v) for v in ("2.11", "2.13"))
    assert "releases 2.12 and 2.13" in _said(a, b)


def test_shape() -> None:
    a = _drawn("torch-cpu")
    assert "only the shape differs" in _said(a, a.reshape(4, 256))


@pytest.mark.long
def test_unknown_cause_is_not_invented() -> None:
    a = _drawn("torch-cpu", 555)
    b = a.copy()
    b[0, 0, 0, 0] += 1
    causes = explain(a, b)
    assert {cause.kind for cause in causes} <= UNEXPLAINED
    assert "all but 1 of 1024 values are equal" in str(causes[0])
    assert "A was not recognised" in _said(a, b)
    assert "B was not recognised" in _said(a, b)


@pytest.mark.parametrize("suffix", files.SUFFIXES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_files(tmp_path: Path, suffix: str, dtype: str) -> None:
    path = tmp_path / f"latents{suffix}"
    words = ["latents", "--rng", "torch-cpu", "--seed", "93", "--shape", "1,4,8,8", "--dtype", dtype, "-o", str(path)]
    assert main(words) == 0
    assert np.array_equal(files.load(path), _drawn("torch-cpu", shape=(1, 4, 8, 8), dtype=dtype))
    if suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            tensor = file.get_tensor("latents")
        assert str(tensor.dtype) == f"torch.{dtype}"
        assert np.array_equal(tensor.double().numpy(), files.load(path).astype(np.float64))


def _safetensors(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 40,
        _safetensors({}),
        _safetensors([1]),
        _safetensors({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"abcd"),
        _safetensors({"a": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}}, b"abcdefgh"),
        _safetensors({"a": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}, b"abcd"),
        _safetensors({"a": 5}),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes) -> None:
    for suffix in files.SUFFIXES:
        path = tmp_path / f"damaged{suffix}"
        path.write_bytes(content)
        with pytest.raises(ValueError, match="damaged"):
            files.load(path)


def test_pickles_are_not_read(tmp_path: Path) -> None:
    np.save(tmp_path / "pickled.npy", np.array([{}], object), allow_pickle=True)
    np.save(tmp_path / "whole.npy", np.arange(3))
    np.savez(tmp_path / "two.npz", a=np.ones(2), b=np.ones(2))
    for name, says in (("pickled.npy", "damaged"), ("whole.npy", "floating"), ("two.npz", "expected one array")):
        with pytest.raises(ValueError, match=says):
            files.load(tmp_path / name)


def test_command_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = tmp_path / "a.npy", tmp_path / "b.npy"
    np.save(a, _drawn("torch-cpu", 7))
    np.save(b, _drawn("torch-cpu", 7, kernel="libm"))
    assert main(["latents", "--compare", str(a), str(a)]) == 0
    assert main(["latents", "--compare", str(a), str(b)]) == 1
    assert "cause unknown" in capsys.readouterr().out
    assert main(["latents", "--compare", str(a), str(b), "--seed", "7"]) == 1
    assert "kernel libm" in capsys.readouterr().out
    words = ["--compare", "swift-torch", "torch-cpu", "--seed", "7", "--shape", "100"]
    assert main(["latents", *words]) == 1
    assert "ragged end" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--seed", "1", "--shape", "3"], "--rng is needed"),
        (["--rng", "mt", "--seed", "1", "--shape", "3"], "unknown stream"),
        (["--rng", "torch-cpu", "--seed", "1", "--shape=-3"], "negative"),
        (["--rng", "torch-cpu", "--seed", "1", "--shape", "3", "--dtype", "int8"], "does not draw int8"),
        (["--rng", "numpy-legacy", "--seed", "1", "--shape", "3", "--kernel", "avx2"], "no option"),
        (["--rng", "torch-cpu", "--seed", "1", "--shape", "99999999", "-o", "latents.txt"], "cannot write .txt"),
        (["--rng", "torch-cpu", "--seed", "1", "--shape", "2000000000000"], "more than this machine's memory"),
        (["--rng", "torch-cuda", "--seed", "1", "--shape", "3", "--multiprocessors", "3"], "give both"),
        (["--rng", "torch-cpu", "--seed", "1", "--shape", "3", "--threads", "3"], "no option 'threads'"),
        (["--rng", "torch-cpu", "--seed", "1", "--seed", "2", "--shape", "3"], "several --seed"),
        (["--rng", "torch-cpu", "--seed", "1", "--shape", "3", "--like", "swift"], "swift-numpy"),
        (["--rng", "torch-cpu", "--seed", "1", "--shape", "3", "--like", "python"], "numpy-legacy"),
        (["--rng", "swift-numpy", "--seed", "1", "--shape", "3", "--like", "diffusers"], "torch-cpu or torch-cuda"),
        (["--compare", "absent.npy", "absent.npy"], "no such file"),
        (["--compare", "torch-cpu", "torch-cpu"], "needs --seed"),
    ],
)
def test_command_refuses(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["latents", *words]) == 2
    assert says in capsys.readouterr().err
    assert not Path("latents.txt").exists()


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["--rng", "mlx", "--no-split"], {"split": False}),
        (["--rng", "jax", "--split", "--no-partitionable"], {"split": True, "partitionable": False}),
        (["--rng", "torch-mps", "--torch-version", "2.14"], {"torch_version": "2.14"}),
        (["--rng", "torch-cpu", "--kernel", "libm", "--fused"], {"kernel": "libm", "fused": True}),
        (["--rng", "torch-cuda", "--gpu", "Tesla T4"], {"device": "T4"}),
        (["--rng", "torch-cuda", "--multiprocessors", "40", "--threads", "1024"], {"device": "T4"}),
    ],
)
def test_command_passes_options_on(words: list[str], options: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "drawn.npy"
    shape = (1, 4, 128, 96)
    assert main(["latents", *words, "--seed", "93", "--shape", "1,4,128,96", "-o", str(path)]) == 0
    assert np.array_equal(np.load(path), _drawn(words[1], shape=shape, **options))


def test_command_asks_like_programs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    runs = {
        "mochi": ["--rng", "swift-numpy", "--seed", "93", "--images", "2"],
        "swift": ["--rng", "swift-numpy", "--seed", "93", "--images", "2"],
        "python": ["--rng", "numpy-legacy", "--seed", "93"],
        "diffusers": ["--rng", "torch-cpu", "--seed", "93", "--seed", "94"],
    }
    for program, words in runs.items():
        path = tmp_path / f"{program}.npy"
        assert main(["latents", *words, "--shape", "2,4,8,8", "--like", program, "-o", str(path)]) == 0
    images = {program: np.load(tmp_path / f"{program}.npy") for program in runs}
    assert np.array_equal(images["mochi"][0], images["swift"][0])
    assert not np.array_equal(images["mochi"][1], images["swift"][1])
    assert images["python"].dtype == np.float16
    assert np.array_equal(images["diffusers"][1], _drawn("torch-cpu", 94, (4, 8, 8)))
    assert main(["latents", "--detect"]) == 0
    assert "float32 kernel" in capsys.readouterr().out


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_signalling_nans_of_damaged_files_are_nans_and_no_warning(dtype: str) -> None:
    a = _drawn("torch-cpu").astype(dtype)
    bits = a.view(f"uint{8 * a.itemsize}")
    bits[0, 1, 2, 3] = {"float16": 0x7D00, "float32": 0x7FA00000}[dtype]
    difference = compare(a, a)
    assert difference is not None
    assert (difference.differing, difference.undefined) == (0, 1)
    assert "1 of them NaN" in str(difference)
    assert _said(a, _drawn("torch-cpu").astype(dtype))
