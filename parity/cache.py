"""Where made things are kept between runs: built recipes and converted packages, named by the hash of what made them.

The folder is ``$PARITY_CACHE``, else ``~/Library/Caches/coreml-parity`` on macOS, else
``$XDG_CACHE_HOME/coreml-parity`` or ``~/.cache/coreml-parity``. Everything in it can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def root() -> Path:
    """Return the cache folder; it may not exist yet."""
    if chosen := os.environ.get("PARITY_CACHE"):
        return Path(chosen).expanduser().resolve()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "coreml-parity"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "coreml-parity"


def key(**ingredients: object) -> str:
    """Return a short stable name (20 hex digits) for JSON-serialisable ingredients: equal ingredients, equal name."""
    text = json.dumps(ingredients, sort_keys=True, default=str, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def folder(kind: str, name: str) -> Path:
    """Return the cache's path for one made thing, e.g. ``folder("recipes", "tiny-sd-0123…")``; it may not exist."""
    return root() / kind / name


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock named after a path of the cache, so that processes do not make the same thing twice.

    The lock file stays; it is empty. Where the system has no such locks, each process makes its own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as stream:
        try:
            import fcntl
        except ImportError:  # pragma: no cover (Windows)
            yield
            return
        fcntl.flock(stream, fcntl.LOCK_EX)  # released when the file is closed, also by a crash
        yield
