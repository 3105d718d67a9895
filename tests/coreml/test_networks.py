"""Whole converted networks, loaded as a user loads them, against PyTorch.

Bounds are 6 dB below the PSNR measured for the seed (the peak is the range of PyTorch's output): float16 rounding
differs in its last bits between builds of torch, a wrong operator costs far more than 6 dB.
"""

from __future__ import annotations

import networks
import numpy as np
import pytest

from parity import coreml

SEED = 20240501
# network -> (float16 program under "declared", float32 program under "declared"), dB
BOUNDS = {
    "text_encoder": (60, 110),
    "unet": (60, 110),
    "vae_decoder": (60, 110),
    "vae_encoder": (60, 110),
    "controlnet": (60, 110),
    "safety_checker": (60, 110),
    "lstm": (60, 110),
    "resnet": (60, 110),
}


def psnr(candidate: np.ndarray, expected: np.ndarray) -> float:
    """Return the PSNR in dB; the peak is the range of what is expected."""
    assert candidate.shape == expected.shape
    error = np.mean((candidate.astype(np.float64) - expected) ** 2)
    return float(20 * np.log10((np.ptp(expected) or 1.0) / np.sqrt(max(error, 1e-30))))


def convert(ct, network: networks.Network, path, precision: str):
    """Convert a network to a package."""
    import torch

    traced = torch.jit.trace(network.module, tuple(network.inputs.values()), check_trace=False)
    dtypes = {torch.int32: np.int32, torch.float32: np.float32}
    model = ct.convert(
        traced,
        inputs=[ct.TensorType(n, tuple(v.shape), dtype=dtypes[v.dtype]) for n, v in network.inputs.items()],
        minimum_deployment_target=getattr(ct.target, network.target),
        compute_precision=getattr(ct.precision, precision),
        skip_model_load=True,
    )
    model.save(str(path))
    return path


@pytest.mark.parametrize("precision", ["FLOAT16", "FLOAT32"])
@pytest.mark.parametrize("name", networks.ALL)
def test_network_equals_pytorch(ct, name, precision, tmp_path):
    network = networks.build(name, SEED)
    path = convert(ct, network, tmp_path / f"{name}.mlpackage", precision)
    model = coreml.load(path, "CPU_ONLY", runtime="reference")
    prediction = model.predict({key: value.numpy() for key, value in network.inputs.items()})
    bound = BOUNDS[name][precision == "FLOAT32"]
    for feature, expected in zip(model.outputs, networks.reference(network), strict=True):
        got = prediction[feature.name]
        if expected.dtype == np.int32:
            np.testing.assert_array_equal(got, expected)
        else:
            assert psnr(got, expected) >= bound, (feature.name, psnr(got, expected))
