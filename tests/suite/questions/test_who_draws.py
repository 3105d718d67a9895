"""Cells in which an app's release draws: verdicts, the failing network, and two producers against each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from parity.errors import UsageError
from parity.suite import plan
from parity.suite.options import Options, read
from parity.suite.run import Run
from tests.suite.planting import TINY

CASES = """
[defaults]
prompt = "a photo of a red circle on a blue background"
negative_prompt = "blurry"
scheduler = "pndm"
steps = 4
rng = "numpy-legacy"

[[case]]
name = "text"
task = "txt2img"

[[case]]
name = "picture"
task = "img2img"
strength = 0.3  # the less noise, the more of what comes out is the encoder's own
image = "start.png"
"""


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    from parity import assets

    (tmp_path / "start.png").write_bytes((assets.fixtures() / "pictures" / "start.png").read_bytes())
    (tmp_path / "cases.toml").write_text(CASES)
    return tmp_path / "cases.toml"


def ask(**given: Any) -> dict[str, dict[str, Any]]:
    options = Options(model_version="tiny-sd", tolerances=TINY, **given)
    return {record["id"]: record for record in Run(options).ask_all(plan.cells(options))}


def points(record: dict[str, Any], verdict: str) -> list[str]:
    return list(dict.fromkeys(check["point"] for check in record["checks"] if check["verdict"] == verdict))


RELEASES = ("swift==0.2.0", "swift==0.3.0", "swift==0.4.0", "swift==1.1.0", "python==0.4.0")


@pytest.fixture(scope="module")
def old_models(tmp_path_factory: pytest.TempPathFactory, written: Callable[..., dict[str, Path]]) -> tuple[Path, Path]:
    """What 0.3.0 wrote, in a user's folder; and the same with one changed weight in the UNet."""
    from parity.suite.questions import releases
    from tests.suite.planting import changed as change

    models = written("0.3.0", "sd", "text_encoder", "unet", "vae_decoder", "vae_encoder")
    whole, planted = (tmp_path_factory.mktemp("old") / name for name in ("whole", "planted"))
    for folder in (whole, planted):
        folder.mkdir()
    releases.assemble(models, whole)
    changed = change(models["unet"], tmp_path_factory.mktemp("changed"), "time_embedding_linear_1_weight", 60.0)
    releases.assemble({**models, "unet": changed}, planted)
    return whole, planted


@pytest.mark.long
def test_old_models_as_five_releases(cases: Path, old_models: tuple[Path, Path]) -> None:
    found = ask(cases=cases, models=old_models[0], producers=RELEASES)
    verdicts = {
        name.removeprefix("candidate/").removesuffix("/coreml:reference"): r["verdict"] for name, r in found.items()
    }
    assert verdicts == {
        "text/swift==0.2.0": "pass",
        "text/swift==0.3.0": "pass",
        "text/swift==0.4.0": "pass",
        "text/swift==1.1.0": "pass",
        "text/python==0.4.0": "pass",
        "picture/swift==0.2.0": "unknown",  # it has no such task
        "picture/swift==0.3.0": "pass",  # its own encoder
        "picture/swift==0.4.0": "fail",  # crashes at nil input z
        "picture/swift==1.1.0": "fail",  # the encoder of five inputs is refused
        "picture/python==0.4.0": "unknown",
    }
    assert "no task img2img" in found["candidate/picture/python==0.4.0/coreml:reference"]["explanation"]
    new = found["candidate/picture/swift==1.1.0/coreml:reference"]
    assert points(new, "fail") == ["release"]
    assert "swift==1.1.0 fails: " in new["explanation"]
    assert points(new, "pass") == ["text_encoder", "unet", "vae_decoder"], "the other networks are judged all the same"
    own = found["candidate/picture/swift==0.3.0/coreml:reference"]
    assert "noising_encoder" in points(own, "pass")
    assert "--cell candidate/picture/swift==1.1.0" in new["reproduce"]


