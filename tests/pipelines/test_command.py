"""The Swift command line as a producer: arguments and file names of each tag, failures, and whole cells."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from parity import assets, convert, recipes
from parity.errors import MissingError, UnsupportedError, UsageError
from parity.models.model import Model
from parity.pipelines import command
from parity.pipelines.command import Setting, SwiftCommand
from parity.pipelines.producer import producer
from parity.pipelines.request import Request
from parity.pipelines.settings import ConsumerFailureError
from parity.suite import plan
from parity.suite.options import read
from parity.suite.run import Run
from tests.pipelines import stand_in

PICTURE = assets.fixtures() / "pictures" / "start.png"
PLAIN = Request("txt2img", "a red circle", steps=4)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """An executable file that runs the stand-in."""
    path = tmp_path / command.PRODUCT
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{stand_in.__file__}" "$@"\n')
    path.chmod(0o755)
    return path


@pytest.fixture
def setting(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setting:
    monkeypatch.setenv("STAND_IN_PICTURE", str(PICTURE))
    resources, scratch = tmp_path / "Resources", tmp_path / "out"
    resources.mkdir()
    scratch.mkdir()
    return Setting((str(program),), "CPU_AND_NE", resources, scratch)


def swift(version: str) -> SwiftCommand:
    who = producer(f"swift-command=={version}" if version != "main" else "swift-command")
    assert isinstance(who, SwiftCommand)
    return who


def draw(version: str, request: Request, setting: Setting, *, seed: int = 7) -> np.ndarray:
    who = swift(version)
    assert who.refusal(request) == ""
    return who.pictures(request, Model("tiny-sd"), seed=seed, rng=who.stream("numpy-legacy"), setting=setting)


def requests(version: str) -> list[Request]:
    """What a tag can be asked, odd texts among it."""
    found = [PLAIN, replace(PLAIN, prompt="-- --seed=5 -x"), replace(PLAIN, images=2), replace(PLAIN, prompt="x " * 60)]
    if version == "0.1.0":
        return found
    found += [replace(PLAIN, negative_prompt="-blurry", guidance_scale=3.25, scheduler="dpm++")]
    if version != "0.2.0":
        found += [replace(PLAIN, task="img2img", image=PICTURE, strength=0.5, images=images) for images in (1, 2)]
    return found


@pytest.mark.parametrize("version", stand_in.TAGS)
def test_every_tag_takes_the_arguments_and_its_pictures_are_found(
    version: str, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_TAG", version)
    expected = np.asarray(Image.open(PICTURE).convert("RGB"))
    for request in requests(version):
        drawn = draw(version, request, setting)
        assert drawn.shape == (request.images, 128, 128, 3)
        assert np.array_equal(drawn[0], expected)
        for file in setting.scratch.iterdir():
            file.unlink()


def test_a_release_is_not_asked_for_what_it_has_not() -> None:
    assert "no --guidance-scale; it always takes 7.5" in swift("0.1.0").refusal(replace(PLAIN, guidance_scale=5.0))
    assert "no --negative-prompt" in swift("0.1.0").refusal(replace(PLAIN, negative_prompt="x"))
    assert "has no scheduler dpm++" in swift("0.1.0").refusal(replace(PLAIN, scheduler="dpm++"))
    assert "has no task img2img" in swift("0.2.0").refusal(replace(PLAIN, task="img2img", image=PICTURE))
    assert "names its pictures after the prompt" in swift("1.1.0").refusal(replace(PLAIN, prompt="../../x"))


def test_the_starting_image_is_given_at_the_models_size(setting: Setting, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    Image.open(PICTURE).convert("RGB").resize((200, 200)).save(large)
    draw("1.1.0", replace(PLAIN, task="img2img", image=large), setting)
    assert Image.open(setting.scratch / "starting-image.png").size == (128, 128)
    draw("1.1.0", replace(PLAIN, task="img2img", image=PICTURE), setting)
    given = np.asarray(Image.open(setting.scratch / "starting-image.png"))
    assert np.array_equal(given, np.asarray(Image.open(PICTURE).convert("RGB")))  # eight bits stay what they are


@pytest.mark.parametrize(
    ("fails", "kind", "says"),
    [
        ("crash", ConsumerFailureError, r"the process crashes \(SIGTRAP\)"),
        ("thrown", ConsumerFailureError, "Error: startingImageProvidedWithoutEncoder"),
        ("unsafe", ConsumerFailureError, "no a_red_circle.7.final.png: Image 0 failed safety check and was not saved"),
        ("old", UnsupportedError, "'Unsupported OS'"),
    ],
)
def test_failures_are_what_its_user_sees(
    fails: str, kind: type[Exception], says: str, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_FAILS", fails)
    with pytest.raises(kind, match=says):
        draw("1.1.0", PLAIN, setting)


def test_a_command_of_another_tag_is_named(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_TAG", "0.1.0")
    with pytest.raises(UsageError, match=r"does not take the arguments of that release \(Error: Unknown option '--n"):
        draw("1.1.0", PLAIN, setting)


def test_what_is_no_command(tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command.program(program) == [str(program)]
    program.chmod(0o644)
    with pytest.raises(UsageError, match="cannot be executed"):
        command.program(program)
    package = tmp_path / "ml-stable-diffusion"
    package.mkdir()
    with pytest.raises(MissingError, match=r"no Package.swift"):
        command.program(package)
    (package / "Package.swift").write_text("")
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    with pytest.raises(MissingError, match="no swift on this machine's PATH"):
        command.program(package)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "swift").write_text("#!/bin/sh\n")
    (tmp_path / "none" / "swift").chmod(0o755)
    assert command.program(package) == [
        *("swift", "run", "-c", "release", "--package-path", str(package)),
        "StableDiffusionSample",
    ]
    built = package / ".build" / "release" / "StableDiffusionSample"
    built.parent.mkdir(parents=True)
    built.write_text("")
    assert command.program(package) == [str(built)]


CASES = '[[case]]\nname = "red"\ntask = "txt2img"\nprompt = "a red circle"\nsteps = 3\nrng = "numpy-legacy"\n'


@pytest.mark.long
def test_a_cell_passes_with_the_releases_picture_and_fails_with_another(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    packages = convert.cached(str(recipes.build("tiny-sd")), components=("text_encoder", "unet", "vae_decoder"))
    for path in packages.values():
        (models / path.name).symlink_to(path)
    resources = models / "Resources"
    resources.mkdir()
    (tmp_path / "cases.toml").write_text(CASES)
    given = {
        "model_version": "tiny-sd",
        "models": str(models),
        "cases": str(tmp_path / "cases.toml"),
        "producers": ["swift-command==1.1.0"],
        "compute_unit": ["CPU_AND_NE"],
    }
    (unasked,) = Run(read(given)).ask_all(plan.cells(read(given)))
    assert "--swift-package DIR says where" in unasked["checks"][0]["message"]
    options = read({**given, "swift_package": str(program)})
    (cell,) = plan.cells(options)
    assert cell.id == "picture/red/swift-command==1.1.0/coreml:CPU_AND_NE"
    run = Run(options)
    (unready,) = run.ask_all([cell])
    assert unready["verdict"] == "unknown"
    assert "needs compiled models (.mlmodelc) beside vocab.json and merges.txt" in unready["checks"][0]["message"]
    (resources / "merges.txt").write_text("")
    (resources / "Unet.mlmodelc").mkdir()
    played = tmp_path / "played.png"
    from parity.backends.pytorch import TorchBackend

    who, model = producer("swift==1.1.0"), Model("tiny-sd")
    trace: dict[str, np.ndarray] = {}
    backend = TorchBackend(model.location)
    who.draw(cell.case.request, model, backend, seed=93, rng="swift-numpy", observe=trace.__setitem__)
    Image.fromarray(trace["image"][0]).save(played)
    monkeypatch.setenv("STAND_IN_TAG", "1.1.0")
    monkeypatch.setenv("STAND_IN_PICTURE", str(played))
    (record,) = run.ask_all([cell])
    assert record["verdict"] == "pass", record["explanation"]
    assert any("not verified on hardware" in text for text in record["remarks"])
    Image.fromarray(255 - trace["image"][0]).save(played)
    (record,) = run.ask_all([cell])
    assert record["verdict"] == "fail"
    assert record["checks"][record["decisive"]]["point"] == "image"
