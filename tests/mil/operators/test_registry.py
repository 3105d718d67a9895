"""Does the registry know what coremltools 9.0 can write, under the right names and opsets, and say what it does not?"""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

from parity.errors import UnsupportedError
from parity.mil import operators
from parity.mil.operators.registry import operator
from parity.mil.operators.table import absent, page

ROOT = Path(__file__).parents[3]
_BLOCKS = {"_true_fn", "_false_fn", "_cond", "_body", "_existing_blocks"}
_VERSIONS = [
    (kind, target.name, definition)
    for kind, versions in SSAOpRegistry.core_ops.items()
    for target, definition in versions.items()
    if kind not in absent() and target.name >= "iOS15"
]


def test_every_operator_of_coremltools_is_computed_or_listed_with_a_reason():
    known = set(SSAOpRegistry.core_ops) | set(SSAOpRegistry.dialect_ops)
    computed = set(operators.versions())
    assert known - computed == set(absent())
    assert computed - known == {"write_state"}  # what coreml_update_state becomes in a file


@pytest.mark.parametrize("opset", ["iOS15", "iOS16", "iOS17", "iOS18"])
def test_inputs_have_the_names_of_the_opset_and_none_is_needed_that_it_leaves_optional(opset):
    checked = 0
    for kind, target, definition in _VERSIONS:
        if target == opset:
            ours = operators.get(kind, opset)
            theirs = definition.input_spec.input_types
            assert set(theirs) - _BLOCKS <= set(ours.parameters), kind
            assert ours.required <= {name for name, spec in theirs.items() if not spec.optional}, kind
            checked += 1
    assert checked >= 150


def test_operators_begin_with_the_opset_in_which_coremltools_has_them():
    first: dict[str, str] = {}
    for kind, target, _ in _VERSIONS:
        first[kind] = min(first.get(kind, target), target)
    for kind, opset in first.items():
        assert operators.versions()[kind][0].since == opset, kind


def test_defaults_are_those_of_coremltools():
    """Where coremltools states a default for a static input as a plain value, ours is the same."""
    plain: dict[str, dict[str, object]] = {
        "softmax": {"axis": -1},
        "layer_norm": {"epsilon": 1e-5},
        "l2_norm": {"epsilon": 1e-6},
        "rsqrt": {"epsilon": 1e-12},
        "log": {"epsilon": 1e-45},
        "inverse": {"epsilon": 1e-4},
        "scatter": {"axis": 0, "mode": "add"},
        "topk": {"k": 1, "axis": -1, "ascending": False, "sort": True, "return_indices": True},
        "gather": {"axis": 0, "batch_dims": 0},
        "crop_resize": {"sampling_mode": "DEFAULT", "box_coordinate_mode": "CORNERS_HEIGHT_FIRST", "pad_value": 0.0},
        "lstm": {"direction": "forward", "recurrent_activation": "sigmoid", "cell_activation": "tanh"},
    }
    for kind, expected in plain.items():
        signature = inspect.signature(operators.get(kind, "iOS18").function)
        for name, value in expected.items():
            assert signature.parameters[name].default == value, (kind, name)


@pytest.mark.parametrize(
    ("spelling", "since"), [("iOS15", "iOS15"), ("CoreML5", "iOS15"), ("ios16", "iOS16"), ("coreml9", "iOS16")]
)
def test_the_opset_chooses_the_version(spelling, since):
    assert operators.get("topk", spelling).since == since


def test_an_unknown_operator_is_named_with_its_value():
    with pytest.raises(UnsupportedError, match=r"'frobnicate' \(computes 'hidden_7'\) is unknown"):
        operators.get("frobnicate", "iOS17", value="hidden_7")


def test_a_younger_operator_says_since_when():
    with pytest.raises(UnsupportedError, match="exists since iOS18, but the program declares iOS17"):
        operators.get("scaled_dot_product_attention", "CoreML7")


def test_an_unknown_opset_lists_the_known_ones():
    with pytest.raises(UnsupportedError, match=r"'CoreML42'.*iOS15, iOS16, iOS17, iOS18"):
        operators.get("relu", "CoreML42")


def test_wrong_inputs_are_named():
    with pytest.raises(UnsupportedError, match=r"'y': operator relu .*has no input beta; it takes x"):
        operators.get("relu", "iOS15").check({"x", "beta"}, value="y")
    with pytest.raises(UnsupportedError, match="operator conv needs the input weight"):
        operators.get("conv", "iOS15").check({"x"})


def test_registering_twice_or_a_static_input_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="registered twice"):
        operator("relu")(lambda context, x: x)
    with pytest.raises(ValueError, match="axes is no parameter"):
        operator("novel", static=("axes",))(lambda context, x: x)


def test_static_inputs_become_plain_values():
    assert operators.python_value(torch.tensor(3, dtype=torch.int32)) == 3
    assert operators.python_value(torch.tensor([1, 2])) == (1, 2)
    assert operators.python_value(np.array([[1, 2], [3, 4]])) == ((1, 2), (3, 4))
    assert operators.python_value([np.bool_(True), "valid"]) == (True, "valid")
    assert operators.python_value("valid") == "valid"
    assert type(operators.python_value(torch.tensor(True))) is bool


def test_importing_the_package_imports_no_torch():
    code = "import sys, parity.mil.operators; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_page_about_operators_is_current():
    written = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
    assert written == page(), "run: python -m parity.mil.operators --table docs/operators.md"


@pytest.mark.long
def test_the_command_lists_operators_and_writes_the_page(tmp_path):
    command = [sys.executable, "-m", "parity.mil.operators"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "topk iOS15 iOS16" in listed
    subprocess.run([*command, "--table", str(tmp_path / "page.md")], check=True)
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == page()