@pytest.mark.long
@pytest.mark.parametrize(
    "names", [RELEASES[-2:], pytest.param(RELEASES, marks=pytest.mark.slow)], ids=["one of each kind", "all"]
)
def test_old_models_with_a_changed_weight_name_the_network(
    cases: Path, old_models: tuple[Path, Path], names: tuple[str, ...]
) -> None:
    found = ask(cases=cases, models=old_models[1], producers=names)
    for name in names:
        record = found[f"candidate/text/{name}/coreml:reference"]
        assert record["verdict"] == "fail", name
        assert [point for point in points(record, "fail") if point != "image"] == ["unet"], name


@pytest.mark.long
def test_two_producers_with_one_seed(cases: Path) -> None:
    found = ask(cases=cases, producers=("swift==1.1.0", "swift==0.4.0"), against="diffusers")
    new, old = (found[f"producer/text/swift=={version}"] for version in ("1.1.0", "0.4.0"))
    assert new["verdict"] == "fail"
    assert (
        "swift==1.1.0 decodes the clean latents that its last step implies, not the last latents" in new["explanation"]
    )
    assert points(new, "pass") == ["latents/initial"], "the same noise"
    assert old["verdict"] == "pass", "PNDM of 0.4.0 is diffusers' without its first steps, and decodes the last latents"


def test_an_empty_negative_prompt_becomes_zeros_in_one_release(cases: Path) -> None:
    cases.write_text(CASES.replace('negative_prompt = "blurry"', ""))
    found = ask(cases=cases, producers=("python==1.1.0",), against="python==0.4.0")["producer/text/python==1.1.0"]
    assert "the texts that the UNet gets differ" in found["explanation"]
    assert "the negative prompt's text" not in found["explanation"], "encoded alike, and replaced afterwards"


@pytest.mark.long
def test_the_gap_between_an_app_and_diffusers_is_the_one_that_users_reported(tmp_path: Path) -> None:
    """A user's case, measured before this question could be asked here: 26.4 dB by PNDM, 33.8 dB by DPM-Solver++."""
    cases = tmp_path / "gap.toml"
    asked = {"prompt": "a large red circle on a white background", "steps": 20, "guidance_scale": 5.0}
    shared = "\n".join(
        f"{key} = {value!r}" for key, value in {"task": "txt2img", "rng": "numpy-legacy", **asked}.items()
    )
    rows = "".join(f'[[case]]\nname = "{name}"\nscheduler = "{name}"\n' for name in ("pndm", "dpm++"))
    cases.write_text(f"[defaults]\n{shared}\n{rows}")
    options = Options(cases=cases, producers=("swift==1.1.0",), against="diffusers")
    found = {record["case"]: record for record in Run(options).ask_all(plan.cells(options))}
    values = {name: record["checks"][record["decisive"]]["value"] for name, record in found.items()}
    assert values == pytest.approx({"pndm": 26.4, "dpm++": 33.85}, abs=0.1)
    estimate = "swift==1.1.0 decodes the clean latents that its last step implies"
    assert all(estimate in record["explanation"] for record in found.values())
    assert "timesteps: 941, 894, " in found["dpm++"]["explanation"]
    assert "999, 949, 899, 849, …, 100, 50 by swift==1.1.0" in found["dpm++"]["explanation"]
    assert "timesteps" not in found["pndm"]["explanation"]


