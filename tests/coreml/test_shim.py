"""Installing and removing the stand-in, in processes of their own so that import order can be chosen."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from parity.coreml import shim
from parity.errors import UnsupportedError, UsageError

STATE = """
from coremltools.models import model, utils, _compiled_model
import coremltools, sys
def state():
    return (
        model._MLModelProxy, _compiled_model._MLModelProxy, model._MLModelAssetProxy,
        model._macos_version, utils._macos_version, utils._is_macos, _compiled_model._macos_version,
        sys.modules.get("coremltools.libcoremlpython"), getattr(coremltools, "libcoremlpython", None),
    )
"""


def run(code: str, *arguments: str) -> str:
    """Run Python code in a new process and return what it prints."""
    command = [sys.executable, *(arguments or ("-c", code))]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.long
def test_installed_after_coremltools_and_removed_again():
    code = (
        STATE
        + """
before = state()
from parity.coreml import shim
for _ in range(2):
    shim.install(); shim.install(profile="float32")
    assert shim.installed() and utils._macos_version() == shim.MACOS_VERSION and utils._is_macos()
    assert None not in state()
    from coremltools.models.ml_program.experimental import compute_plan_utils   # imported while installed
    shim.uninstall(); shim.uninstall()
    assert state() == before, (before, state())
    assert compute_plan_utils._MLComputePlanProxy is None
print("as before")
"""
    )
    if sys.platform == "darwin":
        pytest.skip("the real module is there; covered by test_macos_refuses")
    assert run(code).strip() == "as before"


@pytest.mark.long
def test_installed_before_coremltools_nothing_is_missing_and_removed_again():
    if sys.platform == "darwin":
        pytest.skip("the real module is there")
    code = (
        "from parity.coreml import shim; shim.install()\n"
        + STATE
        + "assert None not in state() and state()[0].__module__ == 'parity.coreml.model_proxy'\nshim.uninstall()\n"
        + "print(model._MLModelProxy, utils._is_macos(), utils._macos_version(), state()[-2:])"
    )
    assert run(code).strip() == "None False () (None, None)"


@pytest.mark.long
def test_script_runs_as_python_would(tmp_path):
    (tmp_path / "helper.py").write_text("value = 7")
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, helper\nfrom coremltools.models.model import _MLModelProxy\n"
        "from parity.coreml import model_proxy\nassert __name__ == '__main__' and _MLModelProxy is not None\n"
        "print(sys.argv[1:], helper.value, model_proxy._output_order)"
    )
    words = ("--option", "x", "--order")  # the script's own
    assert run("", "-m", "parity.coreml.shim", str(script), *words) == f"{list(words)} 7 declared\n"


def test_module_runs_as_python_would(monkeypatch, capsys):
    monkeypatch.setattr(shim, "install", lambda **options: None)
    monkeypatch.setattr(sys, "argv", ["python"])
    with pytest.raises(SystemExit):
        shim.main(["-m", "json.tool", "--help"])
    assert "json.tool" in capsys.readouterr().out


def test_the_order_of_outputs_is_a_choice(ct, mb, tmp_path):
    @mb.program(input_specs=[mb.TensorSpec((2,))], opset_version=ct.target.iOS16)
    def program(x):
        return mb.relu(x=x, name="b_first"), mb.exp(x=x, name="a_second")

    path = tmp_path / "two.mlpackage"
    ct.convert(program, minimum_deployment_target=ct.target.iOS16, skip_model_load=True).save(str(path))
    x = np.array([-1.0, 0.0], np.float32)
    found = {}
    for order in ("reversed", "declared"):
        shim.install(order=order, force=True)
        found[order] = ct.models.MLModel(str(path)).predict({"x": x})
    assert list(found["declared"]) == ["b_first", "a_second"]
    assert list(found["reversed"]) == ["a_second", "b_first"]
    for name, values in found["declared"].items():
        np.testing.assert_array_equal(found["reversed"][name], values)
    with pytest.raises(UsageError, match="declared, reversed"):
        shim.install(order="alphabetical", force=True)


@pytest.mark.long
def test_the_order_is_an_option_of_the_command(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom parity.coreml import model_proxy\nprint(model_proxy._output_order, sys.argv[1:])"
    )
    assert run("", "-m", "parity.coreml.shim", "--order", "reversed", str(script), "x") == "reversed ['x']\n"


def test_no_script():
    with pytest.raises(UsageError, match="usage"):
        shim.main([])
    with pytest.raises(UsageError, match="usage"):
        shim.main(["-m"])


def test_macos_refuses(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(shim, "_replacements", {})
    with pytest.raises(UnsupportedError, match="force=True"):
        shim.install()


def test_unknown_profile():
    with pytest.raises(UsageError, match="declared, float32"):
        shim.install(profile="exact", force=True)


def test_importing_the_package_imports_neither_torch_nor_coremltools():
    code = "import sys, parity.coreml; print([m for m in ('torch', 'coremltools') if m in sys.modules])"
    assert run(code).strip() == "[]"


def test_profile_changes_what_is_computed(ct, package):
    x = np.full((2, 3), 1 / 3, np.float32)
    results = {}
    for profile in ("float32", "declared"):
        shim.install(profile=profile, force=True)
        results[profile] = ct.models.MLModel(str(package)).predict({"x": x})["y"][0, 0]
    assert results["declared"] == np.float32(np.float16(np.float16(1 / 3) * 2))
    assert results["float32"] not in (results["declared"], 0)
