"""Can Core AI run here, and if not, what would make it run?"""

from __future__ import annotations

import importlib.util
import sys
from importlib import metadata

from parity.errors import MissingError, UnsupportedError

INSTALL = "pip install 'coreml-parity[core-ai]'"
_PACKAGES = {"coreai": "coreai-core", "coreai_torch": "coreai-torch"}
_OLDEST = (3, 11)


def reason(*, convert: bool = False) -> str:
    """Return why Core AI cannot run in this environment, in one sentence; empty if it can.

    Parameters
    ----------
    convert : bool
        Whether a torch module is to be converted, which needs ``coreai-torch`` as well.
    """
    if sys.version_info < _OLDEST:
        have = ".".join(map(str, sys.version_info[:2]))
        return f"Core AI's packages need Python 3.11 or newer, this is Python {have}"
    wanted = _PACKAGES if convert else {"coreai": _PACKAGES["coreai"]}
    missing = [package for module, package in wanted.items() if importlib.util.find_spec(module) is None]
    return f"{' and '.join(missing)} not installed: {INSTALL}" if missing else ""


def require(*, convert: bool = False) -> None:
    """Raise the reason, if there is one.

    Raises
    ------
    UnsupportedError
        Python is too old.
    MissingError
        A package is missing; the message has the command that installs it.
    """
    if text := reason(convert=convert):
        raise (UnsupportedError if sys.version_info < _OLDEST else MissingError)(text)


def versions() -> dict[str, str]:
    """Return the versions of Core AI's packages that are installed."""
    found = {}
    for package in _PACKAGES.values():
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