@pytest.mark.long
def test_a_release_has_goldens_of_its_own(cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARITY_AUTHOR", "Ada")
    asked = {"cases": cases, "producers": ("swift==1.1.0", "diffusers"), "golden_dir": tmp_path / "golden"}
    cells = ("golden/text/swift==1.1.0", "golden/text")
    accepted = ask(**asked, cell=cells, update_golden=True)
    assert {record["verdict"] for record in accepted.values()} == {"unknown"}
    folders = {path.parents[1].name for path in (tmp_path / "golden").rglob("trace.npz")}
    assert folders == {"text-swift-numpy-93-as-swift-1.1.0", "text-numpy-legacy-93"}
    again = ask(**asked, cell=cells)
    assert {record["verdict"] for record in again.values()} == {"pass"}
    assert "golden/latents" in points(again[cells[0]], "pass")
    (record,) = tmp_path.glob("golden/tiny-sd/text-swift-numpy-93-as-swift-1.1.0/*/provenance.json")
    record.write_text(record.read_text().replace("swift==1.1.0", "swift==1.0.0"))
    (other,) = ask(**asked, cell=cells[:1]).values()
    assert "was made with producer 'swift==1.0.0', this run has 'swift==1.1.0'" in other["explanation"]
    assert other["verdict"] == "fail"


def test_a_producer_against_itself_is_the_same(cases: Path) -> None:
    found = ask(cases=cases, producers=("python==0.4.0",), against="python==1.0.0")
    assert found["producer/text/python==0.4.0"]["verdict"] == "pass"


@pytest.mark.long
def test_a_picture_drawn_elsewhere(cases: Path, tmp_path: Path) -> None:
    drawn = ask(cases=cases, producers=("swift==1.1.0",), against="swift==1.1.0")["producer/text/swift==1.1.0"]
    import base64

    right, other = tmp_path / "mine.png", tmp_path / "other.png"
    right.write_bytes(base64.b64decode(drawn["pictures"]["reference"]))
    same = ask(cases=cases, producers=("swift==1.1.0",), picture=right, cell=("picture/text/swift==1.1.0",))
    (record,) = same.values()
    assert record["verdict"] == "pass"
    assert record["sentence"].endswith("as in mine.png")
    Image.fromarray(np.random.RandomState(0).randint(0, 255, (128, 128, 3), np.uint8)).save(other)
    (record,) = ask(cases=cases, producers=("diffusers",), picture=other, cell=("picture/text",)).values()
    assert record["verdict"] == "fail"
    Image.new("RGB", (64, 128)).save(other)
    (record,) = ask(cases=cases, picture=other, cell=("picture/text",)).values()
    assert record["bad_input"]
    assert "1 picture of 64x128, and this case draws 1 picture of 128x128" in record["explanation"]


@pytest.mark.parametrize(("content", "message"), [(b"", "not a readable"), (b"\x93NUMPY", "not a readable .npy")])
def test_files_that_are_no_latents_are_named(cases: Path, tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "latents.npy"
    file.write_bytes(content)
    (record,) = ask(cases=cases, picture=file, cell=("picture/text",)).values()
    assert record["verdict"] == "unknown"
    assert message in record["bad_input"][0]


def test_latents_drawn_elsewhere(cases: Path, tmp_path: Path) -> None:
    file = tmp_path / "latents.npy"
    np.save(file, np.zeros((4, 16, 16), np.float16))
    (record,) = ask(cases=cases, picture=file, cell=("picture/text",)).values()
    assert points(record, "fail") == ["latents/final"]


def test_a_case_can_say_who_draws_it(tmp_path: Path) -> None:
    file = tmp_path / "cases.toml"
    file.write_text('[[case]]\nname = "a"\ntask = "txt2img"\nprompt = "x"\nas = "mochi==6.0"\n')
    (cell,) = plan.cells(Options(cases=file))
    assert cell.id == "candidate/a/mochi==6.0/coreml:reference"
    assert cell.case.rng == "swift-numpy"
    file.write_text('[[case]]\nname = "a"\ntask = "txt2img"\nprompt = "x"\nas = "moci==6.0"\n')
    with pytest.raises(UsageError, match=r"case a: no producer named 'moci==6[.]0'; did you mean mochi"):
        plan.cells(Options(cases=file))


def test_questions_that_exclude_each_other(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"")
    with pytest.raises(UsageError, match="ask one at a time"):
        read({"against": "diffusers", "picture": str(picture)})
    with pytest.raises(UsageError, match="--against compares what PyTorch computes; --device says where"):
        read({"against": "diffusers", "backend": ["coreml:reference"]})
