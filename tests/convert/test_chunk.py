"""A denoiser in two halves, and the layout that the Swift package loads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from parity import convert
from parity.convert import chunk
from parity.convert.check import DriftError
from parity.convert.spec import content_hash, read_spec
from parity.errors import MissingError, UsageError

Model = Callable[[str], Path]


@pytest.fixture(scope="module")
def whole(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    return convert.convert(model("sd1"), folder, components=["unet"], contract="0.4.0", check=False)["unet"]


@pytest.mark.long
def test_halves_equal_the_whole(whole: Path, tmp_path: Path) -> None:
    halves = chunk.chunk(whole, tmp_path, chunker="legacy")
    assert halves.psnr is not None
    assert halves.psnr > chunk.BOUND
    first, second = (read_spec(path) for path in (halves.first, halves.second))
    assert {f.name for f in first.description.input} == {"sample", "timestep", "encoder_hidden_states"}
    crossing = {f.name: f.type.multiArrayType.dataType for f in first.description.output}
    assert set(crossing.values()) == {65568}
    assert {f.name for f in second.description.input} <= crossing.keys() | {"encoder_hidden_states"}
    assert [f.name for f in second.description.output] == ["noise_pred"]
    for spec in (first, second):
        assert spec.specificationVersion == 7
        metadata = dict(spec.description.metadata.userDefined)
        assert metadata.pop("com.github.apple.coremltools.source") == "milinternal"
        assert list(metadata) == ["com.github.apple.coremltools.version"]
        assert spec.description.metadata.author == ""


@pytest.mark.long
def test_bisected_halves_have_no_metadata_and_equal_bytes(whole: Path, tmp_path: Path) -> None:
    made = [chunk.chunk(whole, tmp_path / name, check=False) for name in ("a", "b")]
    for pair in zip(*((m.first, m.second) for m in made), strict=True):
        assert content_hash(pair[0]) == content_hash(pair[1])
        metadata = read_spec(pair[0]).description.metadata
        assert (metadata.author, metadata.versionString, dict(metadata.userDefined)) == ("", "", {})


@pytest.mark.long
def test_halves_of_a_package_without_output_shapes_are_bare(whole: Path, tmp_path: Path) -> None:
    """With coremltools 6.x halves had neither shapes of outputs nor metadata (fixtures/eras/6.1)."""
    from parity import mil
    from parity.contracts.inspect import inspect

    model = mil.load(whole)
    specification = type(model.specification)()
    specification.CopyFrom(model.specification)
    for feature in specification.description.output:
        feature.type.multiArrayType.ClearField("shape")
    bare = mil.save(specification, model.weights, tmp_path / whole.name)
    made = chunk.chunk(bare, tmp_path / "halves", chunker="legacy")
    assert made.psnr is not None
    assert made.psnr > chunk.BOUND
    for half in (made.first, made.second):
        description = read_spec(half).description
        assert not description.metadata.ListFields()
        assert not any(feature.type.multiArrayType.shape for feature in description.output)
    assert {c.windows[-1] for c in inspect(tmp_path / "halves").components} == {"C6"}


@pytest.mark.long
def test_a_damaged_half_is_noticed(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    label = chunk._label

    def tamper(half: Path, chunker: str, **options: bool) -> None:
        label(half, chunker, **options)
        blob = half / "Data/com.apple.CoreML/weights/weight.bin"
        data = bytearray(blob.read_bytes())
        middle = len(data) // 2
        data[middle : middle + 200] = bytes([0x00, 0x48]) * 100  # float16 8.0
        blob.write_bytes(data)

    monkeypatch.setattr(chunk, "_label", tamper)
    with pytest.raises(DriftError, match="its two halves agree with the whole to only"):
        chunk.chunk(whole, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_chunks_are_not_overwritten(whole: Path, tmp_path: Path) -> None:
    (tmp_path / f"{whole.stem}_chunk2.mlpackage").mkdir()
    with pytest.raises(UsageError, match=r"chunk2.mlpackage exists; remove it or use --force"):
        chunk.chunk(whole, tmp_path)
    with pytest.raises(MissingError, match=r"no such \.mlpackage"):
        chunk.chunk(tmp_path / "none.mlpackage")


@pytest.mark.long
def test_chunking_is_part_of_a_conversion_and_resumes(model: Model, tmp_path: Path) -> None:
    options = {"components": ["unet"], "chunk": True, "check": False}
    made = convert.convert(model("sd1"), tmp_path, **options)  # type: ignore[arg-type]
    assert list(made) == ["unet", "unet_chunk1", "unet_chunk2"]
    times = [path.stat().st_mtime_ns for path in made.values()]
    again = convert.convert(model("sd1"), tmp_path, **options)  # type: ignore[arg-type]
    assert [path.stat().st_mtime_ns for path in again.values()] == times


def _with_tokenizer(folder: Path, target: Path) -> Path:
    import shutil

    shutil.copytree(folder, target)
    (target / "tokenizer").mkdir()
    (target / "tokenizer" / "vocab.json").write_text(json.dumps({"a": 0}))
    (target / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    return target


def test_resources_away_from_macos(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    folder = _with_tokenizer(model("sd1"), tmp_path / "model")
    packages = {key: tmp_path for key in ("text_encoder", "unet_chunk1", "controlnet:owner/my-net", "vae_encoder")}
    made = convert.bundle(folder, packages, tmp_path / "Resources")
    assert made.written == ("vocab.json", "merges.txt", "scheduler_config.json")
    assert made.missing == (
        "TextEncoder.mlmodelc",
        "UnetChunk1.mlmodelc",
        "controlnet/OwnerMyNet.mlmodelc",
        "VAEEncoder.mlmodelc",
    )
    assert "macOS only" in made.reason
    with pytest.raises(UsageError, match=r"vocab.json exists; remove it or use --force"):
        convert.bundle(folder, packages, tmp_path / "Resources")


def test_resources_need_a_tokenizer(model: Model, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"no tokenizer with vocab.json and merges.txt"):
        convert.bundle(model("sd1"), {}, tmp_path / "Resources")
