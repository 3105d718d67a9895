"""The multilingual adapter: its package as the released converter means it, and files that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parity import cli, convert, coreml
from parity.contracts.inspect import inspect
from parity.errors import FormatError, MissingError, UsageError
from parity.metrics import measure
from parity.mil import load


@pytest.fixture(scope="module")
def adapter() -> Any:
    """Two layers, 512 to 32, with values as a trained one has them."""
    import torch
    from torch import nn

    generator = torch.Generator().manual_seed(93)
    network = nn.Sequential(nn.Linear(512, 48), nn.GELU(), nn.Linear(48, 32)).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5)
    return network


@pytest.fixture(scope="module")
def file(adapter: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    path = tmp_path_factory.mktemp("adapter") / "projection.pt"
    torch.jit.script(adapter).save(str(path))
    return path


def test_the_package_is_the_told_one_and_agrees(adapter: Any, file: Path, tmp_path: Path) -> None:
    import torch

    package = convert.multilingual_projection(file, tmp_path)
    assert package.name == "MultilingualTextEncoderProjection.mlpackage"
    (_, note) = convert.describe(tmp_path, {"it": package})["it"]
    assert "dB (bound 40)" in note
    (component,) = inspect(tmp_path).bundles[0].components
    assert (component.kind, component.specification) == ("multilingual_projection", 8)
    assert component.windows[0] == "C5"
    assert (component.author, component.license, component.version) == ("", "", "")
    features = [(f.name, f.dtype, tuple(f.shape)) for f in (*component.inputs, *component.outputs)]
    assert features == [
        ("nlcontextualembeddings_output", "FLOAT32", (1, 256, 512)),
        ("encoder_hidden_states", "FLOAT32", (1, 32, 1, 256)),
    ]
    vectors = np.random.RandomState(1).standard_normal((1, 256, 512)).astype(np.float32)
    found = coreml.load(package, runtime="reference").predict({"nlcontextualembeddings_output": vectors})
    expected = adapter(torch.from_numpy(vectors)).numpy().transpose(0, 2, 1)[:, :, None]
    assert measure("tensor_psnr", expected, np.asarray(found["encoder_hidden_states"])) > 50


@pytest.mark.long
def test_a_network_in_memory_gives_the_same_program(adapter: Any, file: Path, tmp_path: Path) -> None:
    first = load(convert.multilingual_projection(file, tmp_path / "a", check=False)).program
    second = load(convert.multilingual_projection(adapter, tmp_path / "b", check=False)).program
    kinds = [
        [op.type for op in program.functions["main"].block_specializations["CoreML7"].operations]
        for program in (first, second)
    ]
    assert kinds[0] == kinds[1]


def test_the_command_line_converts_it_and_finds_it_again(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["convert", str(file), "-o", str(tmp_path), "--components", "multilingual_projection", "--no-check"]
    for _ in range(2):
        assert cli.main(arguments) == 0
        assert "MultilingualTextEncoderProjection.mlpackage" in capsys.readouterr().out
    assert cli.main([*arguments[:-2], "multilingual_projection,unet"]) == 2
    assert "convert it alone" in capsys.readouterr().err


def test_files_that_are_no_adapter(adapter: Any, file: Path, tmp_path: Path) -> None:
    import torch

    pickled, damaged, narrow = tmp_path / "weights.pt", tmp_path / "damaged.pt", tmp_path / "narrow.pt"
    torch.save(adapter.state_dict(), pickled)
    content = file.read_bytes()
    damaged.write_bytes(content[: len(content) // 2])
    torch.jit.script(torch.nn.Linear(256, 8)).save(str(narrow))
    torch.jit.script(torch.nn.Flatten()).save(str(tmp_path / "flat.pt"))
    for path, error, message in (
        (tmp_path / "no.pt", MissingError, "no such file"),
        (pickled, FormatError, "a pickled file is not read"),
        (damaged, FormatError, "no TorchScript module"),
        (narrow, FormatError, r"narrow\.pt: the adapter does not take token vectors \(1, 256, 512\): .*shapes"),
        (tmp_path / "flat.pt", FormatError, r"gives \(1, 131072\)"),
    ):
        with pytest.raises(error, match=message):
            convert.multilingual_projection(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_another_adapters_package_is_kept(adapter: Any, file: Path, tmp_path: Path) -> None:
    import torch

    convert.multilingual_projection(file, tmp_path, check=False)
    other = torch.nn.Linear(512, 32).eval().requires_grad_(False)
    with pytest.raises(UsageError, match="made from another adapter"):
        convert.multilingual_projection(other, tmp_path, check=False)
    convert.multilingual_projection(other, tmp_path, check=False, force=True)


def test_contracts_before_it_are_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="writes no multilingual_projection"):
        convert.multilingual_projection(file, tmp_path / "out", contract="0.4.0")
