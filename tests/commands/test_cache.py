"""``parity cache``: what it lists and removes is the project's own, inside the cache folder, and nothing else."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest

from parity import cache, cli
from parity.commands import cache as command

DAY = 86400.0
OLD, YOUNG = "0" * 20, "1" * 20


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with an old and a young package, a recipe, leftovers, and things of other people."""
    root = tmp_path / "cache"
    monkeypatch.setenv("PARITY_CACHE", str(root))
    make(root / "converted" / OLD / "old.mlpackage" / "weights.bin", 3000, days=40)
    make(root / "converted" / YOUNG / "young.mlpackage" / "weights.bin", 2000, days=1)
    make(root / "recipes" / f"tiny-sd-{OLD}" / "model_index.json", 100, days=10)
    make(root / "hashes" / OLD, 64, days=20)
    make(root / "converted" / ".program-abcd1234" / "half.bin", 500, days=3)
    make(root / "converted" / ".program-efgh5678" / "running.bin", 500, days=0)
    make(root / "converted" / "holiday pictures" / "beach.jpg", 10, days=400)
    make(root / "Documents" / OLD / "thesis.txt", 10, days=400)
    return root


def make(path: Path, size: int, *, days: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    when = time.time() - days * DAY
    kind = next(parent for parent in path.parents if parent.parent.name == "cache")
    for changed in (path, *(parent for parent in path.parents if parent.is_relative_to(kind))):
        os.utime(changed, (when, when))


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, object]]:
    assert cli.main(["cache", *arguments, "--json"]) == 0
    return {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["entries"]}


def test_entries_have_size_age_and_meaning(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    found = listed(capsys, "list")
    assert list(found) == [
        f"converted/{OLD}",
        f"hashes/{OLD}",
        f"recipes/tiny-sd-{OLD}",
        "converted/.program-abcd1234",
        f"converted/{YOUNG}",
    ]
    old = found[f"converted/{OLD}"]
    assert (old["bytes"], old["what"]) == (3000, "old.mlpackage")
    assert round(float(str(old["seconds"])) / DAY) == 40
    assert found[f"recipes/tiny-sd-{OLD}"]["what"] == "tiny-sd"
    assert found["converted/.program-abcd1234"]["kind"] == "leftover"


def test_a_dry_run_removes_nothing(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    before = sorted(root.rglob("*"))
    assert len(listed(capsys, "prune", "--all", "--dry-run")) == 5
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "gone"),
    [
        (["--older-than", "30d"], {f"converted/{OLD}"}),
        (["--older-than", "2w"], {f"converted/{OLD}", f"hashes/{OLD}"}),
        (["--max-size", "2.1KB"], {f"converted/{OLD}", f"hashes/{OLD}"}),
        (["--max-size", "0"], {f"converted/{OLD}", f"converted/{YOUNG}", f"hashes/{OLD}", f"recipes/tiny-sd-{OLD}"}),
        (["--all", "--kind", "hashes"], {f"hashes/{OLD}"}),
    ],
)
def test_prune_removes_by_age_and_size(
    capsys: pytest.CaptureFixture[str], root: Path, options: list[str], gone: set[str]
) -> None:
    before = set(listed(capsys, "list"))
    removed = set(listed(capsys, "prune", *options))
    leftover = set() if "--kind" in options else {"converted/.program-abcd1234"}
    assert removed == gone | leftover
    assert set(listed(capsys, "list")) == before - removed


def test_what_is_not_the_projects_own_stays(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    listed(capsys, "prune", "--all")
    files = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    assert files == [
        f"Documents/{OLD}/thesis.txt",
        "converted/.program-efgh5678/running.bin",
        "converted/holiday pictures/beach.jpg",
    ]


def test_links_are_not_followed(capsys: pytest.CaptureFixture[str], root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside" / OLD
    outside.mkdir(parents=True)
    (outside / "kept.txt").write_text("kept")
    (root / "safety").symlink_to(outside.parent)  # a whole kind
    (root / "converted" / ("2" * 20)).symlink_to(outside)  # one entry
    (root / "converted" / OLD / "link").symlink_to(outside)  # inside an entry that goes
    os.utime(root / "converted" / OLD, (0, 0))
    removed = listed(capsys, "prune", "--all")
    assert f"converted/{OLD}" in removed
    assert (outside / "kept.txt").read_text() == "kept"
    assert not any("safety" in name or "2222" in name for name in removed)


def test_an_entry_that_is_being_made_is_kept(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    with cache.locked(root / "converted" / YOUNG):
        assert cli.main(["cache", "prune", "--all"]) == 1
    assert "another process is making it" in capsys.readouterr().err
    assert (root / "converted" / YOUNG / "young.mlpackage").is_dir()
    assert not (root / "converted" / OLD).exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "say what to remove"),
        (["--older-than", "soon"], "an age such as"),
        (["--max-size", "big"], "a size such as"),
        (["--max-size", "-1"], ""),
        (["--all", "--kind", "pictures"], "not known"),
    ],
)
def test_bad_options_end_with_2(capsys: pytest.CaptureFixture[str], root: Path, options: list[str], words: str) -> None:
    before = sorted(root.rglob("*"))
    try:
        code = cli.main(["cache", "prune", *options])
    except SystemExit as stop:  # argparse
        code = int(str(stop.code))
    assert code == 2
    assert words in capsys.readouterr().err
    assert sorted(root.rglob("*")) == before


def test_a_cache_that_does_not_exist_is_empty(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARITY_CACHE", str(tmp_path / "none"))
    assert listed(capsys, "list") == listed(capsys, "prune", "--all") == {}
    assert not (tmp_path / "none").exists()


def test_every_kind_that_the_project_writes_is_known() -> None:
    source = Path(command.__file__).parents[1]
    written = {
        kind
        for path in source.rglob("*.py")
        if path != Path(command.__file__) and path != Path(cache.__file__)
        for kind in re.findall(r"cache\.folder\(\s*\"(\w+)\"", path.read_text(encoding="utf-8"))
    }
    assert written == set(command.KINDS)
