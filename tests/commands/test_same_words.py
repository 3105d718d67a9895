"""One meaning, one word: options of all commands, side by side."""

from __future__ import annotations

import argparse
import re
from collections import defaultdict

from parity import cli

ONE_VALUE = {
    "--cases": "FILE",
    "--compute-unit": "UNIT",
    "--golden-dir": "DIR",
    "--json": None,
    "--model-version": "MODEL",
    "--models": "DIR",
    "--refiner": "MODEL",
    "--rng": "NAME",
    "--seed": "N",
    "--steps": "N",
    "--vae": "MODEL",
}
"""Options that stand for one thing wherever they are, and how their value is called."""


def commands() -> dict[str, list[argparse.Action]]:
    """Every command, or action of one, with its options and arguments."""
    found: dict[str, list[argparse.Action]] = {}

    def walk(parser: argparse.ArgumentParser, name: str) -> None:
        own = []
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for word, command in action.choices.items():
                    walk(command, f"{name} {word}".strip())
            else:
                own.append(action)
        found[name] = own

    walk(cli._parser(cli._ALL), "")
    return found


def test_an_option_has_one_kind_of_value_everywhere() -> None:
    values = defaultdict(set)
    for name, actions in commands().items():
        for action in actions:
            for word in action.option_strings:
                if word in ONE_VALUE and not (word == "--json" and name == "inspect"):  # this one takes a file, too
                    values[word].add(action.metavar)
    assert values == {word: {value} for word, value in ONE_VALUE.items()}


def test_what_is_written_is_named_by_o_and_output_everywhere() -> None:
    for name, actions in commands().items():
        for action in actions:
            words = set(action.option_strings)
            assert not words & {"-o", "--output"} or {"-o", "--output"} <= words, (name, words)


def test_every_option_says_what_it_does_and_its_default_in_one_way() -> None:
    for name, actions in commands().items():
        for action in actions:
            assert not re.search(r"\(default \d|[;,] default (?!:|text)\w", action.help or ""), (
                name,
                action.option_strings,
            )


def test_pytests_prefix_is_not_needed_on_the_command_line() -> None:
    parser = cli._parser(cli._ALL)
    new = parser.parse_args(["run", "-o", "out", "--strict"])
    old = parser.parse_args(["run", "--parity-report", "out", "--parity-strict"])
    assert vars(new) == vars(old)
    night = parser.parse_args(["report", "night", "--db", "h.sqlite"])
    assert vars(night) == vars(parser.parse_args(["report", "night", "--history", "h.sqlite"]))
