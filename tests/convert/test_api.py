"""Existing output, resuming, the cache, drift, full disks: nothing half-written, nothing overwritten unasked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from parity import convert, coreml
from parity.cli import main
from parity.convert import build, check, chunk, plan, record
from parity.convert.job import Job, Settings, TensorSpec
from parity.convert.spec import content_hash
from parity.errors import UnsupportedError, UsageError
from parity.files import sha256
from parity.models import content as fingerprint
from tests.commands.printed import checked

Model = Callable[[str], Path]


def text_encoder(folder: Path, output: Path, **options: object) -> Path:
    made = convert.convert(folder, output, components=["text_encoder"], check=False, **options)  # type: ignore[arg-type]
    return made["text_encoder"]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.mark.long
def test_an_existing_package_is_kept_unless_the_request_is_the_same_or_forced(model: Model, tmp_path: Path) -> None:
    package = text_encoder(model("sd1"), tmp_path, contract="0.4.0")
    before = package.stat().st_mtime_ns
    assert text_encoder(model("sd1"), tmp_path, contract="0.4.0") == package
    assert package.stat().st_mtime_ns == before
    with pytest.raises(UsageError, match="exists and was made by another request; remove it or use --force"):
        text_encoder(model("sd1"), tmp_path, contract="1.0.0")
    assert package.stat().st_mtime_ns == before
    text_encoder(model("sd1"), tmp_path, contract="1.0.0", force=True)
    assert package.stat().st_mtime_ns != before
    (tmp_path / "conversion.json").unlink()
    with pytest.raises(UsageError, match="another request"):
        text_encoder(model("sd1"), tmp_path, contract="1.0.0")


@pytest.mark.long
def test_an_interrupted_conversion_goes_on(model: Model, tmp_path: Path) -> None:
    seen: list[str] = []

    def interrupt(component: str, stage: str, done: int, total: int) -> None:
        if component == "vae_decoder" and stage == "trace":
            raise KeyboardInterrupt

    components = ["text_encoder", "vae_decoder"]
    with pytest.raises(KeyboardInterrupt):
        convert.convert(model("sd1"), tmp_path, components=components, progress=interrupt, check=False)
    assert files(tmp_path) == ["Stable_Diffusion_version_tiny-sd1_text_encoder.mlpackage", "conversion.json"]
    made = convert.convert(
        model("sd1"), tmp_path, components=components, progress=lambda c, *_: seen.append(c), check=False
    )
    assert set(seen) == {"vae_decoder"}
    assert all(path.is_dir() for path in made.values())


def test_progress_names_component_stage_and_passes(model: Model, tmp_path: Path) -> None:
    seen: list[tuple[str, str, int, int]] = []
    convert.convert(
        model("sd1"), tmp_path, components=["text_encoder"], progress=lambda *report: seen.append(report), check=False
    )
    assert {component for component, *_ in seen} == {"text_encoder"}
    stages = list(dict.fromkeys(stage for _, stage, *_ in seen))
    assert stages[:3] == ["load", "trace", "MIL Ops"]
    assert stages[-2:] == ["backend_mlprogram", "done"]
    assert max(total for *_, total in seen) > 50
    assert all(0 <= done <= total for *_, done, total in seen)


@pytest.mark.long
def test_cache_answers_without_torch_and_follows_the_content(model: Model, tmp_path: Path) -> None:
    first = convert.cached(model("sd1"), components=["text_encoder"])["text_encoder"]
    code = (
        "import sys; from parity import convert;"
        "print(convert.cached(sys.argv[1], components=['text_encoder'])['text_encoder']); print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(model("sd1"))]
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ)).stdout.split()
    assert out == [str(first), "False"]
    other = tmp_path / model("sd1").name
    shutil.copytree(model("sd1"), other)
    assert convert.cached(other, components=["text_encoder"])["text_encoder"] == first, "the place does not matter"
    weights = other / "text_encoder" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-2] ^= 1  # one bit of one weight
    weights.write_bytes(data)
    assert convert.cached(other, components=["text_encoder"])["text_encoder"] != first


def test_hashes_of_large_files_are_remembered_until_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "_LARGE", 4)
    weights = tmp_path / "part" / "model.safetensors"
    weights.parent.mkdir()

    def reads(data: bytes, age: float) -> int:
        weights.write_bytes(data)
        os.utime(weights, (time.time() - age, time.time() - age))
        return count()

    def count() -> int:
        calls = []
        original = sha256
        with monkeypatch.context() as patch:
            patch.setattr(fingerprint, "sha256", lambda path: calls.append(path) or original(path))
            assert fingerprint.folder_hash(weights.parent) == fingerprint.folder_hash(weights.parent)
        return len(calls)

    assert reads(b"12345678", age=60) == 1
    assert count() == 0
    assert reads(b"12345679", age=50) == 1, "another time"
    assert reads(b"12345670", age=0) == 2, "too new to be trusted"


def test_every_setting_and_library_is_part_of_the_key(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def key(**settings: object) -> str:
        (job,) = plan.plan(model("sd1"), components=["unet"], settings=Settings(**settings))  # type: ignore[arg-type]
        return record.request_key(job)

    keys = {key(), key(attention="ORIGINAL"), key(contract="0.4.0"), key(height=128), key(batch=1), key(tokens=154)}
    keys |= {key(target="macOS15"), key(compression="palette4")}
    assert len(keys) == 8
    assert key() in keys
    import importlib.metadata

    monkeypatch.setattr(importlib.metadata, "version", lambda name: "99")
    assert key() not in keys


@pytest.mark.long
def test_a_loaded_pipeline_converts_like_its_folder(model: Model, tmp_path: Path) -> None:
    import diffusers

    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
        model("sd1"), tokenizer=None, feature_extractor=None, safety_checker=None
    )
    loaded = convert.cached(pipeline, components=["text_encoder"], identifier="tiny-sd1")["text_encoder"]
    folder = convert.cached(model("sd1"), components=["text_encoder"])["text_encoder"]
    assert loaded != folder
    assert content_hash(loaded) == content_hash(folder)


HASHES = (
    "import sys; from parity import convert; from parity.convert.spec import content_hash;"
    "made = convert.convert(sys.argv[1], sys.argv[2], components=sys.argv[3].split(','), check=False);"
    "print(','.join(content_hash(path) for path in made.values()))"
)


def _hashes(folder: Path, output: Path, components: str, seed: str) -> str:
    command = [sys.executable, "-c", HASHES, str(folder), str(output), components]
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()


@pytest.mark.long
def test_equal_input_gives_equal_bytes_whatever_the_hash_seed(model: Model, tmp_path: Path) -> None:
    here = content_hash(text_encoder(model("sd1"), tmp_path / "here"))
    assert _hashes(model("sd1"), tmp_path / "there", "text_encoder", "1") == here


@pytest.mark.slow
def test_every_component_has_equal_bytes_whatever_the_hash_seed(model: Model, tmp_path: Path) -> None:
    components = "text_encoder,unet,control-unet,vae_decoder,vae_encoder,safety_checker"
    assert len({_hashes(model("sd1"), tmp_path / seed, components, seed) for seed in ("1", "2", "3")}) == 1


@pytest.mark.long
def test_drift_removes_the_package(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted defect: one weight of the last norm is changed after the reference was made."""
    write = build.write

    def tamper(job: Job, net: object, path: Path, **keywords: object) -> None:
        write(job, net, path, **keywords)  # type: ignore[arg-type]
        blob = path / "Data/com.apple.CoreML/weights/weight.bin"
        data = np.fromfile(blob, np.uint8)
        half = data.size // 2
        data[half : half + 64] = np.full(32, 9.0, np.float16).view(np.uint8)
        data.tofile(blob)

    monkeypatch.setattr(build, "write", tamper)
    with pytest.raises(check.DriftError, match=r"text_encoder: output \w+ .* at least 40 dB are needed"):
        convert.convert(model("sd1"), tmp_path, components=["text_encoder"])
    assert files(tmp_path) == []


