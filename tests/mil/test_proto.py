"""The protobuf messages live beside a real coremltools, whichever comes first."""

from __future__ import annotations

import subprocess
import sys

import pytest


def _python(code: str) -> str:
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip().splitlines()[-1]


def test_reading_imports_neither_torch_nor_coremltools() -> None:
    code = """
import sys
import parity.mil
print(sorted({"torch", "coremltools", "diffusers"} & set(sys.modules)))
"""
    assert _python(code) == "[]"


@pytest.mark.long
@pytest.mark.parametrize("first", [pytest.param("parity", marks=pytest.mark.slow), "coremltools"])
def test_both_orders_share_the_message_classes(first: str) -> None:
    imports = ["from parity.mil import proto", "import coremltools"]
    if first == "coremltools":
        imports.reverse()
    code = "\n".join(
        [
            *imports,
            "theirs = coremltools.proto",
            "assert theirs.Model_pb2.Model is proto.model.Model",
            "assert theirs.MIL_pb2.Program is proto.mil.Program",
            "ours = proto.model.Model(specificationVersion=7)",
            "ours.mlProgram.functions['main'].opset = 'CoreML7'",
            "import coremltools.models.utils as utils",
            "assert isinstance(ours, theirs.Model_pb2.Model)",
            "again = theirs.Model_pb2.Model.FromString(ours.SerializeToString())",
            "print(again.mlProgram.functions['main'].opset)",
        ]
    )
    assert _python(code) == "CoreML7"
