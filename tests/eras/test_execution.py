"""Every package of every era computes what PyTorch of today computes with the same weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from parity import coreml
from tests.eras.cases import ERAS
from tests.eras.conftest import STEM, Unpacked

Original = Callable[[str], Any]
# PSNR in dB by the form of the weights. Weights are exact in float16, so plain packages measure arithmetic alone, and
# tables of 6 bits and more hold every value that a tensor has.
BOUNDS = {"": 60.0, "affine8": 30.0, "palette4": 10.0, "palette6": 60.0, "palette8": 60.0}
# What an era's library wrote wrongly, which the runtime has to reproduce. coremltools 6.1 gives a constant tensor the
# scale 0, so an 8-bit text encoder has lost its causal mask. The k-means that coremltools
# 8.3 called lost values of two tables, as it does where a tensor has fewer different values than the table has entries
# (off by up to 8.4).
WRONG_AS_WRITTEN = {("6.1", "0.2.0-affine8", "text_encoder"), ("8.3", "batch-one-palette8", "unet")}


def psnr(actual: np.ndarray, expected: np.ndarray) -> float:
    assert actual.shape == expected.shape
    error = float(np.mean((actual.astype(np.float64) - expected) ** 2))
    return 10 * math.log10(float(np.abs(expected).max()) ** 2 / max(error, 1e-30))


def inputs(model: Any) -> dict[str, np.ndarray]:
    """Draw a value of every input, exact in float16."""
    result = {}
    for feature in model.inputs:
        draw = np.random.default_rng([7, *feature.name.encode()])
        values = draw.standard_normal(feature.shape)
        if feature.name == "input_ids":
            values = draw.integers(0, 500, feature.shape)
            values[:, 30:] = 513
        elif feature.name == "timestep":
            values = np.full(feature.shape, 481.0)
        elif feature.name.startswith("sqrt"):
            values = np.full(feature.shape, 0.8 if feature.name == "sqrt_alphas_cumprod" else 0.6)
        elif len(feature.shape) == 4 and feature.shape[1] == 3:
            values = draw.uniform(-1, 1, feature.shape)
        result[feature.name] = values.astype(np.float16).astype(np.float32)
    return result


@torch.no_grad()
def expected(component: str, given: Mapping[str, np.ndarray], original: Original) -> dict[str, np.ndarray]:
    """Return the outputs by diffusers' and transformers' own modules."""
    t = {name: torch.from_numpy(value) for name, value in given.items()}
    if component == "text_encoder":
        out = original("text_encoder")(t["input_ids"].long())
        found = {"last_hidden_state": out.last_hidden_state, "pooled_outputs": out.pooler_output}
    elif component == "unet":
        context = t["encoder_hidden_states"][:, :, 0].transpose(1, 2)
        found = {"noise_pred": original("unet")(t["sample"], t["timestep"], context).sample}
    elif component == "vae_decoder":
        found = {"image": original("vae").decode(t["z"]).sample}
    else:
        (name,) = (name for name, value in t.items() if value.shape[1] == 3)
        distribution = original("vae").encode(t[name]).latent_dist
        found = {"latent": distribution.parameters}
        if len(t) == 5:
            latent = 0.18215 * (distribution.mean + distribution.std * t["diagonal_noise"])
            noise = t["sqrt_one_minus_alphas_cumprod"] * t["noise"]
            found = {"latent_dist": t["sqrt_alphas_cumprod"] * latent + noise}
    return {name: value.numpy() for name, value in found.items()}


def wholes(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Yield (group, component, path) of every package that is not half a model."""
    for path in sorted(folder.rglob("*.mlpackage")):
        if "chunk" not in path.name:
            yield path.parent.name, path.stem.removeprefix(STEM), path


@pytest.mark.parametrize("era", ERAS)
def test_packages_compute_what_pytorch_computes(era: str, unpacked: Unpacked, original: Original) -> None:
    measured = {}
    for group, component, path in wholes(unpacked(era)):
        model = coreml.load(path, runtime="reference")
        given = inputs(model)
        actual = model.predict(given)
        wanted = expected(component, given, original)
        assert set(actual) == set(wanted)
        measured[group, component] = min(psnr(np.asarray(actual[name]), wanted[name]) for name in wanted)
    print(era, {"/".join(key): round(value, 1) for key, value in measured.items()})
    for (group, component), value in measured.items():
        if (era, group, component) in WRONG_AS_WRITTEN:
            assert value < 15
            continue
        assert value > BOUNDS.get(group.rpartition("-")[2], BOUNDS[""]), (group, component, value)


@pytest.mark.parametrize("name", ["6.1/0.2.0", "6.3/0.4.0", "7.2/1.1.1", "8.0/main", "9.0/main"])
def test_two_halves_compute_what_the_whole_computes(name: str, package: Callable[[str], Path]) -> None:
    whole = coreml.load(package(f"{name}/unet"), runtime="reference")
    features: dict[str, Any] = inputs(whole)
    wanted = whole.predict(features)["noise_pred"]
    for half in (1, 2):
        model = coreml.load(package(f"{name}/unet_chunk{half}"), runtime="reference")
        features |= model.predict({feature.name: features[feature.name] for feature in model.inputs})
    assert psnr(np.asarray(features["noise_pred"]), np.asarray(wanted)) > 60
