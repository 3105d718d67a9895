"""``parity mil`` prints what is in a program, and says what is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parity.cli import main
from parity.errors import UsageError
from parity.mil import describe, load


def test_show_lists_operations_with_types_and_modules(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mil", "show", str(small)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  in    x0: array fp32 1×4×6×6" in lines
    conv = next(line for line in lines if " = conv(" in line)
    assert "fp16[1, 8, 6, 6]" in conv
    assert "weight=<fp16[8, 4, 3, 3] at" in conv
    assert conv.endswith("  # 0")  # the first module of a Sequential


def test_show_counts(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mil", "show", str(small), "--stats"]) == 0
    words = [line.split() for line in capsys.readouterr().out.splitlines()]
    block = load(small).program.functions["main"].block_specializations["CoreML6"]
    kinds = [op.type for op in block.operations if op.type != "const"]
    for kind in set(kinds):
        assert [str(kinds.count(kind)), kind] in words


def test_show_one_value(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    block = load(small).program.functions["main"].block_specializations["CoreML6"]
    linear = next(op for op in block.operations if op.type == "linear")
    assert main(["mil", "show", str(small), "--op", linear.outputs[0].name]) == 0
    text = capsys.readouterr().out
    assert text.startswith("linear ")
    assert "module  4" in text
    weight = linear.inputs["weight"].arguments[0].name
    assert main(["mil", "show", str(small), "--op", weight]) == 0
    assert "range" in capsys.readouterr().out
    assert main(["mil", "show", str(small), "--op", "nothing"]) == 2
    assert "no operation or value 'nothing'" in capsys.readouterr().err


def test_profile_times_operations(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mil", "profile", str(small), "--repeats", "1", "--top", "2", "--no-fusion"]) == 0
    text = capsys.readouterr().out
    assert "profile declared" in text
    assert "conv" in text
    assert main(["mil", "profile", str(small), "--repeats", "0"]) == 2
    assert main(["mil", "profile", str(small), "--numerics", "exact"]) == 2


def test_operators_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mil", "operators"]) == 0
    listed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert listed["conv"].startswith("iOS15")
    assert listed["scaled_dot_product_attention"] == "iOS18"


def test_showing_needs_no_torch(small: Path) -> None:
    code = f"""
import sys
from parity.cli import main
main(["mil", "show", {str(small)!r}, "--stats"])
print(sorted({{"torch", "coremltools"}} & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stdout.splitlines()[-1] == "[]", run.stderr


def test_unknown_functions_are_named(small: Path) -> None:
    with pytest.raises(UsageError, match="it has main"):
        list(describe.operations(load(small), "other"))


def test_parameters_of_compressed_weights_are_shown(
    ct: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For iOS 16 a palette lies in the attributes of the operation that unpacks it."""
    from coremltools.converters.mil import Builder

    indices = np.arange(256, dtype=np.uint8).reshape(16, 16) % 4

    @Builder.program(input_specs=[Builder.TensorSpec((16, 16))], opset_version=ct.target.iOS16)
    def program(x: Any) -> Any:
        weight = Builder.constexpr_lut_to_dense(
            indices=np.packbits(
                np.unpackbits(indices.reshape(-1, 1), axis=1, bitorder="little")[:, :2], bitorder="little"
            ),
            lut=np.array([0.0, 0.25, 0.5, 1.0], np.float16),
            shape=np.array([16, 16], np.uint32),
            name="palette",
        )
        return Builder.add(x=Builder.cast(x=x, dtype="fp16"), y=weight, name="y")

    path = tmp_path / "palettized.mlpackage"
    ct.convert(program, minimum_deployment_target=ct.target.iOS16, skip_model_load=True).save(str(path))
    assert "lut" in load(path).program.functions["main"].block_specializations["CoreML6"].operations[0].attributes
    assert main(["mil", "show", str(path)]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "constexpr_lut_to_dense(" in line)
    assert "indices=<uint8[64]" in line
    assert "lut=[0.0, 0.25, 0.5, 1.0]" in line
    assert "shape=[16, 16]" in line
    assert main(["mil", "show", str(path), "--op", "palette"]) == 0
    assert "lut [0.0, 0.25, 0.5, 1.0]" in capsys.readouterr().out
    assert main(["mil", "show", str(path), "--stats"]) == 0
    assert "uint8" in capsys.readouterr().out.partition("weights in files")[2]


def test_operations_without_results_have_no_equals_sign(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "state.mlmodelc"
    folder.mkdir()
    (folder / "model.mil").write_text(
        "program(1.3)\n{\n  func main<ios18>(state<tensor<fp16, [1, 4]>> kv, tensor<fp16, [1, 4]> x) {\n"
        '    write_state(data = x, input = kv)[name = string("w")];\n'
        '    tensor<fp16, [1, 4]> y = read_state(input = kv)[name = string("r")];\n  } -> (y);\n}\n'
    )
    assert main(["mil", "show", str(folder)]) == 0
    assert "  write_state(data=%x, input=%kv)" in capsys.readouterr().out.splitlines()
