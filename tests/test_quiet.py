"""What libraries say to their own users is held back for a command, and what the user asked to see is not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from parity import quiet

WARN = """
import sys, types, warnings
from parity import quiet
with quiet.libraries():
    for name in ("transformers.modeling_utils", "parity.files", "torchish"):
        module = types.ModuleType(name)
        exec("import warnings\\nwarnings.warn('said by %s' % __name__, FutureWarning)", module.__dict__)
"""


def said(*options: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    done = subprocess.run(
        [sys.executable, *options, "-c", WARN], capture_output=True, text=True, env=environment, check=True
    )
    return done.stderr


def test_warnings_of_libraries_are_held_back_and_others_are_not() -> None:
    text = said()
    assert "said by transformers" not in text
    assert "said by parity.files" in text
    assert "said by torchish" in text


def test_warnings_that_were_asked_for_are_shown() -> None:
    assert "said by transformers" in said("-W", "default")


def test_the_environment_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRANSFORMERS_VERBOSITY", raising=False)
    monkeypatch.setenv("DIFFUSERS_VERBOSITY", "info")
    with quiet.libraries():
        assert os.environ["TRANSFORMERS_VERBOSITY"] == "error"
        assert os.environ["DIFFUSERS_VERBOSITY"] == "info"
    assert "TRANSFORMERS_VERBOSITY" not in os.environ
    assert os.environ["DIFFUSERS_VERBOSITY"] == "info"
