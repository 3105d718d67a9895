"""What pages point at exists: files that links name, and commands and options that readers are told to type."""

from __future__ import annotations

import argparse
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from parity import __version__, cli

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.fixture(scope="module")
def parser() -> argparse.ArgumentParser:
    return cli._parser(cli._ALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands(page: Path, parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str]) -> None:
    for command in commands(page.read_text(encoding="utf-8")):
        program, *words = shlex.split(command, comments=True)
        if program == "parity":
            assert understood(parser, words), f"{page.name}: {command}\n{capsys.readouterr().err}"
        elif program == "make" and words:
            assert set(words) <= TARGETS, f"{page.name}: {command}"
        elif (
            program.startswith("python")
            and words[:1] == ["-m"]
            and words[1].partition(".")[0] in {"parity", "benchmarks"}
        ):
            assert importlib.util.find_spec(words[1]), f"{page.name}: {command}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_in_sentences(page: Path, parser: argparse.ArgumentParser) -> None:
    known = options(parser)
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for command in re.findall(r"`parity ([^`]+)`", text):
        name = command.split()[0]
        if name.startswith("-"):
            continue
        assert name in known, f"{page.name}: there is no `parity {name}`"
        for option in re.findall(r"(?<=\s)--?[a-z][a-z0-9-]*", command):
            assert option in known[name], f"{page.name}: `parity {command}`: {name} has no {option}"


def test_the_citation_names_this_version() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (\S+)$", text, re.MULTILINE) == [__version__]


def understood(parser: argparse.ArgumentParser, words: list[str]) -> bool:
    """Return whether the command line can be parsed."""
    try:
        parser.parse_args(words)
    except SystemExit as stop:
        return stop.code == 0
    return True


def commands(page: str) -> Iterator[str]:
    """Give the commands of a page's shell blocks, lines that go on joined."""
    for block in re.findall(r"^ *```sh\n(.*?)^ *```$", page, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            yield from (
                part for part in re.split(r"&&|\||;", line.strip()) if part.strip() and not part.startswith("#")
            )


def options(parser: argparse.ArgumentParser) -> dict[str, set[str]]:
    """Return the options of each command, those of its actions included."""
    found: dict[str, set[str]] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                inner = options(command)
                found[name] = {o for a in command._actions for o in a.option_strings}.union(*inner.values())
    return found
