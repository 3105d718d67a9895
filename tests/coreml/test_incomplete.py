"""A package that lacks something ends in one message that names the file by the path that was given."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from parity import coreml, mil
from parity.coreml.mil_text import write_program
from parity.errors import FormatError, ParityError

DATA = "Data/com.apple.CoreML"
WEIGHTS = f"{DATA}/weights/weight.bin"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 246144152\n".format("0" * 64)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:64])


HARM: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights folder missing": (lambda p: shutil.rmtree(p / DATA / "weights"), "weights' is missing from the package"),
    "weights missing": (lambda p: (p / WEIGHTS).unlink(), "weight.bin' is missing"),
    "weights empty": (lambda p: (p / WEIGHTS).write_bytes(b""), "0 bytes"),
    "weights cut off": (lambda p: _cut(p / WEIGHTS), "the file ends before"),
    "weights a pointer": (lambda p: (p / WEIGHTS).write_text(POINTER), "git-lfs pointer, not the file of 246,144,152"),
    "model a pointer": (lambda p: (p / DATA / "model.mlmodel").write_text(POINTER), "git-lfs pointer"),
    "model missing": (lambda p: (p / DATA / "model.mlmodel").unlink(), "model.mlmodel' is missing"),
    "model empty": (lambda p: (p / DATA / "model.mlmodel").write_bytes(b""), "describes no model"),
    "data missing": (lambda p: shutil.rmtree(p / "Data"), "missing from the package"),
    "manifest a pointer": (lambda p: (p / "Manifest.json").write_text(POINTER), "git-lfs pointer"),
    "manifest missing": (lambda p: (p / "Manifest.json").unlink(), "neither an .mlpackage"),
}


@pytest.fixture(scope="module")
def weighted(ct, mb, tmp_path_factory):
    """Return a package with a weight file: y = x + w of 256 elements."""

    @mb.program(input_specs=[mb.TensorSpec((256,))], opset_version=ct.target.iOS16)
    def program(x):
        return mb.add(x=x, y=mb.const(val=np.arange(256, dtype=np.float32), name="w"), name="y")

    path = tmp_path_factory.mktemp("weighted") / "weighted.mlpackage"
    ct.convert(program, minimum_deployment_target=ct.target.iOS16, skip_model_load=True).save(str(path))
    assert (path / WEIGHTS).stat().st_size > 512
    return path


@pytest.mark.parametrize("harm", HARM)
def test_an_incomplete_package_is_named(harm: str, weighted: Path, tmp_path: Path) -> None:
    copy = tmp_path / "some folder" / "model.mlpackage"
    shutil.copytree(weighted, copy)
    change, message = HARM[harm]
    change(copy)
    with pytest.raises(ParityError) as caught:
        coreml.load(copy)
    assert str(caught.value).startswith(str(copy))
    assert message in str(caught.value)


def test_a_compiled_folder_without_weights_is_named(weighted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model.mlmodelc"
    folder.mkdir()
    (folder / "model.mil").write_text(write_program(mil.load(weighted).program))
    with pytest.raises(FormatError, match=r"weight\.bin' is missing from the model") as caught:
        coreml.load(folder)
    assert str(caught.value).startswith(str(folder))
