"""What stays in float32: the timestep embedding alone, or everything; the package's features are the release's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from parity import convert, mil
from parity.convert import plan, record
from parity.convert.job import Settings
from parity.errors import UsageError
from parity.metrics import measure
from parity.mil import arrays, graph
from parity.suite.questions import overflow

Model = Callable[[str], Path]


def converted(model: Path, component: str, kept: str | None) -> Path:
    return convert.cached(model, components=[component], float32=kept)[component]


def results(package: Path) -> Counter[tuple[str, str]]:
    """Count operations by kind and dtype of their first result."""
    program = mil.load(package).program
    built = graph.build(program.functions["main"], str(package))
    computed = [node for node in built.nodes if any(name not in built.constants for name in node.outputs)]
    return Counter((node.type, str(arrays.dtype_of(built.types[node.outputs[0]]))) for node in computed)


@pytest.mark.long
def test_the_timestep_embedding_alone_stays_in_float32(model: Model) -> None:
    released = converted(model("sd1"), "unet", None)
    cured = converted(model("sd1"), "unet", "timestep-embedding")
    assert overflow.embedded(released)
    assert not overflow.embedded(cured)
    found = results(cured)
    assert (found["sin", "fp32"], found["cos", "fp32"]) == (1, 1)
    assert {kind for kind, dtype in found if dtype == "fp32"} <= {"sin", "cos", "mul", "add", "cast", "expand_dims"}
    layers = [(kind, "fp16") for kind in ("conv", "linear", "matmul", "softmax", "batch_norm")]
    assert {key: found[key] for key in layers} == {key: results(released)[key] for key in layers}
    described = [[(each.name, each.dtype, each.shape) for each in mil.load(path).inputs] for path in (released, cured)]
    assert described[0] == described[1]


@pytest.mark.slow
def test_the_embedding_of_sdxls_sizes_stays_in_float32_too(model: Model) -> None:
    found = results(converted(model("sdxl"), "unet", "timestep-embedding"))
    assert (found["sin", "fp32"], found["cos", "fp32"]) == (2, 2)  # the time's, and that of the picture's sizes
    assert not found["sin", "fp16"] + found["cos", "fp16"]


@pytest.mark.long
def test_everything_in_float32_agrees_as_float32_does(model: Model) -> None:
    path = converted(model("sd1"), "unet", "all")
    assert not any(dtype == "fp16" for kind, dtype in results(path) if kind != "cast")
    loaded, (job,) = mil.load(path), plan.plan(model("sd1"), components=["unet"])
    from parity.convert import build, check

    (known,) = check.references(job, build.network(job, build.load(job)), seeds=[0])
    given = {name: np.float16(value) for name, value in known.inputs.items()}
    found = mil.Session(loaded).predict(given)
    assert measure("tensor_psnr", known.outputs["noise_pred"], np.float32(found["noise_pred"])) > 100


def test_what_has_no_embedding_is_shared_with_the_releases_package(model: Model) -> None:
    def keys(kept: str | None) -> dict[str, str]:
        jobs = plan.plan(model("sd1"), components=["text_encoder", "unet"], settings=Settings(float32=kept))
        return {job.component: record.program_key(job) for job in jobs}

    plain, embedding, everything = keys(None), keys("timestep-embedding"), keys("all")
    assert plain["text_encoder"] == embedding["text_encoder"] != everything["text_encoder"]
    assert len({found["unet"] for found in (plain, embedding, everything)}) == 3


def test_another_word_is_refused(model: Model) -> None:
    with pytest.raises(UsageError, match="float32 'embedding': timestep-embedding or all"):
        plan.plan(model("sd1"), settings=Settings(float32="embedding"))
