"""The suite with Stable Diffusion 3: its own cases, converted models on the reference runtime, PyTorch, a release."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from parity import cli, convert, recipes
from parity.backends.coreml import CoreMLBackend
from parity.backends.pytorch import TorchBackend
from parity.convert.plan import SD3_COMPONENTS
from parity.errors import FormatError
from parity.metrics import measure
from parity.suite import case as cases
from parity.suite import defaults
from parity.suite.options import Options

QUICK = """
[[case]]
name = "flow"
task = "txt2img"
scheduler = "flow-euler"
steps = 3
guidance_scale = 5.0
prompt = "a red circle"
"""


@pytest.fixture(scope="module")
def models() -> dict[str, Path]:
    return convert.cached(recipes.build("tiny-sd3"), components=SD3_COMPONENTS)


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    file = tmp_path / "cases.toml"
    file.write_text(QUICK)
    return file


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = cli.main(["run", "--model-version", "tiny-sd3", "--compatibility", "none", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_cases_follow_the_family(tmp_path: Path) -> None:
    file = cases.SHIPPED / "sd3.toml"
    for model in ("tiny-sd3", str(recipes.build("tiny-sd3-t5"))):
        assert defaults.files(Options(model_version=model)) == [file]
    assert defaults.files(Options(model_version="tiny-sd")) == [None]
    assert defaults.files(Options(model_version="tiny-sd3", cases=tmp_path)) == [tmp_path]
    shipped = cases.load(file)
    assert {case.request.scheduler for case in shipped} == {"flow-euler", "flow-heun"}
    assert {case.request.task for case in shipped} == {"txt2img"}


@pytest.mark.long
def test_converted_models_draw_pytorchs_picture(
    capsys: pytest.CaptureFixture[str], quick: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    code, out, _ = run(capsys, "--cases", quick, "--parity-report", tmp_path / "report", "--parity-strict")
    assert code == 0, out
    (record,) = json.loads((tmp_path / "report" / "report.json").read_text())["records"]
    points = {check["point"].split("/")[0] for check in record["checks"]}
    assert points == {"latents", "text_encoder", "text_encoder_2", "mmdit", "vae_decoder", "image"}


@pytest.mark.long
def test_a_release_draws_it_and_older_ones_say_what_they_have(
    capsys: pytest.CaptureFixture[str], quick: Path, models: dict[str, Path]
) -> None:
    code, out, _ = run(capsys, "--cases", quick, "--as", "swift", "--parity-strict")
    assert code == 0, out
    assert "swift" in out
    code, out, _ = run(capsys, "--cases", quick, "--as", "swift==1.1.0")
    assert code == 1
    assert "no scheduler flow-euler" in out


def test_a_release_is_compared_with_diffusers(
    capsys: pytest.CaptureFixture[str], quick: Path, models: dict[str, Path]
) -> None:
    code, out, err = run(capsys, "--cases", quick, "--as", "swift", "--against", "diffusers", "--rng", "swift-numpy")
    assert code == 1
    assert "swift decodes the clean latents that its last step implies" in out + err
    assert "timesteps:" not in out + err, "both shift twice at the ends"


def test_t5_is_unknown_as_a_converted_model(capsys: pytest.CaptureFixture[str], quick: Path) -> None:
    code, out, _ = run(capsys, "--cases", quick, "--model-version", "tiny-sd3-t5")
    assert code == 1
    assert "T5 is not run as a converted model: no converter release writes one" in " ".join(out.split())


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_the_transformer_takes_any_batch(models: dict[str, Path], batch: int) -> None:
    rng = np.random.RandomState(batch)
    inputs = {
        "sample": rng.standard_normal((batch, 16, 8, 8)).astype(np.float32),
        "timestep": np.full(batch, 640.0, np.float32),
        "hidden": rng.standard_normal((batch, 154, 96)).astype(np.float32),
        "pooled": rng.standard_normal((batch, 80)).astype(np.float32),
    }
    candidate = CoreMLBackend(models, runtime="reference").component("mmdit")
    reference = TorchBackend(recipes.build("tiny-sd3")).component("mmdit")
    found, expected = candidate(inputs)["flow"], reference(inputs)["flow"]
    assert found.shape == (batch, 16, 8, 8)
    assert measure("tensor_psnr", expected, found) > 55


def test_packages_of_another_family_are_named(models: dict[str, Path]) -> None:
    wrong = CoreMLBackend({**models, "text_encoder": models["vae_decoder"]}, runtime="reference")
    with pytest.raises(FormatError, match="no output hidden_embeds; it has image"):
        wrong.component("text_encoder")


def test_what_the_family_does_not_have_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, models: dict[str, Path]
) -> None:
    for line, message in (
        ('scheduler = "ddim"', "'ddim' cannot step along a flow"),
        ("guidance_rescale = 0.5", "guidance_rescale: the pipeline of Stable Diffusion 3 has none"),
    ):
        file = tmp_path / "wrong.toml"
        text = QUICK if "scheduler" not in line else QUICK.replace('scheduler = "flow-euler"\n', "")
        file.write_text(f"{text}{line}\n")
        code, out, err = run(capsys, "--cases", file)
        assert code == 2, line
        assert message in out + err
