"""The log of decisions: appended to, never rewritten, and refused where it is damaged."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from parity.errors import FormatError, UsageError
from parity.suite.goldens import keys, log
from parity.suite.goldens.keys import Keys
from parity.suite.goldens.log import Decision
from tests.suite.goldens.drawn import NEURAL, TORCH

ONE = Decision(
    action="approve",
    golden="m/case-torch-cpu-93/0123456789ab",
    picture="a" * 64,
    tensors="b" * 64,
    author="Ada",
    time="2026-11-26T03:00:00Z",
    reason="looked at it: ✓",
    keys=TORCH,
    anchor="m/case-torch-cpu-93/0123456789ab",
)


def test_decisions_come_back_in_their_order_and_earlier_bytes_stay(tmp_path: Path) -> None:
    log.append(tmp_path, [ONE])
    before = (tmp_path / log.NAME).read_bytes()
    later = [replace(ONE, action="reject", reason="no"), replace(ONE, keys=NEURAL)]
    log.append(tmp_path, later)
    after = (tmp_path / log.NAME).read_bytes()
    assert after.startswith(before)
    assert log.read(tmp_path) == [ONE, *later]
    assert after.count(b"\n") == 3


def test_a_last_line_without_its_end_is_ended_first(tmp_path: Path) -> None:
    log.append(tmp_path, [ONE])
    path = tmp_path / log.NAME
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    log.append(tmp_path, [ONE])
    assert log.read(tmp_path) == [ONE, ONE]


def line(**changes: object) -> str:
    record = {"schema": 1, **{name: getattr(ONE, name) for name in Decision.__dataclass_fields__ if name != "keys"}}
    record["keys"] = {name: getattr(TORCH, name) for name in keys.NAMES}
    return json.dumps({**record, **changes})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not a decision"),
        ("[]", "an object is needed"),
        ("[" * 50_000, "nested too deeply"),
        ("3", "an object is needed"),
        (line(schema=2), "this release reads 1"),
        (line(action="delete"), "action must be one of"),
        (line(golden="../../etc/0123456789ab"), "golden must be MODEL/CASE/ID"),
        (line(golden="m/../0123456789ab"), "golden must be MODEL/CASE/ID"),
        (line(golden="/etc/passwd/0123456789ab"), "golden must be MODEL/CASE/ID"),
        (line(anchor="m/c/0123"), "anchor must be MODEL/CASE/ID"),
        (line(picture="A" * 64), "picture must be a SHA-256"),
        (line(author=""), "author must be a text"),
        (line(reason=None), "reason must be a text"),
        (line(keys=[]), "keys must be an object"),
        (line(keys={"backend": "*", "system": "*"}), "chip must be a text"),
        (line(reason="x" * 70_000), "longer than"),
        (line()[:-20], "not a decision"),
    ],
)
def test_a_damaged_line_is_named_and_nothing_is_added_behind_it(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / log.NAME
    path.write_text(f"{line()}\n{text}\n", encoding="utf-8")
    before = path.read_bytes()
    for attempt in (lambda: log.read(tmp_path), lambda: log.append(tmp_path, [ONE])):
        with pytest.raises(FormatError, match=rf"approvals\.jsonl: line 2: .*{says}"):
            attempt()
    assert path.read_bytes() == before


def test_fields_of_later_releases_are_let_be(tmp_path: Path) -> None:
    (tmp_path / log.NAME).write_text(line(signature="…") + "\n\n", encoding="utf-8")
    assert log.read(tmp_path) == [ONE]


def test_who_decides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(log.AUTHOR, raising=False)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    assert log.author()  # the login's name
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", "config", "user.name", "Grace"], check=True)
    subprocess.run(["git", "config", "user.email", "grace@example.org"], check=True)
    assert log.author() == "Grace <grace@example.org>"
    monkeypatch.setenv(log.AUTHOR, "Ada")
    assert log.author() == "Ada"
    assert log.author("Edsger") == "Edsger"
    monkeypatch.delenv(log.AUTHOR)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(UsageError, match="a person must be named"):
        log.author()


def test_keys_of_places() -> None:
    assert keys.changed(NEURAL, ["system=macOS *", "chip=*"]) == Keys(NEURAL.backend, "macOS *", "*")
    with pytest.raises(UsageError, match="did you mean system"):
        keys.changed(NEURAL, ["sytem=macOS *"])
    with pytest.raises(UsageError, match="KEY=PATTERN"):
        keys.changed(NEURAL, ["chip"])
    assert keys.default(NEURAL) == NEURAL
    assert keys.default(TORCH) == Keys("PyTorch * float32", "*", "*")
    place = keys.here("PyTorch cpu float32")
    assert place.backend == "PyTorch cpu float32"
    assert place.system
    assert place.chip
