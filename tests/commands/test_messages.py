"""What is said where a terminal, a disk or an installation is not as usual: one line, and never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from parity import cli
from parity.suite.goldens import store
from tests.commands.bad_input import POINTER, good_package
from tests.suite.goldens.drawn import asked, trace

START = "from parity.cli import main; raise SystemExit(main())"
ABSENT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "coremltools":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "coremltools" else found(name, package)
"""


def parity(*words: str, before: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", before + START, *words]
    return subprocess.run(command, capture_output=True, env={**os.environ, **environment}, timeout=300, check=False)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(good_package(tmp_path_factory.mktemp("good")))


@pytest.mark.long
@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
    ids=["ascii", "the C locale"],
)
def test_a_terminal_without_unicode_shows_plain_characters(package: str, environment: dict[str, str]) -> None:
    done = parity("mil", "show", package, "--stats", **environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"array fp16 2x4x8x8" in done.stdout
    done = parity("inspect", package, **environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"--+--" in done.stdout
    done = parity("inspect", package, "--json", **environment)
    assert "×" not in done.stdout.decode("ascii")
    assert json.loads(done.stdout)["document"] == "inspect"


def test_a_name_that_is_no_text_is_named_byte_for_byte(tmp_path: Path) -> None:
    name = b"na\xffme"
    done = parity("inspect", os.fsdecode(name))
    assert (done.returncode, done.stderr) == (2, b"parity inspect: na\xffme: no such file or folder\n")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["latents", "--seed", "1e5"], "parity latents: argument --seed: '1e5': expected an integer"),
        (["latents", "--shape", "1,4,x"], "parity latents: argument --shape: "),
        (["inspect"], "parity inspect: the following arguments are required: PATH; see parity inspect --help"),
        (["mil", "show", "a", "--colour"], "parity: unrecognized arguments: --colour; see parity --help"),
        (["golden", "list", "--only", "old"], "parity golden list: argument --only: invalid choice: 'old'"),
        (["inspct"], "parity: argument COMMAND: invalid choice: 'inspct'"),
    ],
)
def test_wrong_arguments_are_one_line(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    captured = capsys.readouterr()
    assert (ended.value.code, captured.out, captured.err.count("\n")) == (2, "", 1)
    assert captured.err.startswith(says)


def test_what_cannot_be_written_is_named_as_the_user_wrote_it(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--rng", "numpy-legacy", "--seed", "1", "--shape", "1,4,8,8"]
    assert cli.main(["latents", *words, "-o", "/proc/nowhere.npy"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""  # nothing is told of what was not written
    assert captured.err.startswith("parity latents: /proc/nowhere.npy: ")


def test_an_interruption_while_a_command_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("importlib.import_module", interrupted)
    assert cli.main(["run"]) == 130
    assert capsys.readouterr().err == "parity run: interrupted\n"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.npy", ["latents", "--compare", "a.npy", "a.npy"]),
        ("a.safetensors", ["latents", "--compare", "a.safetensors", "a.safetensors"]),
        ("a.npz", ["mil", "compare", "PACKAGE", "--inputs", "a.npz"]),
        ("run/ledger.jsonl", ["report", "run"]),
        ("model.safetensors", ["convert", "model.safetensors", "-o", "out"]),
        ("GOLDEN/trace.npz", ["golden", "show", "org"]),
        ("GOLDEN/image.png", ["golden", "diff", "org", "org"]),
        ("cases.toml", ["run", "--cases", "cases.toml"]),
        ("bounds.toml", ["run", "--tolerances", "bounds.toml"]),
        ("report.json", ["run", "--earlier", "report.json"]),
        ("golden/approvals.jsonl", ["golden", "list"]),
        ("GOLDEN/provenance.json", ["golden", "show", "org"]),
    ],
)
def test_a_pointer_is_recognised_whatever_it_stands_for(
    name: str,
    words: list[str],
    package: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    golden = store.write(Path("golden"), asked(), trace())
    path = Path(name.replace("GOLDEN", str(golden.folder)))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(POINTER, encoding="utf-8")
    assert cli.main([word.replace("PACKAGE", package) for word in words]) == 2
    captured = capsys.readouterr()
    says = f"parity {words[0]}: {path}: it is a git-lfs pointer, not the file of 1,719,117 bytes; run `git lfs pull`\n"
    assert (captured.out, captured.err) == ("", says)


@pytest.mark.parametrize(
    "words",
    [
        ["calibrate", "-o", "/proc/nowhere/table.toml"],
        ["calibrate", "-o", "OUT/table.toml", "--samples", "/proc/nowhere/samples"],
        ["gate", "--model-version", "tiny-sd", "-o", "/proc/nowhere"],
        ["convert", "tiny-sd", "--analyse-bits", "/proc/nowhere/bits.json"],
    ],
    ids=" ".join,
)
def test_an_unwritable_place_is_found_before_anything_is_measured(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([word.replace("OUT", str(tmp_path)) for word in words]) == 2
    (*_, message) = capsys.readouterr().err.splitlines()
    assert "/proc/nowhere: cannot be written" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_without_coremltools_commands_say_so_and_others_work() -> None:
    for words in (["mil", "operators"], ["convert", "tiny-sd", "-o", "out"], ["run"], ["bench", "--published"]):
        done = parity(*words, before=ABSENT)
        assert done.returncode == 2, words
        assert done.stderr.startswith(f"parity {words[0]}: coremltools is not installed".encode())
        assert done.stderr.count(b"\n") == 1
    for words in (["latents", "--detect", "--json"], ["cache", "list", "--json"], ["history", "show", "--help"]):
        assert parity(*words, before=ABSENT).returncode == 0, words


@pytest.mark.long
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_is_said() -> None:
    command = [sys.executable, "-c", START, "latents", "--detect"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (2, b"parity latents: No space left on device\n")
