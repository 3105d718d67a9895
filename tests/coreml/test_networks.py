"""Whole converted networks, loaded as a user loads them, against PyTorch.

Bounds are 6 dB below the PSNR measured for the seed (the peak is the range of PyTorch's output): float16 rounding
differs in its last bits between builds of torch, a wrong operator costs far more than 6 dB.
"""

from __future__ import annotations

import numpy as np
import pytest

from parity import coreml
from tests.coreml import networks

SEED = 20240501
# network -> (float16 program under "declared", float32 program under "declared"), dB
BOUNDS = {
    "text_encoder": (69, 139),
    "unet": (64, 128),
    "vae_decoder": (64, 130),
    "vae_encoder": (67, 134),
    "controlnet": (70, 133),
    "safety_checker": (67, 137),
    "lstm": (60, 135),
    "resnet": (73, 152),
    "detector": (50, 144),
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


SLOW = ("controlnet", "vae_encoder")  # take seconds to convert and resemble others
QUICK_IN_FLOAT32 = ("lstm", "resnet", "detector", "safety_checker")


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *(pytest.param(name, "FLOAT16", marks=pytest.mark.slow if name in SLOW else []) for name in networks.ALL),
        *(
            pytest.param(name, "FLOAT32", marks=[] if name in QUICK_IN_FLOAT32 else pytest.mark.slow)
            for name in networks.ALL
        ),
    ],
)
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


def test_transformer_with_state_equals_pytorch_at_every_step(ct, tmp_path):
    import torch

    torch.manual_seed(SEED)
    module = networks.Decoder().eval().requires_grad_(False)
    example = (torch.zeros(1, 1, dtype=torch.int32), torch.zeros(1, dtype=torch.int32))
    traced = torch.jit.trace(module, example, check_trace=False)
    path = tmp_path / "decoder.mlpackage"
    ct.convert(
        traced,
        inputs=[ct.TensorType("token", (1, 1), dtype=np.int32), ct.TensorType("position", (1,), dtype=np.int32)],
        outputs=[ct.TensorType("logits")],
        states=[
            ct.StateType(ct.TensorType(shape=tuple(buffer.shape), dtype=np.float16), name=name)
            for name, buffer in module.named_buffers()
        ],
        minimum_deployment_target=ct.target.iOS18,
        skip_model_load=True,
    ).save(str(path))
    module.keys.zero_()
    module.values.zero_()
    model = coreml.load(path, runtime="reference")
    state = model.make_state()
    tokens = np.random.default_rng(SEED).integers(0, 50, 12)
    for position, token in enumerate(tokens):
        given = {"token": np.array([[token]], np.int32), "position": np.array([position], np.int32)}
        expected = module(*(torch.from_numpy(value) for value in given.values())).numpy()
        assert psnr(model.predict(given, state=state)["logits"], expected) >= 60
    forgetful = model.predict(given, state=model.make_state())["logits"]
    assert psnr(forgetful, expected) < 40  # the state is what makes the difference


def test_non_maximum_suppression_of_a_detector(ct, mb, tmp_path):
    """The boxes that the program keeps are those of a plain greedy suppression in NumPy."""
    boxes, scores = networks.reference(networks.build("detector", SEED))

    @mb.program(input_specs=[mb.TensorSpec(boxes.shape), mb.TensorSpec(scores.shape)], opset_version=ct.target.iOS16)
    def program(boxes, scores):
        return mb.non_maximum_suppression(
            boxes=boxes, scores=scores, iou_threshold=0.4, score_threshold=0.53, max_boxes=40
        )

    path = tmp_path / "suppression.mlpackage"
    ct.convert(
        program,
        minimum_deployment_target=ct.target.iOS16,
        compute_precision=ct.precision.FLOAT32,
        skip_model_load=True,
    ).save(str(path))
    kept = coreml.load(path, runtime="reference").predict({"boxes": boxes, "scores": scores})
    kept_boxes, kept_scores, kept_indices, count = kept.values()
    expected = _greedy(boxes[0], scores[0].max(axis=1), overlap=0.4, threshold=0.53)
    assert 5 < len(expected) < 40
    assert int(count[0]) == len(expected)
    np.testing.assert_array_equal(kept_indices[0, : len(expected)], expected)
    np.testing.assert_allclose(kept_boxes[0, : len(expected)], boxes[0, expected], rtol=1e-6)
    np.testing.assert_allclose(kept_scores[0, : len(expected)], scores[0, expected], rtol=1e-6)


def _greedy(boxes: np.ndarray, scores: np.ndarray, *, overlap: float, threshold: float) -> list[int]:
    """Return the indices of kept boxes (centre x, centre y, width, height), best first."""
    low, high = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        if scores[index] <= threshold:
            break
        sides = np.clip(np.minimum(high[index], high[kept]) - np.maximum(low[index], low[kept]), 0, None)
        shared = sides.prod(axis=1)
        if (shared / (boxes[index, 2:].prod() + boxes[kept, 2:].prod(axis=1) - shared) <= overlap).all():
            kept.append(int(index))
    return kept
