"""Weights on disk: the same packages as with weights in memory, and arrays that really lie in the file."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from parity import convert
from parity.convert import build, plan
from parity.convert.spec import content_hash
from parity.errors import FormatError
from parity.models import source, weights
from parity.models.scratch import Scratch

Model = Callable[[str], Path]


@pytest.mark.long
@pytest.mark.parametrize(
    ("family", "component"),
    [
        pytest.param("sd1", "controlnet", marks=pytest.mark.slow),
        ("sd1", "vae_decoder"),
        pytest.param("sd1", "unet", marks=pytest.mark.slow),
        pytest.param("sdxl", "unet", marks=pytest.mark.slow),
    ],
)
def test_packages_are_identical(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, component: str
) -> None:
    made: list[Scratch] = []
    hashes = []
    for large in (10**9, 1):
        monkeypatch.setattr(build, "LARGE", large)
        monkeypatch.setattr(build, "Scratch", lambda *a: made.append(Scratch(*a)) or made[-1])
        nets = [model("controlnet")] if component == "controlnet" else []
        options = {"components": [component], "controlnets": nets, "check": component == "unet"}
        packages = convert.convert(model(family), tmp_path / str(large), **options)  # type: ignore[arg-type]
        hashes.append([content_hash(path) for path in packages.values()])
    assert hashes[0] == hashes[1]
    (scratch,) = made
    assert scratch.used > 0.6 * scratch.capacity or component == "vae_decoder", "float32 and float16 lie in the file"
    assert scratch.used > 0
    assert scratch.used <= scratch.capacity
    written = [path for path in (tmp_path / "1").iterdir() if path.name != "scheduler_config.json"]
    assert sorted(path.suffix for path in written) == [".json", ".mlpackage"]


def lies_in(scratch: Scratch, array: np.ndarray) -> bool:
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, memoryview) and isinstance(base.obj, mmap.mmap) and base.obj is scratch._map


@given(
    st.lists(
        arrays.arrays(
            st.sampled_from([np.float16, np.float32]),
            st.tuples(st.integers(1, 40), st.integers(1, 90)),
            fill=st.just(1),
        ),
        max_size=6,
    )
)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_arrays_survive(tmp_path_factory: pytest.TempPathFactory, values: list[np.ndarray]) -> None:
    scratch = Scratch(tmp_path_factory.getbasetemp(), 20_000)
    stored = [scratch.put(value) for value in values]
    scratch.release()
    for value, kept in zip(values, stored, strict=True):
        assert kept.dtype == value.dtype
        np.testing.assert_array_equal(kept, value)
        assert lies_in(scratch, kept) != (kept is value)
        assert value.nbytes >= 4096 or kept is value


def test_arrays_in_other_orders_and_without_room(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, 20_000)
    value = np.arange(3000, dtype=np.float32).reshape(50, 60).T
    kept = scratch.put(value)
    np.testing.assert_array_equal(kept, value)
    assert lies_in(scratch, kept)
    assert scratch.put(value) is value, "no room"
    assert list(tmp_path.iterdir()) == [], "the file has no name"


def test_weights_of_another_network_and_damaged_ones(model: Model, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "unet"
    shutil.copytree(model("sd1") / "unet", folder)
    (file,) = folder.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-4000])
    with pytest.raises(FormatError, match="cannot be loaded as UNet2DConditionModel"):
        source.load_module(folder, "UNet2DConditionModel", scratch=Scratch(tmp_path, 10**6))
    shutil.copy(next((model("sdxl") / "unet").glob("*.safetensors")), file)
    with pytest.raises(FormatError, match="not the weights of this UNet2DConditionModel"):
        source.load_module(folder, "UNet2DConditionModel", scratch=Scratch(tmp_path, 10**6))


def test_shards_and_variants(model: Model, tmp_path: Path) -> None:
    """Single precision goes first, shards belong together, foreign names are left alone."""
    origin = next((model("sd1") / "unet").glob("*.safetensors"))
    names = ["diffusion_pytorch_model.fp16.safetensors", "other.safetensors"]
    for name in names:
        (tmp_path / name).write_bytes(origin.read_bytes())
    assert [path.name for path in weights.files(tmp_path)] == names[:1]
    shards = [f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for name in shards:
        (tmp_path / name).write_bytes(origin.read_bytes())
    assert [path.name for path in weights.files(tmp_path)] == shards
    (job,) = plan.plan(model("sd1"), components=["unet"])
    assert job.weights == model("sd1") / "unet"
    assert weights.count(job.weights) == sum(p.numel() for p in build.load(job).parameters())
