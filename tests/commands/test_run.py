"""``parity run`` from outside: exit codes, one clear error each, nothing half-written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from parity import cli, convert, recipes
from parity.pipelines.trace import Trace
from parity.suite.options import DEFAULT_MODEL
from parity.suite.outcome import Outcome
from parity.suite.plan import Cell
from tests.commands.printed import checked

ROLES = ("reference", "candidate")


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = cli.main(["run", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Converted models in one folder, as a user has them."""
    folder = tmp_path_factory.mktemp("models")
    for path in convert.cached(str(recipes.find(DEFAULT_MODEL))).values():
        shutil.copytree(path, folder / path.name)
    return folder


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    path = tmp_path / "cases.toml"
    path.write_text('[[case]]\nname = "quick"\ntask = "txt2img"\nprompt = "a ring"\nscheduler = "ddim"\nsteps = 2\n')
    return path


@pytest.mark.long
def test_the_users_own_models_pass_and_are_reported(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, models: Path, cases: Path
) -> None:
    report = tmp_path / "out" / "report"
    night = tmp_path / "night"
    code, out, _ = run(
        capsys,
        *("--models", models, "--cases", cases, "--coreml-runtime", "reference", "--parity-report", report),
        *("--run-dir", night, "--traces"),
    )
    assert code == 0
    assert "1 pass, 0 fail, 0 unknown" in out
    traces = [Trace.load(night / "traces" / f"candidate-quick-coreml-reference.{role}.npz") for role in ROLES]
    assert list(traces[0]) == list(traces[1])
    assert traces[0]["latents/step01"].shape == traces[1]["latents/step01"].shape
    assert "nothing about Apple hardware" in " ".join(out.split())
    assert sorted(path.name for path in report.iterdir()) == ["index.html", "report.json"]
    (record,) = json.loads((report / "report.json").read_text())["records"]
    assert record["units"] == ["CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE", "ALL"]
    assert record["backend"].startswith("reference runtime")
    page = (report / "index.html").read_text()
    assert page.count("<img ") == 5  # reference, candidate, two maps, latents
    assert "http" not in page  # self-contained


@pytest.mark.long
def test_a_failure_exits_with_one_and_says_how_to_repeat_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, models: Path, cases: Path
) -> None:
    strict = tmp_path / "strict.toml"
    strict.write_text('[[tolerance]]\npoint = "unet"\nmetric = "tensor_psnr"\nbound = 500\nmeasured = "impossible"\n')
    code, out, err = run(
        capsys, "--models", models, "--cases", cases, "--coreml-runtime", "reference", "--tolerances", strict
    )
    assert code == 1
    assert "1 fail" in out
    assert "is below the bound 500.00 dB" in err
    assert f"reproduce: parity run --models {models}" in err
    assert err.rstrip().endswith("--cell candidate/quick/coreml:reference")


@pytest.mark.slow
def test_a_model_that_predicts_v_fails_by_its_timestep_embedding(capsys: pytest.CaptureFixture[str]) -> None:
    """The converter computes it in float16: the first step errs more than three times as much as half precision."""
    code, out, err = run(
        capsys,
        *("--model-version", "shapes-sd-v", "--only", "txt2img-ddim", "--compatibility", "none"),
        *("--coreml-runtime", "reference"),
    )
    assert code == 1
    assert "0 pass, 1 fail, 0 unknown" in out
    assert "unet/step00/noise_pred: tensor_psnr" in err
    assert "cause: the timestep embedding is computed in float16" in err


@pytest.mark.long
def test_a_model_folder_without_unet(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, models: Path, cases: Path
) -> None:
    folder = tmp_path / "no unet"
    shutil.copytree(models, folder)
    shutil.rmtree(next(folder.glob("*_unet.mlpackage")))
    report = tmp_path / "report"
    code, out, _ = run(
        capsys, "--models", folder, "--cases", cases, "--coreml-runtime", "reference", "--parity-report", report
    )
    assert code == 1  # nothing was decided
    assert "no unet in it" in " ".join(out.split())
    (record,) = json.loads((report / "report.json").read_text())["records"]
    verdicts = {check["point"]: check["verdict"] for check in record["checks"]}
    assert (verdicts["text_encoder"], verdicts["vae_decoder"], verdicts["unet"]) == ("pass", "pass", "unknown")


