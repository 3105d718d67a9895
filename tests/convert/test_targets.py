"""Deployment targets: newer opsets are written, and compute what PyTorch computes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from parity import convert
from parity.convert.spec import read_spec
from parity.errors import UsageError


@pytest.mark.long
@pytest.mark.parametrize(
    ("target", "specification", "opset"),
    [pytest.param("macOS14", 8, "CoreML7", marks=pytest.mark.slow), ("macOS15", 9, "CoreML8")],
)
def test_newer_targets(
    model: Callable[[str], Path], tmp_path: Path, target: str, specification: int, opset: str
) -> None:
    packages = convert.convert(model("sd1"), tmp_path, components=("unet", "text_encoder"), target=target)
    for name, package in packages.items():
        written = read_spec(package)
        assert written.specificationVersion == specification, name
        assert written.mlProgram.functions["main"].opset == opset, name
    record = json.loads((tmp_path / "conversion.json").read_text())
    assert all(entry["agreement"]["psnr"] >= 45 for entry in record.values())  # measured 57 to 76 dB for macOS 13


def test_releases_before_the_option_write_macos_13_alone(model: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="writes macOS13 only"):
        convert.convert(model("sd1"), tmp_path, contract="1.1.0", components=("unet",), target="macOS15")
    assert list(tmp_path.iterdir()) == []
