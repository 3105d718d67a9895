"""Every requirement has a lower end, and what is installed here lies within the declared ranges."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from packaging.version import Version

from tests.lowest import lowest


def test_each_requirement_has_a_lower_end_that_what_is_installed_reaches() -> None:
    ends = lowest(Path(__file__).parents[1] / "pyproject.toml")
    assert {"torch", "diffusers", "transformers", "coremltools", "numpy"} <= ends.keys()
    for name, version in ends.items():
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # another Python's, or a tool that this environment does without
        assert Version(installed) >= Version(version), name