def test_networks_without_contract_leave_nothing(model: Model, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model("sd1"), folder)
    config = json.loads((folder / "unet/config.json").read_text())
    (folder / "unet/config.json").write_text(json.dumps({**config, "center_input_sample": True}))
    with pytest.raises(UnsupportedError, match="center_input_sample = True"):
        convert.convert(folder, tmp_path / "out", components=["unet"])
    assert files(tmp_path / "out") == []


def test_output_that_is_a_file(model: Model, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UsageError, match="is a file; name a folder"):
        text_encoder(model("sd1"), tmp_path / "out")


@pytest.mark.long
def test_command_line(model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "convert",
        str(model("sd1")),
        "-o",
        str(tmp_path),
        "--components",
        "text_encoder",
        "--contract",
        "0.3.0",
    ]
    capsys.readouterr()  # what making the model said
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert "Stable_Diffusion_version_tiny-sd1_text_encoder.mlpackage" in out
    assert "dB (bound 40)" in out
    assert err.strip() == "converting text_encoder"
    assert main([*arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    (package,) = checked(out, "convert")["packages"]
    assert (package["component"], Path(package["path"]).parent) == ("text_encoder", tmp_path)
    assert main([*arguments[:-1], "9.9"]) == 2
    assert "unknown converter release '9.9'" in capsys.readouterr().err


class TwiceAsLarge:
    """A package whose values are twice the reference's: 0 dB by the reference's peak, 6 dB by its own."""

    numerics = "stand-in"

    def predict(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"y": 2 * inputs["x"]}


def test_the_peak_is_that_of_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coreml, "load", lambda package, *, runtime: TwiceAsLarge())
    monkeypatch.setattr(check, "bound", lambda job: 0.1)
    ones = np.ones(4, np.float32)
    feature, reference = TensorSpec("y", (4,), "FLOAT32"), check.Reference(0, {"x": ones}, {"y": ones})
    asked: Any = SimpleNamespace(outputs=(feature,), key="unet")
    with pytest.raises(check.DriftError, match=r"output y .* only 0\.0 dB"):
        check.check(asked, Path("unet.mlpackage"), [reference])
    assert chunk._worst({"y": 2 * ones}, {"y": ones}) == 0.0