@pytest.mark.long
def test_damaged_weights_are_bad_input_and_the_others_are_judged(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, models: Path, cases: Path
) -> None:
    folder, report = tmp_path / "damaged", tmp_path / "report"
    shutil.copytree(models, folder)
    blob = next(folder.glob("*_unet.mlpackage")) / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
    blob.write_bytes(blob.read_bytes()[:5000])
    words = ("--models", folder, "--cases", cases, "--coreml-runtime", "reference")
    code, out, err = run(capsys, *words, "--parity-report", report, "--json")
    assert code == 2
    document = checked(out, "run")
    assert document["conclusion"]["exit_code"] == 2
    assert [record["verdict"] for record in document["records"]] == ["unknown"]
    assert err.count("parity run:") == 1
    assert str(next(folder.glob("*_unet.mlpackage"))) in err
    (record,) = json.loads((report / "report.json").read_text())["records"]
    assert {check["point"] for check in record["checks"] if check["verdict"] == "pass"} == {
        "text_encoder",
        "vae_decoder",
    }


@pytest.mark.slow
def test_the_reference_draws_at_the_size_of_the_models(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, cases: Path
) -> None:
    folder, report = tmp_path / "wide", tmp_path / "report"
    tiny = recipes.build("tiny-sd")
    sized = convert.cached(tiny, components=("unet", "vae_decoder", "vae_encoder"), height=128, width=192)
    for path in (*sized.values(), *convert.cached(tiny, components=("text_encoder",)).values()):
        shutil.copytree(path, folder / path.name)
    cases.write_text(
        cases.read_text().replace("a ring", "a red circle " * 40)
        + '[[case]]\nname = "from"\ntask = "img2img"\nprompt = "x"\nscheduler = "ddim"\nsteps = 2\nimage = "p.png"\n'
    )
    Image.new("RGB", (128, 192), "red").save(cases.parent / "p.png")
    code, out, _ = run(
        capsys,
        *("--model-version", "tiny-sd", "--models", folder, "--cases", cases),
        *("--coreml-runtime", "reference", "--parity-report", report, "--run-dir", tmp_path / "night"),
    )
    assert code in (0, 1)  # random weights in two steps: whether they agree is asked elsewhere
    text = " ".join(out.split())
    assert "0 unknown" in text
    assert "note (from): start picture p.png: 128x192, the models take 192x128: stretched" in text
    assert "note (quick): prompt: more than 77 tokens, cut before" in text
    records = json.loads((report / "report.json").read_text())["records"]
    told = [[text for text in record["remarks"] if "timestep embedding" not in text] for record in records]
    assert all(len(texts) == 1 for texts in told)
    assert "stretched" in (report / "index.html").read_text()
    for record in records:
        for role in ("reference", "candidate"):
            assert Image.open(tmp_path / "night" / "pictures" / f"{record['pictures'][role]}.png").size == (192, 128)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("tiny-inpaint", "it does inpaint, not txt2img"),
        ("shapes-ddpm", "shapes-ddpm is an unconditional model (a UNet2DModel, without texts): it does unconditional"),
    ],
)
def test_models_that_the_tasks_do_not_draw_with(
    capsys: pytest.CaptureFixture[str], cases: Path, model: str, says: str
) -> None:
    code, _, err = run(capsys, "--model-version", model, "--cases", cases)
    assert code == 2
    assert says in err
    assert err.count("parity run:") == 1


@pytest.mark.long
def test_models_without_an_encoder_leave_img2img_unknown_and_the_run_undecided(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, models: Path
) -> None:
    folder = tmp_path / "models"
    shutil.copytree(models, folder)
    shutil.rmtree(next(folder.glob("*_vae_encoder.mlpackage")))
    code, out, _ = run(
        capsys, "--models", folder, "--only", "img2img-ddim", "--seed", 1, "--coreml-runtime", "reference"
    )
    assert code == 1  # nothing was compared: not green
    assert "no vae_encoder in it" in " ".join(out.split())


