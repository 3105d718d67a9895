"""Cases are data; mistakes in them are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from parity.errors import FormatError, MissingError, UsageError
from parity.pipelines.producer import producer
from parity.pipelines.schedules.diffusers import Schedule
from parity.suite import case


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shipped_cases_cover_both_tasks_and_the_promised_schedulers() -> None:
    cases = case.load()
    assert {c.request.task for c in cases} == {"txt2img", "img2img"}
    assert {c.request.scheduler for c in cases} >= {"pndm", "ddim", "euler", "dpm++"}
    assert {c.rng for c in cases} >= {"torch-cpu", "numpy-legacy"}
    assert len({c.slug for c in cases}) == len(cases)
    assert all(c.request.image is None or c.request.image.is_file() for c in cases)


def test_seed_and_stream_of_the_command_line_replace_those_of_every_case() -> None:
    assert {(c.seed, c.rng) for c in case.load(seed=5, rng="numpy-legacy")} == {(5, "numpy-legacy")}


def test_defaults_and_relative_pictures(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '[defaults]\nprompt = "x"\nsteps = 3\n[[case]]\nname = "a"\ntask = "img2img"\nimage = "p.png"\nsteps = 4\n',
    )
    (only,) = case.load(path)
    assert only.request.image == tmp_path / "p.png"
    assert (only.request.prompt, only.request.steps, only.seed, only.rng) == ("x", 4, 93, "torch-cpu")
    assert only.sentence == "img2img with pndm, seed 93 of torch-cpu"


def test_a_schedulers_set_up_stands_beside_its_name(tmp_path: Path) -> None:
    lines = 'name = "a"\ntask = "txt2img"\nprompt = "x"\nscheduler = "dpm++"\n'
    more = 'sigmas = "karras"\nrescale_betas_zero_snr = true\nguidance_rescale = 0.7\n'
    (plain,) = case.load(write(tmp_path, f"[[case]]\n{lines}"))
    (only,) = case.load(write(tmp_path, f"[[case]]\n{lines}{more}"))
    assert only.request.schedule == Schedule(sigmas="karras", rescale_betas_zero_snr=True)
    assert only.sentence == "txt2img with dpm++ (sigmas karras, rescale_betas_zero_snr True), seed 93 of torch-cpu"
    added = {"sigmas": "karras", "rescale_betas_zero_snr": True, "guidance_rescale": 0.7}
    assert only.settings() == {**plain.settings(), **added}  # what is left alone says nothing: goldens stay valid


def test_a_release_has_its_own_schedule(tmp_path: Path) -> None:
    text = '[[case]]\nname = "a"\ntask = "txt2img"\nprompt = "x"\nscheduler = "dpm++"\nsigmas = "karras"\n'
    (only,) = case.load(write(tmp_path, text))
    assert (
        producer("swift==1.1.0").refusal(only.request)
        == "swift==1.1.0 takes no sigmas: the schedule and the layer are its own"
    )
    assert producer("diffusers").refusal(only.request) == ""


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("", FormatError, r"no \[\[case\]\]"),
        ("[[case]\n", FormatError, "line 1"),
        ('[[case]]\ntask = "txt2img"\nprompt = "x"\n', FormatError, "needs a name"),
        ('[[case]]\nname = "../up"\ntask = "txt2img"\nprompt = "x"\n', FormatError, "needs a name"),
        ('[[case]]\nname = "a"\ntask = "txt2img"\nprompt = "x"\nstep = 3\n', FormatError, "unknown step; known are"),
        ('[[case]]\nname = "a"\ntask = "txt2img"\n', FormatError, "prompt"),
        (
            '[[case]]\nname = "a"\ntask = "txt2img"\nprompt = "x"\nscheduler = "plms"\n',
            UsageError,
            "case a: no scheduler",
        ),
        *[
            (
                f'[[case]]\nname = "a"\ntask = "txt2img"\nprompt = "x"\n{line}\n',
                FormatError,
                f"case a: {line}: {needed}",
            )
            for line, needed in (
                ("seed = [1, 2]", "a whole number"),
                ("seed = true", "a whole number"),
                ("steps = 8.5", "a whole number"),
                ("rescale_betas_zero_snr = 1", "true or false"),
                ("images = 1.0", "a whole number"),
                ('guidance_scale = "7"', "a number"),
                ("negative_prompt = false", "a text"),
                ("image = 5", "a text"),
                ("rng = 7", "a text"),
                ("scheduler = {}", "a text"),
            )
        ],
        (
            '[[case]]\nname = "a"\ntask = "txt2img"\nprompt = ["x", "y"]\n',
            FormatError,
            r'prompt = \["x", "y"\]: a text',
        ),
        ('[[case]]\nname = "a"\ntask = "txt2img"\nprompt = "x"\nstrength = nan\n', FormatError, "a number is needed"),
        ("case = 5\n", FormatError, r"no \[\[case\]\]"),
        ('defaults = 5\n[[case]]\nname = "a"\n', FormatError, "defaults is a table"),
        ('[[case]]\nname = "a"\ntask = "txt2img"\nprompt = "x"\nrng = "dice"\n', UsageError, "no stream named 'dice'"),
        ('[[case]]\nname = "a"\ntask = "txt2img"\nprompt = "x"\n' * 2, FormatError, "two cases are named a"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says.replace("[1, 2]", r"\[1, 2\]")):
        case.load(write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"none\.toml"):
        case.load(tmp_path / "none.toml")
