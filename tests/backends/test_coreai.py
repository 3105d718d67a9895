"""Core AI as backend: networks of a shipped model against PyTorch; the user's files; what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from parity.backends import coreai, registry
from parity.backends.registry import Subject
from parity.errors import FormatError, MissingError, UnsupportedError


@pytest.fixture
def subject():
    from parity.models.model import Model

    return Subject(Model("tiny-sd").location, None, dict)


def _ids():
    from parity.models.model import Model

    model = Model("tiny-sd")
    return np.concatenate([model.tokens("a circle"), model.tokens("")])


@pytest.mark.coreai
def test_a_converted_network_computes_what_pytorch_does(subject, tmp_path, monkeypatch):
    from parity.backends.pytorch import TorchBackend
    from parity.metrics import registry as metrics

    monkeypatch.setenv("PARITY_CACHE", str(tmp_path))
    backend = registry.open_backend("coreai", subject)
    assert (backend.numerics, backend.precision) == ("Core AI interpreter (float32)", "float32")
    component = backend.component("text_encoder")
    reference = TorchBackend(subject.location).component("text_encoder")
    ids = {"input_ids": _ids()}
    assert metrics.measure("tensor_psnr", reference(ids)["hidden"], component(ids)["hidden"]) > 120
    assert component(ids)["hidden"].dtype == np.float32
    (kept,) = tmp_path.glob("coreai/*/text_encoder.aimodel")
    assert (kept.parent / "findings.json").read_text() == "[]"

    given = tmp_path / "models"
    given.mkdir()
    kept.rename(given / "My_text_encoder.aimodel")
    own = registry.open_backend("coreai", Subject(subject.location, given, dict))
    np.testing.assert_array_equal(own.component("text_encoder")(ids)["hidden"], component(ids)["hidden"])
    twice = {"input_ids": np.concatenate([ids["input_ids"]] * 2)}
    np.testing.assert_array_equal(own.component("text_encoder")(twice)["hidden"][:2], component(ids)["hidden"])
    with pytest.raises(UnsupportedError, match="a batch of 3 cannot be run by a file with batch 2"):
        own.component("text_encoder")({"input_ids": twice["input_ids"][:3]})
    with pytest.raises(MissingError, match=r"no \.aimodel for unet"):
        own.component("unet")


def test_files_are_found_by_component(tmp_path):
    for name in ("Stable_text_encoder", "Unet", "VAEDecoder", "my-vae-encoder", "other"):
        (tmp_path / f"{name}.aimodel").mkdir()
    found = {component: path.stem for component, path in coreai.find(tmp_path).items()}
    assert found == {
        "text_encoder": "Stable_text_encoder",
        "unet": "Unet",
        "vae_decoder": "VAEDecoder",
        "vae_encoder": "my-vae-encoder",
    }
    (tmp_path / "second_unet.aimodel").mkdir()
    with pytest.raises(FormatError, match="two candidates for unet"):
        coreai.find(tmp_path)


def test_inputs_are_matched_by_name_then_by_order(tmp_path):
    inputs = {"sample": np.zeros(1), "timestep": np.zeros(1), "hidden": np.zeros(1)}
    names = ["encoder_hidden_states", "sample", "t"]
    assert coreai._matched(tmp_path, inputs, names) == {
        "encoder_hidden_states": "hidden",
        "sample": "sample",
        "t": "timestep",
    }
    assert coreai._matched(tmp_path, inputs, ["a", "b", "c"]) == {"a": "sample", "b": "timestep", "c": "hidden"}
    with pytest.raises(FormatError, match="3 are needed"):
        coreai._matched(tmp_path, inputs, ["a"])


def test_a_finding_is_the_reason(tmp_path):
    (tmp_path / "findings.json").write_text('["index in module x: a mask is read as indices"]')
    with pytest.raises(UnsupportedError, match=r"unet: coreai-torch would compute something else: index in module x"):
        coreai._refuse_wrong("unet", tmp_path / "unet.aimodel")