@pytest.mark.long
def test_a_package_of_another_model(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, models: Path, cases: Path
) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(models, folder)
    unet, decoder = next(folder.glob("*_unet.mlpackage")), next(folder.glob("*_vae_decoder.mlpackage"))
    shutil.rmtree(decoder)
    shutil.copytree(unet, decoder)
    code, _, err = run(capsys, "--models", folder, "--cases", cases, "--coreml-runtime", "reference")
    assert code == 2
    assert decoder.name in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--compute-unit", "NPU"], "CPU_ONLY, CPU_AND_GPU"),
        (["--device", "tpu"], "cpu, mps, cuda"),
        (["--models", "/nowhere"], "no such file or folder"),
        (["--model-version", "./nowhere"], "no model_index.json"),
        (["--only", "nothing-like-this"], "no case has that in its name"),
        (["--cell", "golden/txt2img-dim"], "did you mean golden/txt2img-ddim"),
        (["--cell", "golden/txt2img-ddim", "--only", "img2img"], "none of the cells named by --cell"),
        (["--rng", "dice", "--only", "txt2img"], "no stream named 'dice'"),
        (["--golden-candidates"], "--golden-candidates needs --golden-dir"),
        (["--expected", "none.toml"], "no such file or folder"),
    ],
)
def test_bad_input_exits_with_two_and_one_message(
    capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert says in err
    assert err.count("parity run:") == 1


def test_an_unknown_scheduler_in_a_users_case(capsys: pytest.CaptureFixture[str], cases: Path) -> None:
    cases.write_text(cases.read_text().replace("ddim", "plms"))
    code, _, err = run(capsys, "--cases", cases)
    assert (code, "no scheduler named 'plms'" in err) == (2, True)


@pytest.mark.skipif(sys.platform == "darwin", reason="on macOS the native runtime is there")
def test_the_native_runtime_here_is_unknown_not_green(capsys: pytest.CaptureFixture[str], cases: Path) -> None:
    code, out, _ = run(capsys, "--cases", cases, "--coreml-runtime", "native", "--compute-unit", "CPU_AND_NE")
    assert code == 1
    assert "1 unknown" in out


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "darwin", reason="on macOS the native runtime is there")
def test_goldens_alone_do_not_make_a_pass_of_a_run_without_candidates(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--coreml-runtime", "native", "--compatibility", "none", "--only", "txt2img-ddim")
    assert "1 pass, 0 fail, 4 unknown" in out
    assert code == 1
    assert "parity run: no candidate was compared, 4 unknown; what was decided beside them (golden) says nothing" in err
    code, out, err = run(capsys, "--cell", "golden/txt2img-ddim")
    assert (code, err.strip()) == (0, "")  # nothing else was asked
    assert "1 pass, 0 fail, 0 unknown" in out


@pytest.mark.long
def test_a_case_that_cannot_be_asked_costs_no_other(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, cases: Path
) -> None:
    broken = '[[case]]\nname = "broken"\ntask = "img2img"\nprompt = "x"\nimage = "none.png"\nsteps = 2\n'
    cases.write_text(broken + cases.read_text())
    report = tmp_path / "report"
    code, out, err = run(capsys, "--cases", cases, "--coreml-runtime", "reference", "--parity-report", report)
    assert code == 2
    assert "1 pass, 0 fail, 1 unknown" in out
    text = " ".join(out.split())
    assert "bad input (1): not compared:" in text
    assert "parity run: bad input: 1 of 2 cells could not be compared as asked\n  not compared: " in err
    assert err.rstrip().endswith("none.png: no such picture")
    document = json.loads((report / "report.json").read_text())
    assert document["conclusion"]["exit_code"] == 2
    assert {record["id"]: record["verdict"] for record in document["records"]} == {
        "candidate/broken/coreml:reference": "unknown",
        "candidate/quick/coreml:reference": "pass",
    }
    page = (report / "index.html").read_text()
    assert "bad input: 1 of 2 cells could not be compared as asked" in page
    assert "unknown: bad input" in page


@pytest.mark.long
def test_after_an_interruption_what_is_finished_is_shown_and_reported(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, cases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from parity.suite.evaluate import Evaluator

    evaluate = Evaluator.evaluate
    cases.write_text(cases.read_text() + cases.read_text().replace('"quick"', '"late"'))

    def interrupted(self: Evaluator, cell: Cell) -> Outcome:
        if cell.case.name == "late":
            raise KeyboardInterrupt
        return evaluate(self, cell)

    monkeypatch.setattr(Evaluator, "evaluate", interrupted)
    report = tmp_path / "report"
    code, out, err = run(capsys, "--cases", cases, "--coreml-runtime", "reference", "--parity-report", report)
    assert code == 130
    assert "1 pass, 0 fail, 1 unknown" in out
    assert err.strip() == "parity run: interrupted: 1 of 2 cells were not asked"
    records = {record["case"]: record for record in json.loads((report / "report.json").read_text())["records"]}
    assert (records["quick"]["verdict"], records["late"]["asked"]) == ("pass", False)
    assert "interrupted: 1 of 2 cells" in (report / "index.html").read_text()


def test_help_imports_neither_torch_nor_coremltools() -> None:
    script = (
        "import sys; from parity import cli\n"
        "try: cli.main(['run', '--help'])\n"
        "except SystemExit: pass\n"
        "print('LOADED', sorted({'torch', 'diffusers', 'coremltools', 'transformers'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "--compute-unit" in shown
    assert shown.rstrip().endswith("LOADED []")
