"""What real old files leave out is taken from the program or unknown, never broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from parity import cli, mil, repair
from parity.contracts import capability
from parity.contracts.inspect import inspect
from parity.contracts.inspection import Component
from parity.mil import proto
from tests.contracts import packages
from tests.contracts.test_compiled import compiled
from tests.samples import sample

PARTS = ("text_encoder", "unet", "vae_decoder", "vae_encoder")


def edited(path: Path, change: Callable[..., object]) -> Path:
    """Change a package's specification in place."""
    model = mil.load(path)
    specification = proto.model.Model()
    specification.CopyFrom(model.specification)
    change(specification)
    return mil.save(specification, {name: model.weights.path(name) for name in model.weights.names()}, path)


def without_shapes(specification) -> None:
    """Describe outputs as coremltools 6.1 to 7.0b1 do."""
    for item in specification.description.output:
        item.type.multiArrayType.ClearField("shape")


def without_metadata(specification) -> None:
    specification.description.metadata.Clear()


def by_kind(folder: Path) -> dict[tuple[str, int], Component]:
    return {(c.kind, c.chunk): c for c in inspect(folder).components}


@pytest.mark.parametrize("window", ["0.1.0", "0.2.0", "0.3.0", "0.4.0", "1.0.0"])
def test_outputs_without_a_shape_narrow_the_windows(window: str, tmp_path: Path) -> None:
    parts = PARTS if window != "0.1.0" else PARTS[:3]
    folder = packages.folder_of(tmp_path / "m", *parts, window=window)
    before = by_kind(folder)
    for path in folder.glob("*.mlpackage"):
        edited(path, without_shapes)
    after = by_kind(folder)
    assert after.keys() == before.keys()
    for key, component in after.items():
        assert component.outputs == before[key].outputs
        assert component.shapeless == tuple(f.name for f in component.outputs)
        assert set(component.windows) <= set(before[key].windows)
        assert not {"C6b", "C7", "C8a", "C8b", "C8f"} & set(component.windows)
    assert before["text_encoder", 0].windows[-1] == "C8f"  # what the shapes alone do not tell


@pytest.mark.parametrize("shapes", [True, False])
def test_halves_without_metadata_tell_nothing_by_that(shapes: bool, tmp_path: Path) -> None:
    for chunk in (1, 2):
        path = packages.component(tmp_path, "unet", window="0.4.0", chunk=chunk)
        edited(path, without_metadata)
        if not shapes:
            edited(path, without_shapes)
    found = by_kind(tmp_path)
    for chunk in (1, 2):
        windows = found["unet", chunk].windows
        assert "C1" in windows
        assert ("C8f" in windows) == shapes


def test_a_compiled_model_without_output_shapes(converted: Callable[..., Path], tmp_path: Path) -> None:
    folder = compiled(converted("0.3.0", "vae_encoder"), tmp_path / "VAEEncoder.mlmodelc")
    metadata = json.loads((folder / "metadata.json").read_text())
    (whole,) = inspect(folder).components
    for item in metadata[0]["outputSchema"]:
        item["shape"] = "[]"
    (folder / "metadata.json").write_text(json.dumps(metadata))
    (component,) = inspect(folder).components
    assert component.outputs == whole.outputs
    assert component.shapeless == ("latent_dist",)
    assert set(component.windows) == {"C2", "C3"}


def test_the_program_counts_where_the_description_says_otherwise(tmp_path: Path) -> None:
    path = packages.component(tmp_path, "vae_decoder", window="1.1.0")

    def garble(specification) -> None:
        array = specification.description.input[0].type.multiArrayType
        array.shape[2:] = [32, 32]

    edited(path, garble)
    inspection = inspect(path)
    (component,) = inspection.components
    assert component.kind == "vae_decoder"
    assert component.inputs[0].shape == (1, 4, 64, 64)
    (finding,) = [f for f in inspection.bundles[0].findings if f.severity == "warning"]
    assert "input 'z' is 1×4×32×32 in the description and 1×4×64×64 in the program" in finding.text


