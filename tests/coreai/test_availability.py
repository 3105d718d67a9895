"""Without the extra, or on an old Python, the reason is one sentence that says what to do."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from parity import tables
from parity.coreai import availability
from parity.errors import MissingError, UnsupportedError


def test_missing_packages_are_named_with_the_command(monkeypatch):
    original = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.startswith("coreai") else original(name))
    monkeypatch.setattr(sys, "version_info", (3, 11, 0))
    assert availability.reason() == f"coreai-core not installed: {availability.INSTALL}"
    with pytest.raises(MissingError, match=r"coreai-core and coreai-torch not installed: pip install"):
        availability.require(convert=True)


def test_an_old_python_is_the_reason(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 14))
    with pytest.raises(UnsupportedError, match=r"need Python 3.11 or newer, this is Python 3.10"):
        availability.require()


def test_the_extra_names_what_is_imported():
    declared = tables.read(Path(__file__).parents[2] / "pyproject.toml")["project"]["optional-dependencies"]["core-ai"]
    assert {re.split("[=>]", entry)[0] for entry in declared} == set(availability._PACKAGES.values())
    assert all("python_version >= '3.11'" in entry for entry in declared)
