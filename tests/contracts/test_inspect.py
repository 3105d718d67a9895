"""Folders as users have them: layouts, archives, and everything that can be wrong with a download."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from parity import cli
from parity.contracts.capability import capabilities
from parity.contracts.inspect import inspect
from parity.errors import FormatError, MissingError
from tests.contracts import packages

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 246144152\n".format("0" * 64)
MODEL = "Data/com.apple.CoreML/model.mlmodel"


def texts(path: Path) -> str:
    inspection = inspect(path)
    findings = [*inspection.findings, *(f for bundle in inspection.bundles for f in bundle.findings)]
    return "\n".join(f"{f.severity} {f.where}: {f.text}" for f in findings)


def compiled(folder: Path, name: str, source: Path) -> Path:
    """Write a compiled model's metadata and text from a package's description."""
    component = inspect(source).components[0]
    target = folder / f"{name}.mlmodelc"
    target.mkdir(parents=True)
    kinds = {"FLOAT16": "Float16", "FLOAT32": "Float32"}

    def schema(features) -> list[dict]:
        return [{"name": f.name, "dataType": kinds[f.dtype], "shape": str(list(f.shape))} for f in features]

    document = {
        "inputSchema": schema(component.inputs),
        "outputSchema": schema(component.outputs),
        "specificationVersion": component.specification,
        "author": component.author,
        "license": component.license,
        "version": component.version,
        "userDefinedMetadata": dict(component.metadata),
        "mlProgramOperationTypeHistogram": {
            f"Ios16.{name}": count for name, count in component.fingerprint.operators.items()
        },
    }
    (target / "metadata.json").write_text(json.dumps([document]))
    (target / "model.mil").write_text(
        "program(1.0)\n{\n tensor<fp16, [1, 4096, 1, 512]> scores = einsum(values = (k, q))[name = x];\n}\n"
    )
    return target


def test_a_resources_folder_is_judged_like_its_packages(tmp_path: Path) -> None:
    names = {"text_encoder": "TextEncoder", "unet": "Unet", "vae_decoder": "VAEDecoder", "vae_encoder": "VAEEncoder"}
    built = packages.folder_of(tmp_path / "packages", *names, window="0.4.0")
    resources = tmp_path / "Resources"
    for kind, name in names.items():
        compiled(resources, name, built / f"Stable_Diffusion_version_owner_model_{kind}.mlpackage")
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(built / name, resources)
    (one,), (other,) = inspect(built).bundles, inspect(resources).bundles
    assert (one.layout, other.layout) == ("packages", "compiled")
    assert [c.kind for c in other.components] == ["text_encoder", "unet", "vae_decoder", "vae_encoder"]
    assert next(c for c in other.components if c.kind == "unet").fingerprint.attention == "SPLIT_EINSUM_V2"
    assert {c.windows for c in other.components if c.kind == "vae_encoder"} == {
        c.windows for c in one.components if c.kind == "vae_encoder"
    }
    for consumer in ("S3", "S4", "S7"):
        verdicts = [capabilities(bundle).cell("img2img", consumer).verdict for bundle in (one, other)]
        assert verdicts[0] == verdicts[1]
    assert capabilities(other).cell("txt2img", "P2").verdict == "no"  # compiled models came with 1.1.0
    (resources / "merges.txt").unlink()
    cell = capabilities(inspect(resources).bundles[0]).cell("txt2img", "S4")
    assert "merges.txt" in cell.failure


def test_a_tree_with_several_variants_has_a_bundle_for_each(tmp_path: Path) -> None:
    for variant in ("original/packages", "split_einsum/packages"):
        packages.folder_of(tmp_path / variant, "unet", "vae_decoder")
    packages.component(tmp_path / "original/packages/controlnet", "controlnet")
    bundles = inspect(tmp_path).bundles
    assert [bundle.path for bundle in bundles] == ["original/packages", "split_einsum/packages"]
    assert "controlnet" in [c.kind for c in bundles[0].components]


def test_names_with_spaces_and_unicode(tmp_path: Path) -> None:
    folder = tmp_path / "моя модель [v1] ✓"
    packages.component(folder, "unet", file="Stable_Diffusion_version_naïve mødel_unet")
    bundle = inspect(folder).bundles[0]
    assert bundle.components[0].kind == "unet"
    assert cli.main(["inspect", str(folder)]) == 0


def test_git_lfs_pointers_are_named_as_such(tmp_path: Path) -> None:
    packages.folder_of(tmp_path, "text_encoder", "unet", "vae_decoder")
    for path in tmp_path.rglob("model.mlmodel"):
        path.write_text(POINTER)
    (tmp_path / "merges.txt").write_text(POINTER)
    found = texts(tmp_path)
    assert found.count("is a git-lfs pointer, not the file of 246,144,152 bytes") == 4
    matrix = capabilities(inspect(tmp_path).bundles[0])
    assert all(cell.verdict != "yes" for (task, _), cell in matrix.cells.items() if task == "txt2img")


def test_a_truncated_weight_file_is_found_without_reading_it(tmp_path: Path) -> None:
    path = packages.component(tmp_path, "text_encoder", mask=-1e4)
    weights = next(path.rglob("weight.bin"))
    os.truncate(weights, weights.stat().st_size // 2)
    assert "(an unfinished download?)" in texts(tmp_path)
    assert inspect(tmp_path).components[0].kind == "broken"
    weights.unlink()
    assert "is missing from the model" in texts(tmp_path)


def test_unfinished_downloads_are_reported(tmp_path: Path) -> None:
    packages.component(tmp_path, "unet")
    (tmp_path / "vae.zip.crdownload").write_bytes(b"x")
    (tmp_path / "VAEDecoder.mlmodelc").mkdir()
    (tmp_path / "empty.mlpackage").mkdir()
    found = texts(tmp_path)
    assert "warning vae.zip.crdownload: an unfinished download" in found
    compiled = tmp_path / "VAEDecoder.mlmodelc"
    assert f"error VAEDecoder.mlmodelc: {compiled}: neither model.mil nor metadata.json" in found
    assert "error empty.mlpackage" in found


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x08", random.Random(93).randbytes(300)])
def test_damaged_specifications_are_findings(content: bytes, tmp_path: Path) -> None:
    path = packages.component(tmp_path, "unet")
    (path / MODEL).write_bytes(content)
    inspection = inspect(tmp_path)
    assert inspection.components[0].kind in ("broken", "foreign")
    assert texts(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", "[1]", '[{"inputSchema": 3}]', "[" * 100_000, '[{"inputSchema": [{}]}]']
)
def test_damaged_metadata_of_compiled_models_are_findings(content: str, tmp_path: Path) -> None:
    folder = tmp_path / "Unet.mlmodelc"
    folder.mkdir()
    (folder / "metadata.json").write_text(content)
    assert "error Unet.mlmodelc" in texts(tmp_path)


def test_a_manifest_that_leaves_the_package_is_refused(tmp_path: Path) -> None:
    path = packages.component(tmp_path / "models", "unet")
    secret = tmp_path / "secret.mlmodel"
    shutil.copy(path / MODEL, secret)
    manifest = json.loads((path / "Manifest.json").read_text())
    for entry in manifest["itemInfoEntries"].values():
        entry["path"] = "../../../secret.mlmodel"
    (path / "Manifest.json").write_text(json.dumps(manifest))
    assert "leaves the package" in texts(tmp_path / "models")


def test_links_that_leave_the_folder_are_not_followed(tmp_path: Path) -> None:
    outside = packages.component(tmp_path / "outside", "unet")
    inside = tmp_path / "inside"
    packages.component(inside, "vae_decoder")
    (inside / "unet.mlpackage").symlink_to(outside)
    (inside / "controlnet").symlink_to(tmp_path / "outside")
    (inside / "loop").symlink_to(inside)
    inspection = inspect(inside)
    assert [c.kind for c in inspection.components] == ["vae_decoder"]
    assert texts(inside).count("a link that leaves the folder") == 2


def test_a_weight_file_outside_the_model_is_not_read(tmp_path: Path) -> None:
    path = packages.component(tmp_path / "models", "text_encoder", mask=-1e4)
    weights = next(path.rglob("weight.bin"))
    shutil.move(weights, tmp_path / "elsewhere.bin")
    weights.symlink_to(tmp_path / "elsewhere.bin")
    assert "lies outside the model's folder" in texts(tmp_path / "models")


def test_foreign_models_are_listed_and_left_alone(tmp_path: Path) -> None:
    packages.package(
        tmp_path, "Detector", {"image": ("FLOAT32", (1, 3, 640, 640))}, {"boxes": ("FLOAT32", (1, 84, 8400))}
    )
    inspection = inspect(tmp_path)
    assert inspection.components[0].kind == "foreign"
    assert "takes image FLOAT32 (1, 3, 640, 640); gives boxes" in texts(tmp_path)


def test_two_unets_are_reported(tmp_path: Path) -> None:
    packages.folder_of(tmp_path, "unet")
    packages.component(tmp_path, "unet", model_id="owner/second")
    assert "2 models are unet" in texts(tmp_path)


def test_an_empty_folder_a_file_and_nothing(tmp_path: Path) -> None:
    assert "no Core ML models here" in texts(tmp_path)
    assert cli.main(["inspect", str(tmp_path), "--require", "txt2img on swift"]) == 2
    with pytest.raises(MissingError):
        inspect(tmp_path / "none")
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(FormatError, match="neither a folder"):
        inspect(tmp_path / "file.txt")
    (tmp_path / "file.zip").write_text(POINTER)
    with pytest.raises(FormatError, match="not a readable zip archive"):
        inspect(tmp_path / "file.zip")


def zipped(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return target


def test_an_archive_is_judged_like_its_folder(tmp_path: Path) -> None:
    folder = packages.folder_of(tmp_path / "a", "unet", "vae_decoder", "vae_encoder")
    packages.component(folder, "text_encoder", mask=-3.4e38)
    archive = zipped(folder, tmp_path / "a.zip")
    before = sorted(tmp_path.rglob("*"))
    one, other = inspect(folder), inspect(archive)
    assert [(c.kind, c.windows, c.fingerprint, c.weight_bytes) for c in one.components] == [
        (c.kind, c.windows, c.fingerprint, c.weight_bytes) for c in other.components
    ]
    assert one.bundles[0].facts == other.bundles[0].facts
    assert sorted(tmp_path.rglob("*")) == before, "nothing may be unpacked beside the archive"


def test_zip_slip_and_links_are_refused(tmp_path: Path) -> None:
    archive = tmp_path / "deep" / "evil.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("../evil.txt", "/tmp/parity-evil.txt", "a/../../evil.txt", "..\\evil.txt", "C:\\evil.txt"):
            file.writestr(name, "x")
        link = zipfile.ZipInfo("Unet.mlmodelc/metadata.json")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "/etc/passwd")
    found = texts(archive)
    assert found.count("the archive names a path outside itself") == 5
    assert "a link in the archive" in found
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["deep", "evil.zip"]
    assert not Path("/tmp/parity-evil.txt").exists()


def test_zip_bombs_are_refused(tmp_path: Path) -> None:
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("Unet.mlmodelc/model.mil", b"\0" * (64 << 20))
    with pytest.raises(FormatError, match="zip bomb"):
        inspect(archive)


def test_a_truncated_archive_is_an_error(tmp_path: Path) -> None:
    folder = packages.folder_of(tmp_path / "a", "unet")
    archive = zipped(folder, tmp_path / "a.zip")
    content = archive.read_bytes()
    for size in (10, len(content) // 2, len(content) - 5):
        archive.write_bytes(content[:size])
        with pytest.raises(FormatError, match="not a readable zip archive"):
            inspect(archive)


def test_a_large_folder_is_inspected_fast_and_small_without_torch(tmp_path: Path) -> None:
    path = packages.component(tmp_path, "text_encoder", mask=-1e4)
    packages.folder_of(tmp_path, "unet", "vae_decoder", "vae_encoder")
    os.truncate(next(path.rglob("weight.bin")), 2 << 30)
    script = (
        "import re, resource, sys\n"
        "from pathlib import Path\n"
        "from parity import cli\n"
        f"code = cli.main(['inspect', {str(tmp_path)!r}, '--json', {str(tmp_path / 'out.json')!r}])\n"
        "heavy = {'torch', 'coremltools', 'diffusers', 'transformers'} & set(sys.modules)\n"
        "status = Path('/proc/self/status')\n"  # ru_maxrss of a child starts at its parent's peak on Linux
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "if status.exists(): peak = int(re.search(r'VmHWM:\\s*(\\d+)', status.read_text())[1])\n"
        "print('RESULT', code, sorted(heavy), peak // 1024)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    result = next(line for line in run.stdout.splitlines() if line.startswith("RESULT"))
    code, heavy, peak = result.split(" ", 3)[1:]
    assert (code, heavy) == ("0", "[]")
    assert int(peak) <= 150, f"{peak} MiB"
    document = json.loads((tmp_path / "out.json").read_text())
    assert sum(c["weight_bytes"] for b in document["inspection"]["bundles"] for c in b["components"]) >= 2 << 30
    assert struct.calcsize("P") == 8  # a mapping of 2 GiB needs a 64-bit process