def test_a_compiled_description_that_contradicts_its_program(converted: Callable[..., Path], tmp_path: Path) -> None:
    folder = compiled(converted("0.3.0", "vae_encoder"), tmp_path / "VAEEncoder.mlmodelc")
    text = (folder / "metadata.json").read_text()
    metadata = json.loads(text)
    shape = json.loads(metadata[0]["outputSchema"][0]["shape"])
    metadata[0]["outputSchema"][0]["shape"] = str([shape[0], shape[1] + 3, *shape[2:]])
    (folder / "metadata.json").write_text(json.dumps(metadata))
    inspection = inspect(folder)
    assert inspection.components[0].outputs[0].shape == tuple(shape)
    assert any("latent_dist" in f.text and "the program counts" in f.text for f in inspection.bundles[0].findings)


def test_a_part_that_fits_no_contract_is_unknown_not_missing(tmp_path: Path) -> None:
    folder = packages.folder_of(tmp_path / "m", "text_encoder", "unet", window="1.1.0")
    packages.package(
        folder, "Stable_Diffusion_version_x_vae_decoder", {"q": ("FLOAT16", (1, 9))}, {"r": ("FLOAT32", (3,))}
    )
    cell = capability.capabilities(inspect(folder).bundles[0]).cell("txt2img", "S7")
    assert cell.verdict == "unknown"
    assert "vae_decoder could not be read" in cell.reasons[0].failure


def test_flexible_shapes_are_judged_at_their_default(tmp_path: Path) -> None:
    """Other converters write ranges: sizes of the program stay open, and the default decides."""
    folder = packages.folder_of(tmp_path / "m", "text_encoder", "unet", window="1.1.0")
    path = packages.component(folder, "vae_decoder", window="1.1.0")

    def open_(specification) -> None:
        array = specification.description.input[0].type.multiArrayType
        for size, upper in zip(array.shape, (1, 4, 128, 128), strict=True):
            array.shapeRange.sizeRanges.add(lowerBound=size if upper < 128 else 8, upperBound=upper)
        specification.description.output[0].type.multiArrayType.ClearField("shape")
        function = specification.mlProgram.functions["main"]
        block = function.block_specializations[function.opset]
        for declared in (function.inputs[0].type, block.operations[0].outputs[0].type):
            for dimension in declared.tensorType.dimensions[2:]:
                dimension.unknown.SetInParent()

    edited(path, open_)
    component = by_kind(folder)["vae_decoder", 0]
    assert (component.sizes["h"], component.sizes["w"]) == (64, 64)
    assert component.inputs[0].flexible
    assert component.outputs[0].shape == (1, 3, None, None)
    assert capability.capabilities(inspect(folder).bundles[0]).cell("txt2img", "S7").verdict == "yes"


@pytest.mark.parametrize("stated", [True, False])
def test_a_size_from_one_without_end_has_the_default_that_the_description_states(stated: bool, tmp_path: Path) -> None:
    """coremltools 5.2 to 6.3 wrote ``RangeDim()`` so: shape 1, range 1 to -1, and unknown in the program."""
    folder = packages.folder_of(tmp_path / "m", "text_encoder", "unet", window="1.1.0")
    path = packages.component(folder, "vae_decoder", window="1.1.0")

    def open_(specification) -> None:  # type: ignore[no-untyped-def]
        array = specification.description.input[0].type.multiArrayType
        for axis, size in enumerate(array.shape):
            array.shapeRange.sizeRanges.add(lowerBound=size, upperBound=size if axis else -1)
        if not stated:
            array.ClearField("shape")
        function = specification.mlProgram.functions["main"]
        function.inputs[0].type.tensorType.dimensions[0].unknown.SetInParent()

    edited(path, open_)
    component = by_kind(folder)["vae_decoder", 0]
    assert component.inputs[0].shape == ((1 if stated else None), 4, 64, 64)
    assert component.inputs[0].flexible
    assert capability.capabilities(inspect(folder).bundles[0]).cell("txt2img", "S7").verdict == "yes"


