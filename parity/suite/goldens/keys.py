"""What splits goldens into series, and what merely goes on record?

Two goldens are of one series when the same model (by the digest of its weights) was asked the same (task, texts,
scheduler, steps, seed, …) and the same *backend, major version of the system and family of the chip* drew. Versions of
libraries, the exact system and chip, commits and dates are provenance: they are kept, shown and compared, and split
nothing.
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase

from parity.errors import UsageError
from parity.tables import nearest

_PATIENCE = 10  # seconds for a system's own tool


@dataclass(frozen=True)
class Keys:
    """Who drew, as far as it splits a series; in an approval these are patterns (``*``, ``macOS *``).

    Attributes
    ----------
    backend : str
        Numerics of the networks, e.g. ``PyTorch cpu float32`` or ``Core ML CPU_AND_NE``.
    system : str
        The system with its major version, e.g. ``macOS 26``; elsewhere its name alone, e.g. ``Linux``.
    chip : str
        Family of the chip, e.g. ``Apple M2`` for an M2 Pro; elsewhere the architecture, e.g. ``x86_64``.
    """

    backend: str
    system: str
    chip: str

    def takes(self, here: Keys) -> bool:
        """Return whether these patterns cover a place.

        >>> Keys("PyTorch *", "*", "*").takes(Keys("PyTorch cpu float32", "Linux", "x86_64"))
        True
        >>> Keys("Core ML *", "macOS 26", "Apple M2").takes(Keys("Core ML CPU_AND_NE", "macOS 27", "Apple M2"))
        False
        """
        return all(fnmatchcase(getattr(here, key), getattr(self, key)) for key in NAMES)

    def __str__(self) -> str:
        return ", ".join(getattr(self, key) for key in NAMES)


NAMES = tuple(field.name for field in fields(Keys))


def here(numerics: str) -> Keys:
    """Return the keys of what is drawn on this machine by networks of the given numerics."""
    mac = sys.platform == "darwin"
    system = f"macOS {platform.mac_ver()[0].split('.')[0]}" if mac else platform.system()
    return Keys(numerics, system, family(_brand()) if mac else platform.machine() or "unknown")


def family(chip: str) -> str:
    """Return the family of a chip: its name without what says how many cores it has.

    >>> family("Apple M2 Pro"), family("Apple M4"), family("VirtualApple @ 2.50GHz")
    ('Apple M2', 'Apple M4', 'VirtualApple')
    """
    found = re.match(r"Apple [A-Z]\d+", chip)
    return found[0] if found else chip.split(" @")[0].strip() or "unknown"


def default(drawn: Keys) -> Keys:
    """Return for which places a golden is accepted, where the person says nothing.

    PyTorch's float32 networks are the original wherever they run, and the bounds of ``golden/…`` were measured across
    kernels: such a golden is for every machine. Any other backend's is for the system and the chip that drew it.
    """
    reference = re.fullmatch(r"PyTorch \w+ float32", drawn.backend)
    return Keys("PyTorch * float32", "*", "*") if reference else drawn


def changed(keys: Keys, texts: Sequence[str]) -> Keys:
    """Return keys with some of them given as ``KEY=PATTERN``.

    Raises
    ------
    UsageError
        Another form, or no such key.
    """
    given: dict[str, str] = {}
    for text in texts:
        key, equals, pattern = text.partition("=")
        if not equals or not pattern:
            raise UsageError(f"--for {text}: KEY=PATTERN is needed, such as system='macOS *' or chip='*'")
        if key not in NAMES:
            raise UsageError(f"--for {text}: no key {key!r}{nearest(key, NAMES)}; there are {', '.join(NAMES)}")
        given[key] = pattern
    return replace(keys, **given)


def read(record: Mapping[str, object]) -> Keys:
    """Return keys from JSON.

    Raises
    ------
    ValueError
        One is missing or no text.
    """
    for key in NAMES:
        if not isinstance(record.get(key), str):
            raise ValueError(f"keys: {key} must be a text, not {record.get(key)!r:.60}")
    return Keys(**{key: str(record[key]) for key in NAMES})


def _brand() -> str:
    try:
        done = subprocess.run(
            ("sysctl", "-n", "machdep.cpu.brand_string"), capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return platform.machine()
    return done.stdout.strip() or platform.machine()
