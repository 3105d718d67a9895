"""Half precision as a yardstick: outputs that no machine's kernels change, paid once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from parity import cache, recipes
from parity.backends.pytorch import TorchBackend, parameters
from parity.backends.rounded import RoundedBackend
from parity.suite import yardstick
from parity.suite.score import score
from parity.suite.yardstick import Yardstick

KERNELS = """
import hashlib, sys
import numpy as np, torch
from parity.backends.pytorch import TorchBackend
from parity.backends.rounded import RoundedBackend
backend = RoundedBackend(TorchBackend(sys.argv[1]))
random = np.random.default_rng(93)
given = {
    "vae_encoder": {"image": random.uniform(-1, 1, (1, 3, 128, 128))},
    "unet": {"sample": random.standard_normal((2, 4, 16, 16)), "hidden": random.standard_normal((2, 77, 32))},
}
print(torch.backends.cpu.get_cpu_capability())
for name, inputs in given.items():
    inputs = {key: value.astype(np.float32) for key, value in inputs.items()}
    inputs |= {"timestep": np.array([925.0, 925.0], np.float32)} if name == "unet" else {}
    (value,) = backend.component(name)(inputs).values()
    print(name, hashlib.sha256(value.tobytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def original() -> TorchBackend:
    return TorchBackend(recipes.build("tiny-sd"))


def image() -> dict[str, np.ndarray]:
    return {"image": np.random.default_rng(93).uniform(-1, 1, (1, 3, 128, 128)).astype(np.float32)}


@pytest.mark.long
@pytest.mark.parametrize("capability", ["default", pytest.param("avx2", marks=pytest.mark.slow)])
def test_kernels_do_not_change_half_precision(
    original: TorchBackend, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], capability: str
) -> None:
    """Those of a process of their own, and this process's, which are the best that the processor has."""
    run = subprocess.run(
        [sys.executable, "-c", KERNELS, original.location],
        env={**os.environ, "ATEN_CPU_CAPABILITY": capability},
        capture_output=True,
        text=True,
        check=True,
    )
    asked, *theirs = run.stdout.splitlines()
    assert (asked, len(theirs)) == (capability.upper(), 2)
    monkeypatch.setattr(sys, "argv", ["", original.location])
    capsys.readouterr()
    exec(KERNELS, {})
    here, *ours = capsys.readouterr().out.splitlines()
    if here == asked:
        pytest.skip(f"this processor has no kernels beyond {here}")
    assert ours == theirs


def test_it_agrees_with_torchs_own_float16_kernels(original: TorchBackend) -> None:
    reference, half, rounded = (
        backend.component("vae_encoder")(image())["moments"]
        for backend in (original, TorchBackend(original.location, precision="float16"), RoundedBackend(original))
    )
    found = score(reference, rounded, half)
    assert 0.75 < found.rms < 1.25
    assert found.overlap > 0.97


def test_it_is_paid_once_and_follows_weights_and_inputs(
    original: TorchBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def counted(name: str, inputs: dict[str, np.ndarray], weights: yardstick.Weights | None = None) -> yardstick.Half:
        judge = Yardstick(original, weights)
        half = judge.call(name, inputs)
        computed.append(judge._backend is not None)
        return half

    where = cache.folder
    monkeypatch.setattr(
        cache, "folder", lambda kind, name: tmp_path / name if kind == "yardsticks" else where(kind, name)
    )
    computed: list[bool] = []
    first = counted("vae_encoder", image())
    again = counted("vae_encoder", image())
    assert computed == [True, False]
    assert (first.outputs["moments"] == again.outputs["moments"]).all()
    other = counted("vae_encoder", {"image": image()["image"] * np.float32(0.5)})
    assert (first.outputs["moments"] != other.outputs["moments"]).any()
    name, value = next(iter(parameters(original, "vae_encoder").items()))
    changed = counted("vae_encoder", image(), {"vae_encoder": {name: value * 2}})
    assert (first.outputs["moments"] != changed.outputs["moments"]).any()
    assert computed == [True, False, True, True]
    for path in tmp_path.glob("*"):
        if path.is_file():
            path.write_bytes(b"damaged")
    counted("vae_encoder", image())
    assert computed[-1]


def test_where_half_precision_is_impossible_is_said_with_module_and_size(original: TorchBackend) -> None:
    values = parameters(original, "vae_encoder")
    name = "encoder.conv_in.weight"
    half = Yardstick(original, {"vae_encoder": {name: values[name] * 0 + 30000}}).call("vae_encoder", image())
    assert not half.finite
    assert half.overflow.startswith("conv2d in encoder.conv_in gives ")
    assert half.overflow.endswith("and float16 ends at 65,504")


def test_the_timestep_embedding_stays_in_float32() -> None:
    """As diffusers has it: rounded sine and cosine at t = 925 are those of float32, not of a rounded angle."""
    import torch
    from diffusers.models.embeddings import get_timestep_embedding

    from parity.backends.rounded import Rounded

    exact = get_timestep_embedding(torch.tensor([925.0]), 32)
    with Rounded():
        found = get_timestep_embedding(torch.tensor([925.0]), 32).to(torch.float16)
    assert (found == exact.to(torch.float16)).all()
