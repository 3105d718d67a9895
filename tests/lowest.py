"""What are the oldest releases that pyproject.toml allows? Constraints for pip: ``python -m tests.lowest > FILE``.

``make lower-ends`` installs them into an environment of its own, with the oldest Python, and runs the tests there.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(?:\[[^\]]*\])?>=(?P<lowest>[\w.]+)")


def lowest(pyproject: Path) -> dict[str, str]:
    """Return each requirement of the project and of its tests, and the lowest release in its range."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["run"], *extras["dev"]]
    found = {}
    for text in wanted:
        if text.startswith(f"{project['name']}["):  # one extra that names another
            continue
        match = _REQUIREMENT.match(text)
        if match is None:
            raise ValueError(f"{pyproject}: {text!r} has no lower end (>=)")
        found[match["name"]] = match["lowest"]
    return found


if __name__ == "__main__":
    for name, version in lowest(Path(__file__).parents[1] / "pyproject.toml").items():
        print(f"{name}=={version}")
