"""Who draws is the user's choice: names, refusals, traces and verdicts of every producer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from parity import assets
from parity.errors import FormatError, UnsupportedError, UsageError
from parity.models.model import Model
from parity.pipelines.producer import producer
from parity.pipelines.release import Release
from parity.pipelines.request import Request
from parity.pipelines.trace import Trace

PROMPT = "a photo of a red circle on a blue background"


@pytest.mark.parametrize(
    ("text", "consumer"),
    [
        ("swift==1.1.0", "S7"),
        ("swift==1.1", "S7"),
        ("swift==0.3.0", "S3"),
        ("swift==main", "S8"),
        ("swift", "S8"),
        ("python==0.4.0", "P3"),
        ("python==0.3.0", "P2"),
        ("mochi==6.0", "M6"),
        ("mochi==3.1", "M3.0"),
        ("S5", "S5"),
    ],
)
def test_a_release_is_found_by_its_version(text: str, consumer: str) -> None:
    found = producer(text)
    assert isinstance(found, Release)
    assert (found.name, found.consumer.id) == (text, consumer)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("swfit==1.1.0", "no producer named 'swfit==1.1.0'; did you mean swift"),
        ("comfyui", "There are diffusers and, with ==VERSION, swift, python, mochi"),
        ("python==0.0.9", r"the nearest is python==0.1.0 \(Python pipeline 0.1.0\)"),
        ("mochi==2.2", r"the nearest is mochi==3.0"),
        ("swift==newest", "a version such as 1.1.0 is expected"),
        ("swift==", "a version such as 1.1.0 is expected"),
        ("", "no producer named ''"),
    ],
)
def test_what_does_not_exist_is_refused_with_the_nearest(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        producer(text)


def test_an_app_without_stated_conventions_cannot_be_played(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from parity.contracts.consumers import consumers
    from parity.pipelines import producer as module

    table = consumers()
    silent = replace(table.consumer("S7"), id="mine", app="mine", conventions={})
    monkeypatch.setattr(module, "consumers", lambda: replace(table, consumers=(*table.consumers, silent)))
    with pytest.raises(UnsupportedError, match="mine: the tables state no conventions"):
        producer("mine")


def test_every_release_draws_from_its_own_kind_of_stream() -> None:
    streams = {name: producer(name).stream("torch-cpu") for name in ("diffusers", "swift==1.1.0", "swift==0.2.0", "P6")}
    assert streams == {
        "diffusers": "torch-cpu",
        "swift==1.1.0": "swift-torch",
        "swift==0.2.0": "swift-numpy",
        "P6": "numpy-legacy",
    }
    assert producer("swift==1.1.0").stream("torch-cuda") == "swift-nvidia"


def test_what_a_release_cannot_be_asked() -> None:
    picture = assets.fixtures() / "pictures" / "start.png"
    img2img = Request("img2img", PROMPT, image=picture)
    assert producer("python==0.4.0").refusal(img2img).startswith("python==0.4.0 has no task img2img; it has txt2img")
    assert "no scheduler heun; it has pndm, dpm++" in producer("swift").refusal(
        Request("txt2img", PROMPT, scheduler="heun")
    )
    assert producer("swift==0.3.0").refusal(img2img) == ""
    assert producer("diffusers").refusal(img2img) == ""


@pytest.fixture(scope="module")
def backend():  # type: ignore[no-untyped-def]
    from parity.backends.pytorch import TorchBackend

    return TorchBackend(Model("tiny-sd").location)


def drawn(name: str, request: Request, backend) -> tuple[np.ndarray, Trace]:  # type: ignore[no-untyped-def]
    trace = Trace()
    found = producer(name)
    image = found.draw(request, Model("tiny-sd"), backend, seed=93, rng=found.stream("numpy-legacy"), observe=trace)
    return image, trace


@pytest.mark.parametrize("name", ["diffusers", "swift==0.2.0", "swift==1.1.0", "python==0.4.0", "mochi==6.0"])
def test_every_producer_gives_a_full_trace(name: str, backend) -> None:  # type: ignore[no-untyped-def]
    image, trace = drawn(name, Request("txt2img", PROMPT, "blurry", steps=3), backend)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(trace["image"], image)
    assert trace.components == ("text_encoder", "unet", "vae_decoder")
    assert {"prompt", "negative"} == set(trace.calls("text_encoder"))
    steps = [point for point in trace if point.startswith("latents/step")]
    assert [point[8:] for point in steps] == list(trace.calls("unet"))
    for component in trace.components:  # fed its recorded inputs, each network gives its recorded outputs again
        for label, inputs in trace.calls(component).items():
            for tensor, value in backend.component(component)(inputs).items():
                np.testing.assert_array_equal(value, trace.outputs(component)[label][tensor])


@pytest.mark.parametrize(("name", "encoder"), [("swift==0.3.0", "noising_encoder"), ("swift==1.1.0", "vae_encoder")])
def test_the_starting_picture_goes_through_the_encoder_of_the_release(name: str, encoder: str, backend) -> None:  # type: ignore[no-untyped-def]
    request = Request("img2img", PROMPT, image=assets.fixtures() / "pictures" / "start.png", strength=0.7, steps=4)
    _, trace = drawn(name, request, backend)
    assert trace.components[1] == encoder
    again = backend.component(encoder)(trace.calls(encoder)["start"])
    for tensor, value in trace.outputs(encoder)["start"].items():
        np.testing.assert_array_equal(again[tensor], value)


def test_several_pictures_of_a_release_have_labels_of_their_own(backend) -> None:  # type: ignore[no-untyped-def]
    image, trace = drawn("swift==1.1.0", Request("txt2img", PROMPT, steps=2, images=2), backend)
    assert image.shape[0] == 2
    assert list(trace.calls("vae_decoder")) == ["final", "final-image2"]
    assert {"latents/initial", "latents/initial-image2"} <= set(trace)


def test_a_saved_trace_of_a_release_is_read_back(tmp_path: Path, backend) -> None:  # type: ignore[no-untyped-def]
    _, trace = drawn("python==0.4.0", Request("txt2img", PROMPT, steps=2), backend)
    trace.save(tmp_path / "trace.npz")
    again = Trace.load(tmp_path / "trace.npz")
    assert list(again) == list(trace)
    assert again.components == trace.components


def test_a_trace_that_lacks_a_networks_inputs_says_so(tmp_path: Path, backend) -> None:  # type: ignore[no-untyped-def]
    _, trace = drawn("diffusers", Request("txt2img", PROMPT, steps=2), backend)
    trace.save(tmp_path / "trace.npz", ["latents/initial", "unet/step00/noise_pred", "unet/step00/sample", "image"])
    chosen = Trace.load(tmp_path / "trace.npz")
    with pytest.raises(FormatError, match="no unet/step00/timestep: without its inputs"):
        chosen.calls("unet")
    assert chosen.calls("text_encoder") == {}
