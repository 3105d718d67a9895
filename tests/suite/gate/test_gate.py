"""The gate from prompts to verdict, over planted pictures; and what users can ask wrongly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from parity import cli
from parity.commands.layouts import SCHEMA
from parity.errors import MissingError, ParityError, UsageError
from parity.pipelines.request import Request
from parity.suite.case import Case
from parity.suite.gate import run, scores
from parity.suite.gate.run import Asked, Gate
from parity.suite.gate.scores import Score
from parity.suite.gate.statistics import Plan
from parity.suite.verdict import Verdict
from tests.commands.printed import checked


def planted(loss: float, spread: float = 0.0) -> run.Draw:
    """Return what draws plain pictures whose brightness is their quality; each seed's differs."""

    def draw(case: Case) -> np.ndarray:
        rng = np.random.default_rng(case.seed)
        level = 200 * (1 - loss + spread * rng.normal()) + 20 * rng.normal()
        return np.full((8, 8, 3), np.clip(level, 0, 255), np.uint8)

    return draw


def brightness(picture: np.ndarray, prompt: str, original: np.ndarray) -> float:
    return float(picture.mean())


def asked(score: Score, count: int = 64, seeds: int = 1) -> Asked:
    prompts = tuple(f"prompt {number}" for number in range(count))
    return Asked(prompts, seeds, Request("txt2img", ""), "torch-cpu", 0, score, Plan(count))


@pytest.mark.parametrize(("loss", "verdict"), [(0.0, Verdict.PASS), (0.06, Verdict.FAIL), (-0.06, Verdict.PASS)])
def test_a_planted_loss_is_found_and_its_absence_shown(loss: float, verdict: Verdict) -> None:
    said: list[str] = []
    gate = Gate(asked(Score("brightness", brightness)), planted(0.0), say=said.append)
    answer = gate.compare(planted(loss, 0.04))
    assert answer.finding.verdict is verdict
    assert answer.finding.loss == pytest.approx(loss, abs=0.015)
    assert len(said) == 1
    assert "the first 16 pairs spread by" in said[0]
    assert len(answer.worst) == 8
    lost = [float(a.mean()) - float(b.mean()) for _, a, b in answer.worst]
    assert lost == sorted(lost, reverse=True)


def test_the_original_is_drawn_once_for_all_candidates_and_seeds_are_averaged() -> None:
    drawn: list[int] = []

    def original(case: Case) -> np.ndarray:
        drawn.append(case.seed)
        return planted(0.0)(case)

    gate = Gate(asked(Score("brightness", brightness), 8, seeds=3), original)
    for _ in range(2):
        gate.compare(planted(0.0))
    assert drawn == list(range(24))


def test_a_score_that_compares_sees_the_original_also_where_another_base_draws() -> None:
    near = Score(
        "near", lambda picture, prompt, original: 100 - abs(float(original.mean()) - float(picture.mean())), True, 100
    )
    gate = Gate(asked(near, 16), planted(0.0))
    assert gate.compare(planted(0.0)).finding.first == 100  # the original beside itself
    beside = Gate(asked(near, 16), planted(0.0), planted(0.05)).compare(planted(0.05))
    assert beside.finding.loss == 0
    assert beside.finding.first == pytest.approx(90, abs=1)


def test_the_pilot_tells_how_many_prompts_it_takes() -> None:
    base = np.ones(16)
    text = run.pilot(base, base + np.tile([-0.2, 0.2], 8), Plan(64))
    assert "spread by 20.7%" in text
    assert text.endswith(f"for 0.90 it takes {Plan(64).needed(0.2 * 16 / np.sqrt(15 * 16))} prompts")
    with pytest.raises(UsageError, match="must be positive"):
        run.pilot(-base, base, Plan(64))


def test_scores_of_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    black, white = np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)
    found = scores.find("image_ssim")
    assert (found.compares, found.best, found(black, "", black)) == (True, 1.0, 1.0)
    assert found(white, "", black) < 0.1
    assert scores.find("ssimulacra2").best == 100
    shapes = scores.find("shapes")
    prompts = scores.shapes_prompts(64)
    assert len(set(prompts)) == 64
    from fixtures.shapes import caption, picture

    samples = {sample.caption: sample for sample in caption.prompts(64)}
    good = [shapes(picture.draw(samples[text].scene), text, black) for text in prompts[:8]]
    assert min(good) > 0.8  # what the prompt says, drawn as the training pictures are
    assert max(shapes(np.full((128, 128, 3), 77, np.uint8), text, black) for text in prompts[:8]) < 0.5
    monkeypatch.setattr(scores, "_MOST", 64)
    with pytest.raises(UsageError, match="is none of them"):
        shapes(black, "an oil painting of a fox", black)


