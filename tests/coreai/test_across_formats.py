"""One network in both formats: what is equal is said to be, a planted difference is found, files are described."""

from __future__ import annotations

import numpy as np
import pytest

from parity import cli
from tests.commands.printed import checked

pytestmark = [pytest.mark.coreai, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A small network as .mlpackage, as .aimodel, and as .aimodel with one weight changed."""
    import torch

    from parity.convert import workarounds
    from parity.coreai import converter

    folder = tmp_path_factory.mktemp("formats")
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(4, 8, 3, padding=1), torch.nn.GroupNorm(2, 8), torch.nn.SiLU(), torch.nn.Conv2d(8, 4, 1)
    ).eval()
    x = torch.zeros(1, 4, 6, 6)
    ct = workarounds.coremltools()
    with workarounds.tracing(), torch.no_grad():
        traced = torch.jit.trace(module, x)
    with workarounds.converting():
        package = ct.convert(
            traced,
            inputs=[ct.TensorType(name="sample", shape=x.shape)],
            outputs=[ct.TensorType(name="noise")],
            minimum_deployment_target=ct.target.macOS13,
            skip_model_load=True,
        )
    package.save(str(folder / "net.mlpackage"))
    converter.convert(module, {"sample": x}, folder / "net.aimodel", outputs=["noise"])
    with torch.no_grad():
        module[0].weight[0, 0, 0, 0] += 0.5
    converter.convert(module, {"sample": x}, folder / "other.aimodel", outputs=["noise"])
    return folder


@pytest.mark.long
def test_equal_networks(files, capsys):
    assert cli.main(["diff", str(files / "net.mlpackage"), str(files / "net.aimodel")]) == 0
    text = capsys.readouterr().out
    assert "input: sample" in text
    # biases and norms have fewer than 16 elements or one value
    assert "weights: 2 equal but for rounding, 0 differ, 0 without" in text
    assert "function: noise agrees" in text


@pytest.mark.long
def test_a_changed_weight_is_found(files, capsys):
    assert cli.main(["diff", str(files / "net.mlpackage"), str(files / "other.aimodel"), "--json"]) == 1
    result = checked(capsys.readouterr().out, "diff core-ai")
    assert [round(pair["largest"], 2) for pair in result["weights"][:2]] == [0.5, 0.0]
    assert result["weights"][0]["shape"] == [8, 4, 3, 3]
    assert result["psnr"]["noise"] < 40


def test_the_order_of_formats_is_asked_for(files, capsys):
    assert cli.main(["diff", str(files / "net.aimodel"), str(files / "net.mlpackage")]) == 2
    assert "give the Core ML model first" in capsys.readouterr().err


@pytest.mark.long
def test_inspect_and_show(files, capsys):
    path = str(files / "net.aimodel")
    assert cli.main(["inspect", path]) == 0
    text = capsys.readouterr().out
    assert "weights in float32" in text
    assert "float32 [1 × 4 × 6 × 6]" in text
    assert "conv2d 2" in text
    assert "producer: coreai-core" in text
    assert cli.main(["inspect", path, "--json"]) == 0
    described = checked(capsys.readouterr().out, "inspect core-ai")["described"]
    assert described["functions"][0]["inputs"][0] == {"name": "sample", "dtype": "float32", "shape": [1, 4, 6, 6]}
    assert described["weights"]["float32"][1] >= 4 * 8 * 9 + 8 + 16 + 32 + 4
    assert cli.main(["inspect", path, "--require", "txt2img on swift>=1.1"]) == 2
    assert "speak of Core ML models only" in capsys.readouterr().err
    assert cli.main(["mil", "show", path]) == 0
    assert "coreai.graph @main" in capsys.readouterr().out
    assert cli.main(["mil", "show", path, "--op", "x"]) == 2


def test_a_layout_that_does_not_correspond():
    from parity.coreai.comparison import arranged
    from parity.coreai.process import ArraySpec
    from parity.errors import UsageError

    value = np.arange(2 * 5 * 7, dtype=np.float32).reshape(2, 5, 1, 7)
    turned = arranged(value, ArraySpec("hidden", "float32", (2, 7, 5)))
    np.testing.assert_array_equal(turned[1, 3], value[1, :, 0, 3])
    assert arranged(value[:1], ArraySpec("hidden", "float32", (4, 7, 5))).shape == (4, 7, 5)
    with pytest.raises(UsageError, match="the functions were not compared"):
        arranged(value, ArraySpec("hidden", "float32", (2, 7, 6)))
