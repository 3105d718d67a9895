"""The trained unconditional model: each picture of a DDIM run in Core ML against diffusers' own pipeline."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from fixtures.shapes.__main__ import load_unconditional
from parity import coreml
from parity.recipes import trained
from tests.coreml import networks
from tests.coreml.test_networks import convert

PICTURES, STEPS = 4, 10


class Noise(torch.nn.Module):
    """The network with a tensor for its result."""

    def __init__(self, unet: torch.nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return self.unet(sample, timestep, return_dict=False)[0]


class Stand:
    """What ``DDPMPipeline`` needs of a UNet, computed by a Core ML model."""

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self, model: coreml.Model, config: Any) -> None:
        self.model, self.config = model, config

    def __call__(self, sample: torch.Tensor, timestep: torch.Tensor) -> SimpleNamespace:
        given = {"sample": sample.numpy(), "timestep": np.full(PICTURES, float(timestep), np.float32)}
        (result,) = self.model.predict(given).values()
        return SimpleNamespace(sample=torch.from_numpy(result))


@pytest.mark.long
def test_core_ml_draws_what_the_diffusers_pipeline_draws(ct: Any, tmp_path: Path) -> None:
    pipeline = load_unconditional(trained.folder("shapes-ddpm"))

    def draw() -> np.ndarray:
        generator = torch.Generator().manual_seed(93)
        return np.asarray(
            pipeline(PICTURES, generator, num_inference_steps=STEPS, output_type="np").images, dtype=np.float64
        )

    expected = draw()
    network = networks.Network(
        Noise(pipeline.unet.eval().requires_grad_(False)),
        {"sample": torch.randn(PICTURES, 3, 32, 32), "timestep": torch.full((PICTURES,), 500.0)},
    )
    path = convert(ct, network, tmp_path / "ddpm.mlpackage", "FLOAT16")
    pipeline.unet = Stand(coreml.load(path, "CPU_ONLY", runtime="reference"), pipeline.unet.config)
    found = [peak_signal_noise_ratio(a, b, data_range=1) for a, b in zip(expected, draw(), strict=True)]
    assert min(found) >= 50, found