SCORES = """
class Judge:
    @staticmethod
    def score(picture, prompt):
        return picture.mean() + len(prompt)

number = 3

def nan(picture, prompt):
    return float("nan")

def broken(picture, prompt):
    return 1 / 0
"""


def test_a_score_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_scores.py").write_text(SCORES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    grey = np.full((4, 4, 3), 10, np.uint8)
    assert scores.find("my_scores:Judge.score")(grey, "abc", grey) == 13
    with pytest.raises(UsageError, match="a function of picture and prompt"):
        scores.find("my_scores:number")
    with pytest.raises(UsageError, match="has no 'other'"):
        scores.find("my_scores:other")
    with pytest.raises(MissingError, match="cannot be imported: ModuleNotFoundError"):
        scores.find("no_such_module:score")
    with pytest.raises(ParityError, match="gives nan for prompt 'abc'; a finite number"):
        scores.find("my_scores:nan")(grey, "abc", grey)
    with pytest.raises(ParityError, match="stopped at prompt 'abc' by ZeroDivisionError"):
        scores.find("my_scores:broken")(grey, "abc", grey)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("image_psnr", "a finite best value is needed: "),
        ("flip_mean", "needed|not known"),
        ("shape", "did you mean shapes"),
        ("tensor_psnr", "a finite best value is needed"),
    ],
)
def test_scores_that_are_none(name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        scores.find(name)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--pictures", "4"], "between 8 and"),
        (["--margin", "3"], "a share between 0 and 1"),
        (["--score", "ssimulacra"], "did you mean ssimulacra2"),
        (["--model-version", "tiny-sd"], "--score is needed"),
        (["--model-version", "tiny-sd", "--score", "ssimulacra2"], "--prompts FILE is needed"),
        (["--prompts", "none.txt"], "no such file"),
        (["--prompts", "few.txt"], "2 different prompts, and 64 are asked for"),
        (["--prompts", "binary.txt"], "not a readable text file"),
        (["--seeds", "0"], "at least 1"),
        (["--rng", "dice"], "no such stream"),
        (["--backend", "cormel"], "cormel"),
        (["--models", "nowhere"], "no such file or folder"),
        (["--scheduler", "plms"], "no scheduler named"),
    ],
)
def test_bad_input_is_one_message(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("few.txt").write_text("a fox\n\na fox\na hen\n")
    Path("binary.txt").write_bytes(b"\xff\xfe\x00")
    assert cli.main(["gate", *words]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("parity gate:") == 1


def test_the_plan_is_stated_without_drawing(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["gate", "--plan", "--pictures", "128", "--model-version", "not/needed"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("128 prompts: ")
    assert "spread   5%: power 0.95" in out


@pytest.mark.long
def test_a_gate_from_the_command_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch as its own candidate draws the same pictures, so nothing is lost."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"{number} rings\n" for number in range(9)))
    words = ["--model-version", "tiny-sd", "--backend", "torch:cpu:float32", "--pictures", "8", "--steps", "2"]
    code = cli.main(
        ["gate", *words, "--prompts", str(prompts), "--score", "image_ssim", "-o", str(tmp_path / "out"), "--json"]
    )
    captured = capsys.readouterr()
    assert code == 0
    assert "pass: tiny-sd on PyTorch cpu float32: mean score 1 and 1, loss +0.00%" in captured.err
    document = json.loads((tmp_path / "out" / "gate.json").read_text())
    assert checked(captured.out, "gate") == {"document": "gate", "schema": SCHEMA, **document}
    (found,) = document["candidates"].values()
    assert document["base"] == "PyTorch cpu float32"
    assert (found["verdict"], len(found["candidate"]), found["base"]) == ("pass", 8, [1.0] * 8)
    assert (tmp_path / "out" / "worst-0.png").is_file()
