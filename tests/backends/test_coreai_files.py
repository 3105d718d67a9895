"""Which network is a user's ``.aimodel``, and which of its features is which tensor?"""

from __future__ import annotations

import numpy as np
import pytest

from parity.backends import coreai_files
from parity.coreai.process import ArraySpec
from parity.errors import FormatError


def test_files_are_found_by_component(tmp_path):
    names = (
        "Stable_text_encoder",
        "Text-Encoder_2",
        "Unet",
        "control-unet",
        "UnetRefiner",
        "ControlNet",
        "controlnet-2",
    )
    for name in (*names, "VAEDecoder", "my-vae-encoder", "SafetyChecker", "transformer", "other"):
        (tmp_path / f"{name}.aimodel").mkdir()
    found = {component: path.stem for component, path in coreai_files.find(tmp_path).items()}
    assert found == {
        "text_encoder": "Stable_text_encoder",
        "text_encoder_2": "Text-Encoder_2",
        "unet": "Unet",
        "control-unet": "control-unet",
        "refiner": "UnetRefiner",
        "controlnet-1": "ControlNet",
        "controlnet-2": "controlnet-2",
        "vae_decoder": "VAEDecoder",
        "vae_encoder": "my-vae-encoder",
        "safety_checker": "SafetyChecker",
        "mmdit": "transformer",
    }
    (tmp_path / "second_unet.aimodel").mkdir()
    with pytest.raises(FormatError, match="two candidates for unet"):
        coreai_files.find(tmp_path)


def test_inputs_are_matched_by_name_then_by_order(tmp_path):
    inputs = {"sample": np.zeros(1), "timestep": np.zeros(1), "hidden": np.zeros(1)}
    names = ["encoder_hidden_states", "sample", "t"]
    assert coreai_files.matched(tmp_path, "unet", inputs, names) == {
        "encoder_hidden_states": "hidden",
        "sample": "sample",
        "t": "timestep",
    }
    assert coreai_files.matched(tmp_path, "unet", inputs, ["a", "b", "c"]) == {
        "a": "sample",
        "b": "timestep",
        "c": "hidden",
    }
    with pytest.raises(FormatError, match="takes a, and a unet of this model takes sample, timestep, hidden"):
        coreai_files.matched(tmp_path, "unet", inputs, ["a"])


@pytest.mark.parametrize(
    ("network", "outputs", "wanted"),
    [
        ("unet", {"y": 4}, {"noise_pred": "y"}),
        ("text_encoder", {"a": 3}, {"hidden": "a"}),
        (
            "text_encoder",
            {"pooled_outputs": 2, "hidden_embeds": 3},
            {"hidden": "hidden_embeds", "pooled": "pooled_outputs"},
        ),
        ("text_encoder_2", {"a": 2, "b": 3}, {"hidden": "b", "pooled": "a"}),
        ("controlnet-2", {"a": 4, "b": 4}, {"additional_residual_0": "a", "additional_residual_1": "b"}),
        (
            "controlnet-1",
            {"additional_residual_1": 4, "additional_residual_0": 4},
            {"additional_residual_1": "additional_residual_1", "additional_residual_0": "additional_residual_0"},
        ),
    ],
)
def test_outputs_are_matched_by_name_then_by_rank(tmp_path, network, outputs, wanted):
    specs = tuple(ArraySpec(name, "float32", (1,) * rank) for name, rank in outputs.items())
    assert coreai_files.results(tmp_path, network, specs) == wanted


@pytest.mark.parametrize("outputs", [{"a": 3}, {"a": 3, "b": 3}, {"a": 3, "b": 3, "c": 2}])
def test_outputs_that_cannot_be_told_apart_are_refused(tmp_path, outputs):
    specs = tuple(ArraySpec(name, "float32", (1,) * rank) for name, rank in outputs.items())
    with pytest.raises(FormatError, match="hidden, pooled are needed of a text_encoder_2"):
        coreai_files.results(tmp_path, "text_encoder_2", specs)
