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
                ('seed = [1, "2"]', "a whole number"),
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
            '[[case]]\nname = "a"\ntask = "txt2img"\nprompt = ["x", "x"]\n',
            FormatError,
            r'prompt = \["x", "x"\]: a list needs values, each once',
        ),
        ('[[case]]\nname = "a"\ntask = "txt2img"\nprompt = "x"\nsteps = []\n', FormatError, "needs values"),
        (
            '[[case]]\nname = "a"\ntask = "controlnet"\nprompt = "x"\ncontrol = [3]\n',
            FormatError,
            "a text or several is needed",
        ),
        (
            '[[case]]\nname = "a"\ntask = "txt2img"\nprompt = "x"\nsafety_checker = 1\n',
            FormatError,
            "true or false is needed",
        ),
        ('[[case]]\nname = "a"\ntask = "txt2img"\nprompt = "x"\nstrength = nan\n', FormatError, "a number is needed"),
        ("case = 5\n", FormatError, r"no \[\[case\]\]"),
        ('defaults = 5\n[[case]]\nname = "a"\n', FormatError, "defaults is a table"),
        ('[[case]]\nname = "a"\ntask = "txt2img"\nprompt = "x"\nrng = "dice"\n', UsageError, "no stream named 'dice'"),
        ('[[case]]\nname = "a"\ntask = "txt2img"\nprompt = "x"\n' * 2, FormatError, "two cases are named a"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says.replace('[1, "2"]', r'\[1, "2"\]')):
        case.load(write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"none\.toml"):
        case.load(tmp_path / "none.toml")


GRID = """
[[case]]
name = "grid"
task = "txt2img"
prompt = "x"
scheduler = ["ddim", "dpm++"]
guidance_scale = [0, 2.5]
steps = [1, 4]
seed = [3]
"""


def test_lists_multiply_into_a_grid(tmp_path: Path) -> None:
    found = case.load(write(tmp_path, GRID))
    assert len(found) == 8
    assert [each.name for each in found[:3]] == [
        "grid-ddim-guidance0-steps1",
        "grid-ddim-guidance0-steps4",
        "grid-ddim-guidance2.5-steps1",
    ]
    assert {(each.request.scheduler, each.request.guidance_scale, each.request.steps) for each in found} == {
        (scheduler, guidance, steps) for scheduler in ("ddim", "dpm++") for guidance in (0, 2.5) for steps in (1, 4)
    }
    assert {(each.grid, each.seed) for each in found} == {("grid", 3)}
    assert all(each.settings()["grid"] == "grid" for each in found)


def test_a_seed_of_the_command_line_takes_the_place_of_a_list(tmp_path: Path) -> None:
    path = write(tmp_path, GRID.replace("seed = [3]", "seed = [3, 4, 5]"))
    assert len(case.load(path)) == 24
    assert {each.seed for each in case.load(path, seed=7)} == {7}
    assert len(case.load(path, seed=7)) == 8


def test_several_control_images_are_one_case(tmp_path: Path) -> None:
    nets = 'control = ["p.png", "q.png"]\ncontrol_scale = [1, 0.5]\n'
    text = f'[[case]]\nname = "a"\ntask = "controlnet"\nprompt = "x"\n{nets}'
    (only,) = case.load(write(tmp_path, text))
    assert only.request.control == (tmp_path / "p.png", tmp_path / "q.png")
    assert only.settings()["control"] == ["p.png", "q.png"]
    assert only.settings()["control_scale"] == [1, 0.5]


def test_settings_of_old_tasks_are_those_of_old_goldens() -> None:
    keys = set(case.load()[0].settings())
    assert keys == {
        *("task", "prompt", "negative_prompt", "scheduler", "steps", "guidance_scale", "strength", "image", "images"),
        *("seed", "rng"),
    }
