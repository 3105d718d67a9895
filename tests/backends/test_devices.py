"""What is known about devices is said: silent defects by release, and errors in plain words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from parity import recipes
from parity.backends import devices
from parity.backends.pytorch import TorchBackend


@pytest.mark.parametrize(
    ("precision", "torch", "system", "sources"),
    [
        ("float32", "2.13.0", "15.1", []),
        ("float16", "2.13.0", "15.1", ["190791"]),
        ("float16", "2.12.1", "27.0", ["187280", "190791"]),
        ("float32", "2.8.0", "15.1", ["163597", "174861"]),
        ("float32", "2.8.0", "14.7", ["163597", "174861", "165257"]),
        ("float32", "2.4.1", "15.0", ["174861", "132220"]),
        ("float32", "2.4.1", "", ["174861"]),  # where the system is not known, nothing is said of systems
    ],
)
def test_defects_of_apple_gpus_by_release(precision: str, torch: str, system: str, sources: list[str]) -> None:
    found = devices.remarks("mps", precision, torch, system)
    assert [source for source in sources if not any(source in text for text in found)] == []
    assert len(found) == len(sources)
    assert all(f"torch {torch} on mps: " in text and "; remedy: " in text for text in found)


@pytest.mark.long
def test_nothing_is_said_of_other_devices() -> None:
    assert devices.remarks("cpu", "float16", "2.8.0", "27.0") == devices.remarks("cuda", "float16", "2.8.0", "") == ()
    assert TorchBackend(str(recipes.build("tiny-sd"))).remarks == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64.", "no float64"),
        ("can't convert mps:0 device type tensor to numpy. Use Tensor.cpu() to copy", r"\.cpu\(\) before \.numpy\(\)"),
        ("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()", r"\.cpu\(\) before"),
        ("MPS backend out of memory (MPS allocated: 5.05 GB, max allowed: 9.07 GB)", "HIGH_WATERMARK"),
        ("CUDA out of memory. Tried to allocate 2.00 GiB", "use float16"),
        ("CUDA error: no kernel image is available for execution on the device", "no code for this GPU"),
        ("\"slow_conv2d_cpu\" not implemented for 'Half'", "later torch"),
        ("The operator 'aten::x' is not currently implemented for the MPS device.", "--device cpu"),
    ],
)
def test_errors_are_said_in_plain_words(text: str, says: str) -> None:
    backend = TorchBackend(str(recipes.build("tiny-sd")))
    component: Any = backend.component("vae_decoder")

    class Broken:
        def decode(self, *_: Any, **__: Any) -> Any:
            raise TypeError(text)

    component._module = Broken()
    with pytest.raises(RuntimeError, match=f"(?s)what it means: .*{says}") as caught:
        component({"latents": np.zeros((1, 4, 16, 16), np.float32)})
    assert text in str(caught.value)


def test_an_error_that_nobody_knows_stays_as_it_is() -> None:
    component: Any = TorchBackend(str(recipes.build("tiny-sd"))).component("vae_decoder")
    with pytest.raises(RuntimeError, match="expected input") as caught:
        component({"latents": np.zeros((1, 5, 16, 16), np.float32)})
    assert "what it means" not in str(caught.value)


def test_timesteps_in_float64_are_what_they_are_in_float32() -> None:
    """Schedulers with steps between two others give float64, which Apple GPUs do not take."""
    unet = TorchBackend(str(recipes.build("tiny-sd"))).component("unet")
    rng = np.random.default_rng(0)
    inputs = {
        "sample": rng.standard_normal((2, 4, 16, 16)).astype(np.float32),
        "hidden": rng.standard_normal((2, 77, 32)).astype(np.float32),
    }
    results = [
        unet({**inputs, "timestep": np.full(2, 261.53417, kind)})["noise_pred"] for kind in (np.float64, np.float32)
    ]
    assert np.array_equal(*results)
