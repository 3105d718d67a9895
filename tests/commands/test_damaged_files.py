"""10,000 damaged files through the commands: an answer or one sentence, never a traceback, a hang, or another's file.

Each kind of file starts from a real one and is damaged at random: bytes set, cut, repeated, numbers replaced by extreme
ones, and paths by those that lead out. What the process opens meanwhile is watched by an audit hook.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import signal
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from parity import assets, cli
from parity.cache import root as cache_root
from tests.commands.bad_input import good_package
from tests.contracts.test_compiled import compiled
from tests.runs import records

pytestmark = pytest.mark.slow

LIMIT = 5  # seconds of computing: a machine that is busy with other things is no hang
PATIENCE = 60  # seconds of waiting, in which not even a busy machine needs so long
_EXTREME = (
    b"0",
    b"-1",
    b"1e999",
    b"NaN",
    b"4294967296",
    b"9223372036854775808",
    b"\xff" * 8,
    b"\0" * 8,
    b"../../../etc/passwd",
)

Kind = tuple[int, Callable[[Path, Path], Path], Callable[[Path], list[list[str]]]]


def _package(scratch: Path, good: Path) -> Path:
    target = scratch / good.name
    shutil.copytree(good, target)
    return target


def _compiled(scratch: Path, good: Path) -> Path:
    return compiled(good, scratch / "Unet.mlmodelc")


def _zip(scratch: Path, good: Path) -> Path:
    return Path(shutil.copy(assets.fixtures() / "eras" / "9.0" / "models.zip", scratch / "models.zip"))


def _cases(scratch: Path, good: Path) -> Path:
    return Path(shutil.copy(Path(cli.__file__).parent / "suite" / "cases.toml", scratch / "cases.toml"))


def _tables(scratch: Path, good: Path) -> Path:
    tables = Path(cli.__file__).parent / "contracts" / "tables" / "platforms.toml"
    text = tables.read_text(encoding="utf-8").replace('\nid = "', '\nid = "own-')
    (scratch / "own.toml").write_text(text, encoding="utf-8")
    _package(scratch, good)
    return scratch / "own.toml"


def _ledger(scratch: Path, good: Path) -> Path:
    return records.write(scratch / "run", [records.record(number) for number in range(6)], records.plan(6))


def _tensors(scratch: Path, good: Path) -> Path:
    save_file({"latents": np.arange(256, dtype=np.float32).reshape(1, 4, 8, 8)}, scratch / "a.safetensors")
    return scratch / "a.safetensors"


def _index(scratch: Path, good: Path) -> Path:
    folder = scratch / "model"
    for part in ("unet", "vae", "text_encoder", "scheduler"):
        (folder / part).mkdir(parents=True)
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        (folder / part / name).write_text(json.dumps({"sample_size": 8, "in_channels": 4, "hidden_size": 32}))
    classes = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "scheduler": "PNDMScheduler"}
    index = {"_class_name": "StableDiffusionPipeline", "text_encoder": ["transformers", "CLIPTextModel"]}
    index |= {part: ["diffusers", name] for part, name in classes.items()}
    (folder / "model_index.json").write_text(json.dumps(index, indent=1))
    return folder


KINDS: dict[str, Kind] = {
    "package": (2000, _package, lambda path: [["inspect", str(path)], ["mil", "show", str(path), "--stats"]]),
    "compiled model": (1500, _compiled, lambda path: [["inspect", str(path)], ["mil", "show", str(path), "--stats"]]),
    "archive": (500, _zip, lambda path: [["inspect", str(path)]]),
    "cases": (1500, _cases, lambda path: [["run", "--cases", str(path), "--only", "no such case"]]),
    "tables": (
        1500,
        _tables,
        lambda path: [["inspect", str(next(path.parent.glob("*.mlpackage"))), "--tables", str(path)]],
    ),
    "ledger": (1000, _ledger, lambda path: [["report", str(path)]]),
    "checkpoint": (1000, _index, lambda path: [["convert", str(path), "--components", "unet", "-o", f"{path}-out"]]),
    "safetensors": (1000, _tensors, lambda path: [["latents", "--compare", str(path), str(path)]]),
}


def damage(content: bytes, random: np.random.Generator) -> bytes:
    """Damage a file in one to four places."""
    data = bytearray(content)
    for _ in range(int(random.integers(1, 5))):
        place = int(random.integers(0, len(data) + 1))
        length = int(random.integers(1, 9))
        match int(random.integers(0, 5)):
            case 0:
                data[place : place + length] = random.bytes(length)
            case 1:
                del data[place : place + length * int(random.integers(1, 40))]
            case 2:
                data[place:place] = data[place : place + length * 8]
            case 3:
                data[place : place + length] = _EXTREME[int(random.integers(0, len(_EXTREME)))]
            case 4:
                data = data[:place] if random.random() < 0.3 else data
    return bytes(data)


@contextlib.contextmanager
def _opened(inside: Path) -> Iterator[list[str]]:
    """Collect the files that are opened outside a folder, the project's own and Python's."""
    project = Path(cli.__file__).parent.parent
    allowed = [inside, project, cache_root(), *(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib"))]
    allowed += [Path(sys.prefix), Path("/proc"), Path("/sys"), Path("/usr"), Path("/dev/null")]
    found: list[str] = []
    active = [True]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if active[0] and event == "open" and isinstance(arguments[0], str | bytes):
            path = Path(arguments[0].decode() if isinstance(arguments[0], bytes) else arguments[0])
            with contextlib.suppress(OSError, ValueError, RuntimeError):
                if not any(path.resolve().is_relative_to(folder.resolve()) for folder in allowed):
                    found.append(str(path))

    sys.addaudithook(hook)  # it cannot be removed
    yield found
    active[0] = False


@pytest.fixture(autouse=True)
def _scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files(kind: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    count, make, commands = KINDS[kind]
    good = good_package(tmp_path_factory.mktemp("good"))
    random = np.random.default_rng(20)
    source = make(tmp_path, good)
    files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    contents = {path: path.read_bytes() for path in files}
    signal.signal(signal.SIGALRM, _too_long)
    for words in commands(source):  # imports are paid here
        assert not _run(words, "undamaged", patience=0), "undamaged"
    wrong: list[str] = []
    with _opened(tmp_path) as outside:
        for number in range(count):
            victim = files[int(random.integers(0, len(files)))]
            victim.write_bytes(damage(contents[victim], random))
            for words in commands(source):
                wrong += _run(words, f"{kind} {number} ({victim.name}), parity {words[0]}")
            victim.write_bytes(contents[victim])
    assert not wrong, "\n".join(wrong[:20])
    assert not outside
    assert not list(tmp_path.glob("*-out"))


def test_there_are_ten_thousand() -> None:
    assert sum(count for count, _, _ in KINDS.values()) == 10_000


def _run(words: list[str], where: str, *, patience: int = PATIENCE) -> list[str]:
    said = io.StringIO()
    start = time.process_time()
    signal.alarm(patience)  # 0: never
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            code = cli.main(words)
    except Exception as error:  # a traceback for the user
        return [f"{where}: {type(error).__name__}: {error}"]
    finally:
        signal.alarm(0)
    taken = time.process_time() - start
    problems = [f"{where}: {taken:.1f} s"] if taken > LIMIT and patience else []
    if code == 2 and len(said.getvalue().strip().splitlines()) != 1:
        problems.append(f"{where}: says {said.getvalue()!r:.300}")
    return problems if code in (0, 1, 2) else [*problems, f"{where}: code {code}"]


def _too_long(*_: object) -> None:
    raise TimeoutError(f"more than {PATIENCE} s")
