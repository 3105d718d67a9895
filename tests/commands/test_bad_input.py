"""Whatever is handed to a command by mistake: one sentence on stderr, exit code 2, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from parity import cli
from tests.commands.bad_input import catalogue, good_package

RUN = ["run", "--only", "txt2img-ddim", "--compatibility", "none"]

# command -> its arguments for one bad path, with a good package and a folder for its output
COMMANDS: dict[str, Callable[[str, str, str], list[str]]] = {
    "inspect": lambda bad, good, out: ["inspect", bad],
    "inspect --tables": lambda bad, good, out: ["inspect", good, "--tables", bad],
    "repair": lambda bad, good, out: ["repair", bad, "-o", f"{out}/repaired"],
    "diff A": lambda bad, good, out: ["diff", bad, good],
    "diff B": lambda bad, good, out: ["diff", good, bad],
    "convert": lambda bad, good, out: ["convert", bad, "-o", f"{out}/converted"],
    "run --cases": lambda bad, good, out: ["run", "--compatibility", "none", "--cases", bad],
    "run --tolerances": lambda bad, good, out: [*RUN, "--tolerances", bad],
    "report": lambda bad, good, out: ["report", bad, "-o", f"{out}/report"],
    "merge": lambda bad, good, out: ["merge", bad, good, "-o", f"{out}/merged"],
    "history add": lambda bad, good, out: ["history", "add", bad, "--db", f"{out}/history.sqlite"],
    "history show": lambda bad, good, out: ["history", "show", "--db", bad],
    "latents --compare": lambda bad, good, out: ["latents", "--compare", bad, bad],
    "mil show": lambda bad, good, out: ["mil", "show", bad],
    "mil profile": lambda bad, good, out: ["mil", "profile", bad],
}

# what is no bad input to a command, and why
FINE = {
    "mil show": {  # a program is readable without its weights
        "package: weights cut off",
        "package: no weights",
        "package: empty weights",
        "package: a pointer as weights",
    },
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return good_package(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory, good: Path) -> dict[str, str]:
    return catalogue(tmp_path_factory.mktemp("bad"), good)


@pytest.mark.parametrize("command", COMMANDS)
def test_bad_input_is_one_sentence_and_exit_code_two(
    command: str, good: Path, bad: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = []
    for what, path in bad.items():
        if what in FINE.get(command, ()):
            continue
        code = cli.main(COMMANDS[command](path, str(good), str(tmp_path)))
        message = capsys.readouterr().err.strip()
        left = [entry.name for entry in tmp_path.iterdir()]
        said = [line for line in message.splitlines() if not line.startswith("  ")]  # a command to run is indented
        if code != 2 or len(said) != 1 or left:
            wrong.append(f"{what}: code {code}, left {left}, says {message!r}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", "GOOD", "--html", "/proc/nowhere/page.html"],
        ["inspect", "GOOD", "--json", "/proc/nowhere/page.json"],
        ["convert", "tiny-sd", "-o", "/proc/nowhere"],
        [*RUN, "--parity-report", "/proc/nowhere"],
        [*RUN, "--run-dir", "/proc/nowhere"],
        ["latents", "--rng", "torch-cpu", "--seed", "1", "--shape", "1,4,8,8", "-o", "/proc/nowhere/noise.npy"],
        ["latents", "--rng", "torch-cpu", "--seed", "1", "--shape", "1,4,999999999,999999999", "-o", "OUT/noise.npy"],
        ["convert", "tiny-sd", "-o", "OUT/c", "--height", "80000000"],
        ["convert", "tiny-sd", "-o", "OUT/c", "--height", "-8"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_written_or_made_is_said_at_once(
    arguments: list[str], good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.replace("GOOD", str(good)).replace("OUT", str(tmp_path)) for word in arguments]
    assert cli.main(words) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith(f"parity {words[0]}: ")
    assert not list(tmp_path.iterdir())