def test_images_of_a_compiled_model_have_their_size(tmp_path: Path) -> None:
    folder = tmp_path / "Upscaler.mlmodelc"
    folder.mkdir()
    image = {"name": "image", "type": "Image", "height": "48", "width": "64", "colorspace": "RGB", "isOptional": "0"}
    (folder / "metadata.json").write_text(json.dumps([{"inputSchema": [image], "outputSchema": []}]))
    (folder / "model.mil").write_text("program(1.0)\n{\n    func main<ios15>() {\n    } -> ();\n}\n")
    (component,) = inspect(folder).components
    assert component.inputs[0].shape == (48, 64)
    assert component.inputs[0].dtype == "image"


def test_exit_codes_of_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing there, nothing of Stable Diffusion, something damaged: 2, whatever else the folder holds."""
    (tmp_path / "empty").mkdir()
    foreign = packages.package(tmp_path / "foreign", "other", {"q": ("FLOAT16", (1, 9))}, {"r": ("FLOAT32", (3,))})
    damaged = packages.folder_of(tmp_path / "damaged", *PARTS, window="0.4.0")
    broken = next(damaged.glob("*unet*"))
    (broken / "Data/com.apple.CoreML/model.mlmodel").write_bytes(b"\xff")
    for folder, text in ((tmp_path / "empty", "no Core ML models"), (foreign.parent, "no Stable Diffusion component")):
        for command in (["inspect"], ["repair", "--complete", "-o", str(tmp_path / "out")]):
            assert cli.main([command[0], str(folder), *command[1:]]) == 2
            assert text in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert cli.main(["inspect", str(damaged)]) == 2
    assert f"{broken.name} is damaged" in capsys.readouterr().err


class TestReal:
    """Models that ml-stable-diffusion 0.2.0 wrote with Python 3.8, torch 1.12.1 and coremltools 6.1."""

    def test_inspect(self) -> None:
        inspection = inspect(sample("real-0.2.0"))
        (bundle,) = inspection.bundles
        assert sorted(c.kind for c in bundle.components) == ["text_encoder", "unet", "vae_decoder", "vae_encoder"]
        assert bundle.windows == ("C2", "C3")
        assert all(c.shapeless for c in bundle.components)
        matrix = capability.capabilities(bundle)
        verdicts = {c: matrix.cell("img2img", c).verdict for c in ("S3", "S4", "S5", "S6", "S7", "S8")}
        assert verdicts == {"S3": "yes", "S4": "no", "S5": "no", "S6": "no", "S7": "no", "S8": "no"}
        assert {matrix.cell("txt2img", c).verdict for c in ("S1", "S3", "S5", "S7", "P1", "M4.2")} == {"yes"}

    def test_repair_gives_the_same_moments(self, tmp_path: Path) -> None:
        plan = repair.plan(inspect(sample("real-0.2.0")))
        (job,) = [job for job in plan.jobs if job.component.kind == "vae_encoder"]
        (result,) = repair.apply(repair.Plan((job,), (), ()), tmp_path)
        assert result.proofs[0].exact
        assert by_kind(tmp_path)["vae_encoder", 0].contract == "z"

    def test_the_commands_agree(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = sample("real-0.2.0")
        decoder = next(folder.glob("*vae_decoder*"))
        assert cli.main(["inspect", str(folder), "--require", "img2img on swift==0.3.0"]) == 0
        assert cli.main(["inspect", str(folder), "--require", "img2img on swift>=0.4.0"]) == 1
        assert cli.main(["diff", str(folder), str(folder)]) == 0
        assert cli.main(["mil", "show", str(decoder), "--stats"]) == 0
        assert "image: array fp32 1×3×128×128" in capsys.readouterr().out
        assert cli.main(["repair", str(folder), "--dry-run"]) == 0

    @pytest.mark.parametrize("name", ["missing_weights", "lfs_pointer"])
    def test_odd_ones_are_bad_input(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        path = sample(f"odd/{name}.mlmodelc")
        for command in (["inspect"], ["repair", "--dry-run"], ["mil", "profile"]):
            assert cli.main([*command, str(path)]) == 2
            assert name in capsys.readouterr().err
