"""What ``--json`` prints is one document, and the schema that ``parity schema`` prints describes it."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parity import assets, cli
from parity.commands import documents, layouts
from tests.commands.bad_input import POINTER
from tests.commands.printed import checked
from tests.runs.records import plan, record, write

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of an old converter, noise, and a history of two nights."""
    folder = tmp_path_factory.mktemp("files")
    with zipfile.ZipFile(assets.fixtures() / "eras" / "6.1" / "models.zip") as archive:
        archive.extractall(folder / "models")
    shutil.copytree(next((folder / "models").rglob("*unet.mlpackage")), folder / "unet.mlpackage")
    np.save(folder / "a.npy", np.zeros((1, 4, 8, 8), np.float32))
    np.save(folder / "b.npy", np.ones((1, 4, 8, 8), np.float32))
    for night, verdict in enumerate(("pass", "fail")):
        write(folder / f"night{night}", [record(0), record(1, verdict)], plan(2, "M1"))
    assert cli.main(["history", "add", *(str(folder / f"night{n}") for n in (0, 1)), "--db", str(folder / "h")]) == 0
    return folder


@pytest.mark.parametrize(
    ("name", "words", "code"),
    [
        ("inspect", "inspect models", 0),
        ("diff", "diff unet.mlpackage unet.mlpackage", 0),
        ("repair", "repair models -o out --no-proof", 0),
        ("repair", "repair models --dry-run", 0),
        ("run", "report night1", 1),
        ("run", "report night1 --since night0", 1),
        ("history check", "history check --db h", 1),
        ("history show", "history show --db h", 0),
        ("bench estimate", "bench --models models/0.2.0 --coreml-runtime reference --estimate", 0),
        ("bench published", "bench --published", 0),
        ("history add", "history add night0 --db h2", 0),
        ("merge", "merge night0 night0 -o merged", 0),
        ("gate plan", "gate --plan", 0),
        ("latents", "latents --rng numpy-legacy --seed 93 --shape 1,4,8,8 -o c.npy", 0),
        ("latents compare", "latents --compare a.npy b.npy", 1),
        ("latents compare", "latents --compare a.npy a.npy", 0),
        ("latents detect", "latents --detect", 0),
        ("mil show", "mil show unet.mlpackage", 0),
        ("mil profile", "mil profile unet.mlpackage --repeats 1", 0),
        ("mil operators", "mil operators", 0),
        ("cache list", "cache list", 0),
        ("cache prune", "cache prune --all --dry-run", 0),
        ("doctor", "doctor --no-devices", None),
    ],
)
def test_what_is_printed_follows_its_schema(
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    words: str,
    code: int | None,
) -> None:
    monkeypatch.chdir(files)
    found = cli.main([*words.split(), "--json"])
    assert code is None or found == code
    checked(capsys.readouterr().out, name)


def test_no_estimate_leaves_out_what_is_damaged(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(files / "models" / "0.2.0", tmp_path / "models")
    blob = next(path for path in (tmp_path / "models").rglob("weight.bin") if "unet.mlpackage" in str(path))
    blob.write_text(POINTER)
    assert cli.main(["bench", "--models", str(tmp_path / "models"), "--coreml-runtime", "reference", "--estimate"]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert f"{blob}: it is a git-lfs pointer" in captured.err


def test_a_departure_follows_its_schema(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from parity import mil

    monkeypatch.chdir(files)
    (function,) = mil.load(Path("unet.mlpackage")).functions.values()
    given = {one.name: np.full(one.shape, 0.5, np.float16) for one in function.inputs}
    np.savez("inputs.npz", **given)  # type: ignore[arg-type]
    cli.main(["mil", "compare", "unet.mlpackage", "--inputs", "inputs.npz", "--json"])
    document = checked(capsys.readouterr().out, "mil compare")
    assert document["results"]


def test_a_program_is_data(files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What the listing says, operation by operation; one of them alone; counts alone."""
    monkeypatch.chdir(files)
    show = ["mil", "show", "unet.mlpackage"]
    assert cli.main(show) == 0
    text = capsys.readouterr().out
    assert cli.main([*show, "--json"]) == 0
    (function,) = checked(capsys.readouterr().out, "mil show")["functions"]
    listed = [line.split(" = ")[1].split("(")[0] for line in text.splitlines() if " = " in line and "%" in line]
    assert [one["operator"] for one in function["operations"]] == listed
    assert sum(function["operators"].values()) == len(listed)
    assert [feature["name"] for feature in function["outputs"]] == function["returns"] == ["noise_pred"]
    (last, dtype) = next(iter(function["operations"][-1]["outputs"].items()))
    assert f"%{last}: {dtype} = " in text
    assert cli.main([*show, "--op", last, "--json"]) == 0
    (alone,) = checked(capsys.readouterr().out, "mil show")["functions"]
    assert alone["operations"] == function["operations"][-1:]
    assert cli.main([*show, "--stats", "--json"]) == 0
    document = checked(capsys.readouterr().out, "mil show")
    assert document["functions"] == [{**function, "operations": []}]
    assert sum(one["bytes"] for one in function["weights"].values()) <= sum(
        one["bytes"] for one in document["files"].values()
    )
    assert cli.main([*show, "--op", "nothing", "--json"]) == 2


def test_every_document_is_listed_and_described_on_its_page(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
    assert cli.main(["schema"]) == 0
    said = capsys.readouterr().out
    for name in layouts.LAYOUTS:
        assert f"| `{name}` |" in page
        assert f"\n{name} " in f"\n{said}"
        assert cli.main(["schema", *name.split()]) == 0
        assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(layouts.schema(name)))
    assert cli.main(["schema", "ledger"]) == 0
    assert "a line of a parity ledger" in capsys.readouterr().out
    assert cli.main(["schema", "mil", "profil"]) == 2
    assert "no document 'mil profil'; did you mean mil profile?" in capsys.readouterr().err


def test_every_document_is_checked_as_a_command_printed_it() -> None:
    """By a test that runs the command: in the table above, or by ``checked(…, NAME)``."""
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    printed = set(re.findall(r'checked\([^\n]*"([a-z -]+)"\)|\n        \("([a-z -]+)", "', sources))
    assert set(layouts.LAYOUTS) - {name for pair in printed for name in pair} == set()


def test_every_command_that_reports_has_the_option_and_a_document() -> None:
    """And no document is without a command: each of these is printed by one."""
    with_option: set[str] = set()
    without: set[str] = set()

    def walk(parser: Any, name: str) -> None:
        for action in parser._actions:
            if hasattr(action, "choices") and isinstance(action.choices, dict):
                for word, command in action.choices.items():
                    walk(command, f"{name} {word}".strip())
                return
        has = any("--json" in action.option_strings for action in parser._actions)
        (with_option if has else without).add(name)

    walk(cli._parser(cli._ALL), "")
    assert without == {"schema"}  # which prints JSON anyway
    shared = {"report": "run", "fleet run": "run"}
    shared |= {f"golden {action}": "golden decisions" for action in ("approve", "reject", "migrate")}
    assert {shared.get(name, name) for name in with_option} <= set(layouts.LAYOUTS)
    starts = tuple(sorted({*with_option, *shared.values()}))
    assert [name for name in layouts.LAYOUTS if not name.startswith(starts)] == []


def test_numbers_that_json_has_not_are_texts() -> None:
    assert documents.plain({"loss": float("nan"), "at": (float("-inf"), 1)}) == {"loss": "nan", "at": ["-inf", 1]}
    with pytest.raises(TypeError, match="ndarray has no form in JSON"):
        documents.plain(np.zeros(3))
